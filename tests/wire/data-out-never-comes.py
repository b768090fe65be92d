# SPDX-License-Identifier: BSD-3-Clause
"""A write whose data never comes holds up nobody and ends with its session."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(write10(64, 400), edtl=32768, write=True)
    r2t = w.r2t(c, itt)
    ttt, n = r2t.word(20), r2t.word(44)
    w.want_good(w.sense_of(c, c.command(bytes(6))))
    w.lives(w.session())
