# SPDX-License-Identifier: BSD-3-Clause
"""A login text over the C bit without end is bounded."""
from violation import *


def violate(w):
    c = w.connect()
    try:
        for _ in range(64):
            w.login_again(c, {}, flags=0x44, extra=b"X-a=" + b"b" * 8000)
            pdu = w.answer(c)
            if pdu is None or pdu.word(36) >> 24:
                return
    except Closed:
        return
    raise Wrong("512 KiB of text were taken")
