# SPDX-License-Identifier: BSD-3-Clause
"""An F before FirstBurstLength is reached is no fault: the rest is asked for."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="No", ImmediateData="No", FirstBurstLength="65536")
    data = w.j.rng.randbytes(4096)
    itt = c.command(write10(8, 300), edtl=4096, write=True, final=False)
    c.data_out(itt, M32, 0, 0, data[:512])
    w.want_good(w.sense_of(c, itt, data))
    if c.read10(300, 8) != (GOOD, data):
        raise Wrong("other data is read")
