# SPDX-License-Identifier: BSD-3-Clause
"""TARGET WARM RESET of a write whose data is due: answered once the write is gone, which is never answered."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(write10(64, 400), edtl=32768, write=True)
    r2t = w.r2t(c, itt)
    ttt, n = r2t.word(20), r2t.word(44)
    response, before = c.manage(6, task=itt)
    if response != 0 or any(p.opcode == raw.SCSI_RSP and p.itt == itt for p in before):
        raise Wrong(f"response {response}")
    c.data_out(itt, ttt, 0, 0, bytes(n))
    w.ignored(c)
    for _ in range(4):
        if c.finish(c.command(bytes(6)))[0] == GOOD:
            return
    raise Wrong("the LUN does not become ready")
