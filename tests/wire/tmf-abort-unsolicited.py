# SPDX-License-Identifier: BSD-3-Clause
"""ABORT TASK of a write whose unsolicited data is under way: answered at its end, nothing is
written."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="No", ImmediateData="Yes", FirstBurstLength="65536")
    w.want_good(w.sense(c, write10(16, 600), out=bytes(8192)))
    itt = c.command(write10(16, 600), edtl=8192, write=True, final=False)
    c.data_out(itt, M32, 0, 0, b"\xee" * 4096, final=False)
    tmf = w.manage(c, 1, itt)
    c.data_out(itt, M32, 1, 4096, b"\xee" * 4096)
    pdu = w.until(c, raw.TMF_RSP, tmf)
    if pdu.header[2]:
        raise Wrong(f"response {pdu.header[2]}")
    status, data = c.finish(c.command(read10(16, 600), edtl=8192, read=True))
    if status != GOOD or data != bytes(8192):
        raise Wrong("it was written")
