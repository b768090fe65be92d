# SPDX-License-Identifier: BSD-3-Clause
"""A key of the login in full feature phase is answered Reject."""
from violation import *


def violate(w):
    c = w.session(DISK)
    c.send(bhs(raw.TEXT, 0x80, 9, 0, 21, tail=struct.pack(">I", M32) + c.sequence()),
           b'MaxBurstLength=65536\x00')
    c.cmd_sn += 1
    if b"MaxBurstLength=Reject" not in w.until(c, raw.TEXT_RSP, 9).data:
        raise Wrong("other answer")
    w.lives(c)
