# SPDX-License-Identifier: BSD-3-Clause
"""2000 reads by one that never reads an answer hold up nobody."""
from violation import *


def violate(w):
    c = w.session(DISK)
    c.sock.settimeout(0.2)
    try:
        for _ in range(2000):
            c.command(read10(256), edtl=131072, read=True)
    except Closed:
        pass
    w.lives(w.session(DISK))
