# SPDX-License-Identifier: BSD-3-Clause
"""ORWRITE by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(cdb16(0x8b, 0, 1), bytes(512))
