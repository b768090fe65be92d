# SPDX-License-Identifier: BSD-3-Clause
"""Hundreds of task management functions are all answered."""
from violation import *


def violate(w):
    c = w.session()
    for i in range(300):
        tail = struct.pack(">IIII", M32, c.cmd_sn, c.exp_stat_sn, 0)
        c.send(bhs(raw.TMF, 0x82, 5000 + i, immediate=True, tail=tail))
    for i in range(300):
        w.until(c, raw.TMF_RSP)
    w.lives(c)
