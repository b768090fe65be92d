# SPDX-License-Identifier: BSD-3-Clause
"""A ping with a CmdSN takes it, and comes back with its tag, its data, and the next StatSN."""
from violation import *


def violate(w):
    c = w.session(DISK)
    for size in (0, 1, 4095):
        data = w.j.rng.randbytes(size)
        before = c.exp_stat_sn
        c.send(bhs(raw.NOP_OUT, 0x80, 900 + size, 0, size, tail=struct.pack(">I", M32) + c.sequence()), data)
        c.cmd_sn += 1
        pdu = w.until(c, raw.NOP_IN, 900 + size)
        if (pdu.data, pdu.word(20), pdu.word(24), pdu.word(28)) != (data, M32, before, c.cmd_sn):
            raise Wrong(f"tag {pdu.word(20):x}, StatSN {pdu.word(24)}, ExpCmdSN {pdu.word(28)}")
