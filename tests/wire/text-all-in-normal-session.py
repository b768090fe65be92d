# SPDX-License-Identifier: BSD-3-Clause
"""SendTargets=All in a normal session is rejected."""
from violation import *


def violate(w):
    c = w.session(DISK)
    c.send(bhs(raw.TEXT, 0x80, 9, 0, 16, tail=struct.pack(">I", M32) + c.sequence()),
           b'SendTargets=All\x00')
    c.cmd_sn += 1
    w.rejected(c, 4)
