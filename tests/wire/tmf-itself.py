# SPDX-License-Identifier: BSD-3-Clause
"""ABORT TASK with its own tag does no harm."""
from violation import *


def violate(w):
    c = w.session()
    tail = struct.pack(">IIII", 12, c.cmd_sn, c.exp_stat_sn, 0)
    c.send(bhs(raw.TMF, 0x81, 12, tail=tail, immediate=True))
    w.until(c, raw.TMF_RSP, 12)
    w.lives(c)
