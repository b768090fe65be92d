# SPDX-License-Identifier: BSD-3-Clause
"""FORMAT UNIT by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x04\0\0\0\0\0", bytes(0))
