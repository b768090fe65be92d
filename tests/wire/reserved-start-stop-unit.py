# SPDX-License-Identifier: BSD-3-Clause
"""START STOP UNIT, to stop, by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x1b" + bytes(5))
