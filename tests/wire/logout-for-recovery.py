# SPDX-License-Identifier: BSD-3-Clause
"""Logout for recovery is answered with 2: there is none."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.LOGOUT, 0x82, 9, immediate=True, tail=struct.pack(">I", 0) + c.sequence()))
    if w.until(c, raw.LOGOUT_RSP, 9).header[2] != 2:
        raise Wrong("other response")
    w.lives(c)
