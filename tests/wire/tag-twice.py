# SPDX-License-Identifier: BSD-3-Clause
"""A tag that is in use already is rejected, the first command lives."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    c.command(write10(1), edtl=512, write=True, itt=50)
    r2t = w.r2t(c, 50)
    c.command(write10(1), edtl=512, write=True, itt=50)
    w.refused(c, 4)
    c.data_out(50, r2t.word(20), 0, 0, bytes(512))
    w.want_good(w.sense_of(c, 50))
