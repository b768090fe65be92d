# SPDX-License-Identifier: BSD-3-Clause
"""MODE SELECT 6 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x15\x10\0\0\x04\0", bytes(4))
