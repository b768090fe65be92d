# SPDX-License-Identifier: BSD-3-Clause
"""Immediate and unsolicited data, zero-length segments between, then R2T: all arrives."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="No", ImmediateData="Yes", FirstBurstLength="2048")
    data = w.j.rng.randbytes(8192)
    itt = c.command(write10(16, 200), edtl=8192, write=True, final=False, data=data[:512])
    c.data_out(itt, M32, 0, 512, b"", final=False)
    c.data_out(itt, M32, 1, 512, data[512:1024], final=False)
    c.data_out(itt, M32, 2, 1024, data[1024:2048])
    w.want_good(w.sense_of(c, itt, data))
    if c.read10(200, 16) != (GOOD, data):
        raise Wrong("other data is read")
