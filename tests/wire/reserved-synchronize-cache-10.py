# SPDX-License-Identifier: BSD-3-Clause
"""SYNCHRONIZE CACHE 10 by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(cdb10(0x35, 0, 0), bytes(0))
