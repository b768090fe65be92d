# SPDX-License-Identifier: BSD-3-Clause
"""Data-Out whose second PDU goes back never ends GOOD."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(write10(64, 400), edtl=32768, write=True)
    r2t = w.r2t(c, itt)
    ttt, n = r2t.word(20), r2t.word(44)
    c.data_out(itt, ttt, 0, 0, bytes(1024), final=False)
    c.data_out(itt, ttt, 1, 512, bytes(n - 512))
    w.never_good(c, itt)
