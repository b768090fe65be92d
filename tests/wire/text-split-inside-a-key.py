# SPDX-License-Identifier: BSD-3-Clause
"""A text cut inside a key is joined."""
from violation import *


def violate(w):
    c = w.session(None)
    c.send(bhs(raw.TEXT, 0x40, 9, 0, 7, tail=struct.pack(">I", M32) + c.sequence()),
           b'SendTar')
    c.cmd_sn += 1
    ttt = w.until(c, raw.TEXT_RSP, 9).word(20)
    c.send(bhs(raw.TEXT, 0x80, 9, 0, 9, tail=struct.pack(">I", ttt) + c.sequence()), b"gets=All" + bytes(1))
    c.cmd_sn += 1
    if DISK.encode() not in w.until(c, raw.TEXT_RSP, 9).data:
        raise Wrong("no target in the answer")
