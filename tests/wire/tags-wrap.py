# SPDX-License-Identifier: BSD-3-Clause
"""Initiator task tags near FFFFFFFFh are tags like others."""
from violation import *


def violate(w):
    c = w.session()
    for tag in (0xfffffffe, 0xfffffffd, 0, 0x80000000):
        w.want_good(w.sense_of(c, c.command(bytes(6), itt=tag)))
