# SPDX-License-Identifier: BSD-3-Clause
"""Immediate data above FirstBurstLength is rejected."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, FirstBurstLength="512")
    c.command(write10(8), edtl=4096, write=True, data=bytes(4096))
    w.rejected(c, 4)
