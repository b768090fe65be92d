# SPDX-License-Identifier: BSD-3-Clause
"""UNMAP by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(struct.pack(">BBIBHB", 0x42, 0, 0, 0, 24, 0), struct.pack(">HHIQII", 22, 16, 0, 0, 8, 0))
