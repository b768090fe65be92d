# SPDX-License-Identifier: BSD-3-Clause
"""Padding that is not zero does no harm."""
from violation import *


def violate(w):
    c = w.session()
    tail = struct.pack(">I", M32) + c.sequence()
    c.send_raw(bhs(raw.NOP_OUT, 0x80, 0x77, 0, 5, immediate=True, tail=tail) + b"hello\xff\xff\xff")
    pdu = w.until(c, raw.NOP_IN, 0x77)
    if pdu.data != b"hello":
        raise Wrong(repr(pdu.data))
