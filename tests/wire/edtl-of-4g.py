# SPDX-License-Identifier: BSD-3-Clause
"""A write that promises 4 GiB and sends none of it holds up nobody."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    itt = c.command(cdb16(0x8a, 0, 8), edtl=0xffffffff, write=True)
    pdu = w.answer(c)
    if pdu.opcode == raw.R2T and pdu.word(44) > 16 << 20:
        raise Wrong(f"an R2T of {pdu.word(44)} bytes")
    w.lives(w.session())
