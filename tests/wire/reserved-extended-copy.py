# SPDX-License-Identifier: BSD-3-Clause
"""EXTENDED COPY by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x83\0" + bytes(8) + struct.pack(">IH", 16, 0), bytes(16))
