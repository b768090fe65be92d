# SPDX-License-Identifier: BSD-3-Clause
"""A Text Request with C and no data is answered, the session lives (SPDK)."""
from violation import *


def violate(w):
    c = w.session(None)
    c.send(bhs(raw.TEXT, 0x40, 9, 0, 0, tail=struct.pack(">I", M32) + c.sequence()),
           b'')
    c.cmd_sn += 1
    w.until(c, raw.TEXT_RSP, 9)
    w.lives(c)
