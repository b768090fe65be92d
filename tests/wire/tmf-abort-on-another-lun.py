# SPDX-License-Identifier: BSD-3-Clause
"""ABORT TASK names the LUN as well: another one, or one that is not there, is told so."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(write10(64, 400), edtl=32768, write=True)
    r2t = w.r2t(c, itt)
    for lun, want in ((1, 1), (77, 2)):
        response, _ = c.manage(1, lun=lun, task=itt)
        if response != want:
            raise Wrong(f"LUN {lun}: response {response}")
    c.data_out(itt, r2t.word(20), 0, 0, bytes(r2t.word(44)))
    w.want_good(w.sense_of(c, itt))
