# SPDX-License-Identifier: BSD-3-Clause
"""Opcodes that only a target sends are rejected."""
from violation import *


def violate(w):
    c = w.session()
    for opcode in (0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f):
        c.send(bhs(opcode, tail=struct.pack(">I", 0) + c.sequence()))
        w.rejected(c, 4, 5)
