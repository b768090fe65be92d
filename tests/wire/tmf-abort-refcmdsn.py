# SPDX-License-Identifier: BSD-3-Clause
"""ABORT TASK of a command that never came: by RefCmdSN it counts as received, or there is no such task."""
from violation import *


def violate(w):
    c = w.session()

    def abort(refcmdsn, cmdsn):
        itt = c.take_itt()
        c.send(bhs(raw.TMF, 0x81, itt, immediate=True,
                   tail=struct.pack(">IIII", 0x4711, cmdsn, c.exp_stat_sn, refcmdsn & M32)))
        return w.until(c, raw.TMF_RSP, itt)

    for outside in (c.cmd_sn - 1, c.cmd_sn + 100000):
        if abort(outside, c.cmd_sn).header[2] != 1:
            raise Wrong("a task outside of the window")
    rsp = abort(c.cmd_sn, c.cmd_sn + 1)
    if rsp.header[2] or rsp.word(28) != c.cmd_sn + 1:
        raise Wrong(f"response {rsp.header[2]}, ExpCmdSN {rsp.word(28)}")
    c.cmd_sn += 1
    w.want_good(w.sense(c, bytes(6)))
