# SPDX-License-Identifier: BSD-3-Clause
"""Unsolicited data above FirstBurstLength fails the command."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="No", ImmediateData="No", FirstBurstLength="1024")
    itt = c.command(write10(8), edtl=4096, write=True, final=False)
    c.data_out(itt, M32, 0, 0, bytes(4096))
    w.never_good(c, itt)
    w.lives(c)
