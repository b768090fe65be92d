# SPDX-License-Identifier: BSD-3-Clause
"""A burst broken off for the next R2T's never ends GOOD, and the next command is not harmed."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096",
                  MaxOutstandingR2T="4")
    itt = c.command(write10(32, 400), edtl=16384, write=True)
    first = w.r2t(c, itt)
    agreed = int(c.login_text["MaxOutstandingR2T"])
    second = w.r2t(c, itt).word(20) if agreed > 1 else 0x5a5a
    c.data_out(itt, first.word(20), 0, 0, bytes(1024), final=False)
    c.data_out(itt, second, 0, 4096, bytes(1024), final=False)
    c.data_out(itt, first.word(20), 1, 1024, bytes(3072))
    w.never_good(c, itt)
    w.lives(c)
    w.want_good(w.sense_of(c, c.command(write10(8, 400), edtl=4096, write=True)))
