# SPDX-License-Identifier: BSD-3-Clause
"""Logout of the session and of its one connection are answered 0, then it ends."""
from violation import *


def violate(w):
    for reason in (0, 1):
        c = w.session()
        c.send(bhs(raw.LOGOUT, 0x80 | reason, 9, tail=struct.pack(">I", 0) + c.sequence()))
        rsp = w.until(c, raw.LOGOUT_RSP, 9)
        if rsp.header[2] or rsp.flags != 0x80:
            raise Wrong(f"response {rsp.header[2]}")
        w.closed(c)
