# SPDX-License-Identifier: BSD-3-Clause
"""A text over the C bit without end is bounded."""
from violation import *


def violate(w):
    c = w.session(None)
    ttt = M32
    for _ in range(64):
        c.send(bhs(raw.TEXT, 0x40, 9, 0, 8000, tail=struct.pack(">I", ttt) + c.sequence()),
               b"X" * 8000)
        c.cmd_sn += 1
        pdu = w.answer(c)
        if pdu is None or pdu.opcode == raw.REJECT:
            return
        ttt = pdu.word(20)
    raise Wrong("512 KiB of text were taken")
