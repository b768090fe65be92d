# SPDX-License-Identifier: BSD-3-Clause
"""A Text Request that goes on where nothing was begun is rejected."""
from violation import *


def violate(w):
    c = w.session(None)
    c.send(bhs(raw.TEXT, 0x80, 9, 0, 16, tail=struct.pack(">I", 0x7777) + c.sequence()),
           b'SendTargets=All\x00')
    c.cmd_sn += 1
    w.rejected(c, 4)
