# SPDX-License-Identifier: BSD-3-Clause
"""WRITE AND VERIFY 12 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(struct.pack(">BBIIBB", 0xae, 0, 0, 1, 0, 0), bytes(512))
