# SPDX-License-Identifier: BSD-3-Clause
"""WRITE ATOMIC 16 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(struct.pack(">BBQHHBB", 0x9c, 0, 0, 0, 32, 0, 0), bytes(16384))
