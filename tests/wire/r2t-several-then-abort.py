# SPDX-License-Identifier: BSD-3-Clause
"""A command is aborted while several R2Ts are open: data that still comes for it is ignored."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096",
                  MaxOutstandingR2T="4")
    itt = c.command(write10(32, 400), edtl=16384, write=True)
    asked = [w.r2t(c, itt) for _ in range(int(c.login_text["MaxOutstandingR2T"]))]
    response, _ = c.manage(1, task=itt)
    if response:
        raise Wrong(f"ABORT TASK was answered {response}")
    for pdu in asked:
        c.data_out(itt, pdu.word(20), 0, pdu.word(40), bytes(pdu.word(44)))
    w.ignored(c)
    w.want_good(w.sense_of(c, c.command(write10(32, 400), edtl=16384, write=True)))
