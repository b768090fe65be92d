# SPDX-License-Identifier: BSD-3-Clause
"""Logout with commands under way is answered at once (longhorn 230)."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    for _ in range(60):
        c.command(write10(64), edtl=32768, write=True)
    c.send(bhs(raw.LOGOUT, 0x80, 9999, immediate=True, tail=struct.pack(">I", 0) + c.sequence()))
    w.until(c, raw.LOGOUT_RSP, 9999)
    w.closed(c)
