# SPDX-License-Identifier: BSD-3-Clause
"""A text that is not well-formed is rejected."""
from violation import *


def violate(w):
    c = w.session(DISK)
    c.send(bhs(raw.TEXT, 0x80, 9, 0, 9, tail=struct.pack(">I", M32) + c.sequence()),
           b'nonsense\x00')
    c.cmd_sn += 1
    w.rejected(c, 4)
