# SPDX-License-Identifier: BSD-3-Clause
"""A data segment above what we declared ends the connection."""
from violation import *


def violate(w):
    c = w.session()
    c.send_raw(bhs(raw.NOP_OUT, 0x80, 5, 0, 0xfffffc, immediate=True))
    w.closed(c)
