# SPDX-License-Identifier: BSD-3-Clause
"""WRITE 6 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x0a\0\0\0\1\0", bytes(512))
