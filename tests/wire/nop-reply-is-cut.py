# SPDX-License-Identifier: BSD-3-Clause
"""A ping longer than the initiator's own limit comes back cut to it."""
from violation import *


def violate(w):
    c = w.session(DISK, MaxRecvDataSegmentLength="512")
    itt = c.take_itt()
    tail = struct.pack(">I", M32) + c.sequence()
    c.send(bhs(raw.NOP_OUT, 0x80, itt, 0, 4096, immediate=True, tail=tail), bytes(4096))
    if len(w.until(c, raw.NOP_IN, itt).data) > 512:
        raise Wrong("more than the initiator takes")
