# SPDX-License-Identifier: BSD-3-Clause
"""A connection that is reset with R2Ts open leaves nothing behind."""
from violation import *


def violate(w):
    for _ in range(20):
        c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
        for _ in range(10):
            c.command(write10(64), edtl=32768, write=True)
        c.sock.setsockopt(1, 13, struct.pack("ii", 1, 0))
        c.sock.close()
    within(20, "sessions gone", lambda: not [s for s in w.d.execute("query-sessions")
                                             if s.get("target") == SCRATCH])
