# SPDX-License-Identifier: BSD-3-Clause
"""Login requests whose headers contradict themselves are told so with 0200."""
from violation import *


def violate(w):
    for at in ({0: b"\x03"}, {1: b"\xc7"}, {16: b"\xff\xff\xff\xff"}):
        pdu = w.answer(w.first_login(at=at))
        if pdu is None or pdu.opcode != raw.LOGIN_RSP or pdu.word(36) >> 16 != 0x0200:
            raise Wrong(f"{at}: {'closed' if pdu is None else hex(pdu.word(36) >> 16)}")
