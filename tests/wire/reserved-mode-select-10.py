# SPDX-License-Identifier: BSD-3-Clause
"""MODE SELECT 10 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x55\x10\0\0\0\0\0\0\x08\0", bytes(8))
