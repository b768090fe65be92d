# SPDX-License-Identifier: BSD-3-Clause
"""SANITIZE by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x48\x81" + bytes(5) + b"\0\x08\0", struct.pack(">BBHI", 1, 0, 4, 0))
