# SPDX-License-Identifier: BSD-3-Clause
"""Removing a chain by force is bounded, whatever its initiators leave undone (SPDK 397)."""
from violation import *


def violate(w):
    w.d.execute("chain-export", name="gone", image="ram:16777216", target=DISK + "-gone", writable=True)
    c = w.session(DISK + "-gone", InitialR2T="Yes", ImmediateData="No")
    for _ in range(30):
        c.command(write10(64), edtl=32768, write=True)
    w.d.ctl("chain", "remove", "gone", "--force", timeout=20)
    w.closed(c)
