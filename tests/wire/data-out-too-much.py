# SPDX-License-Identifier: BSD-3-Clause
"""Data-Out of more than was asked for never ends GOOD."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(write10(64, 400), edtl=32768, write=True)
    r2t = w.r2t(c, itt)
    ttt, n = r2t.word(20), r2t.word(44)
    c.data_out(itt, ttt, 0, 0, bytes(n + 4096))
    w.never_good(c, itt)
