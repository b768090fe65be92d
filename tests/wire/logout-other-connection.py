# SPDX-License-Identifier: BSD-3-Clause
"""Logout of a connection that is not there is answered with 1."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.LOGOUT, 0x81, 9, immediate=True, tail=struct.pack(">HH", 77, 0) + c.sequence()))
    if w.until(c, raw.LOGOUT_RSP, 9).header[2] != 1:
        raise Wrong("other response")
    w.lives(c)
