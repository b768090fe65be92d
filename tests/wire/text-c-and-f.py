# SPDX-License-Identifier: BSD-3-Clause
"""C and F in one Text Request end the session."""
from violation import *


def violate(w):
    c = w.session(None)
    c.send(bhs(raw.TEXT, 0xc0, 9, 0, 8, tail=struct.pack(">I", M32) + c.sequence()),
           b'X-a=b\x00\x00\x00')
    c.cmd_sn += 1
    w.closed(c)
