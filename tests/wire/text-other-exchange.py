# SPDX-License-Identifier: BSD-3-Clause
"""A new exchange ends the one under way."""
from violation import *


def violate(w):
    c = w.session(None)
    c.send(bhs(raw.TEXT, 0x40, 9, 0, 4, tail=struct.pack(">I", M32) + c.sequence()),
           b'X-a=')
    c.cmd_sn += 1
    w.until(c, raw.TEXT_RSP, 9)
    c.send(bhs(raw.TEXT, 0x80, 10, 0, 16, tail=struct.pack(">I", M32) + c.sequence()),
           b'SendTargets=All\x00')
    c.cmd_sn += 1
    if DISK.encode() not in w.until(c, raw.TEXT_RSP, 10).data:
        raise Wrong("no target in the answer")
