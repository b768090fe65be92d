# SPDX-License-Identifier: BSD-3-Clause
"""CmdSN goes on from FFFFFFFFh to 0, and the window with it."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, cmd_sn=0xfffffff8)
    for _ in range(300):
        w.want_good(w.sense_of(c, c.command(bytes(6))))
    c = w.session(SCRATCH, cmd_sn=0xffffffe0)
    itts = [c.command(read10(1), edtl=512, read=True) for _ in range(100)]
    for itt in itts:
        w.want_good(w.sense_of(c, itt))
    c.command(bytes(6), cmd_sn=(c.cmd_sn - 110) & M32)
    w.ignored(c)
