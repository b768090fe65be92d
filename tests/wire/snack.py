# SPDX-License-Identifier: BSD-3-Clause
"""SNACK is rejected: ErrorRecoveryLevel is 0."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.SNACK, 0x80, 5, tail=struct.pack(">I", 0) + c.sequence()))
    w.rejected(c, 3)
