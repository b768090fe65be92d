# SPDX-License-Identifier: BSD-3-Clause
"""WRITE SAME 16 without data by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(cdb16(0x93, 0, 8, 1))
