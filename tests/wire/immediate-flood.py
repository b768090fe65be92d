# SPDX-License-Identifier: BSD-3-Clause
"""More immediate commands than we keep are rejected, the session lives."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    for i in range(40):
        tail = struct.pack(">III", 512, c.cmd_sn, c.exp_stat_sn) + write10(1).ljust(16, b"\0")
        c.send(bhs(raw.SCSI_CMD, 0xa1, 1000 + i, immediate=True, tail=tail))
    while w.answer(c).opcode != raw.REJECT:
        pass
    w.lives(c)
