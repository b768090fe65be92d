# SPDX-License-Identifier: BSD-3-Clause
"""A session opened anew while its old one has R2Ts open (SPDK 1278, 1355)."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(write10(64, 400), edtl=32768, write=True)
    r2t = w.r2t(c, itt)
    ttt, n = r2t.word(20), r2t.word(44)
    new = w.connect()
    rsp = new.login(SCRATCH, isid=c.isid)
    if rsp.word(36) >> 16:
        raise Wrong(f"login status {rsp.word(36) >> 16:04x}")
    w.closed(c)
    w.lives(new)
