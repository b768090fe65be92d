# SPDX-License-Identifier: BSD-3-Clause
"""ExpCmdSN and MaxCmdSN are right on both sides of the wrap."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, cmd_sn=0xffffff80)
    for _ in range(200):
        itt = c.command(bytes(6))
        pdu = w.until(c, raw.SCSI_RSP, itt)
        window = (pdu.word(32) - pdu.word(28) + 1) & M32
        if pdu.word(28) != c.cmd_sn or not 1 <= window <= 1024:
            raise Wrong(f"ExpCmdSN {pdu.word(28):08x}, MaxCmdSN {pdu.word(32):08x}, next {c.cmd_sn:08x}")
