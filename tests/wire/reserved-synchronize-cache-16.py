# SPDX-License-Identifier: BSD-3-Clause
"""SYNCHRONIZE CACHE 16 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(cdb16(0x91, 0, 0), bytes(0))
