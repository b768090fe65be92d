# SPDX-License-Identifier: BSD-3-Clause
"""WRITE SAME 10 UNMAP by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(cdb10(0x41, 0, 8, 8), bytes(512))
