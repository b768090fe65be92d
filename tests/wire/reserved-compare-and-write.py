# SPDX-License-Identifier: BSD-3-Clause
"""COMPARE AND WRITE by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(struct.pack(">BBQIBB", 0x89, 0, 0, 1, 0, 0), bytes(1024))
