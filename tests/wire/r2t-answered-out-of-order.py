# SPDX-License-Identifier: BSD-3-Clause
"""Data for the second R2T before that of the first never ends GOOD."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096",
                  MaxOutstandingR2T="2")
    itt = c.command(write10(16, 400), edtl=8192, write=True)
    w.r2t(c, itt)
    if c.login_text["MaxOutstandingR2T"] == "2":
        c.data_out(itt, w.r2t(c, itt).word(20), 0, 4096, bytes(4096))
    else:
        c.data_out(itt, 0x5a5a, 0, 4096, bytes(4096))
    w.never_good(c, itt)
