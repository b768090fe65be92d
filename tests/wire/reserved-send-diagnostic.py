# SPDX-License-Identifier: BSD-3-Clause
"""SEND DIAGNOSTIC by a second nexus conflicts with every reservation that forbids it."""
from violation import *


def violate(w):
    w.conflicts(b"\x1d\4" + bytes(4))
