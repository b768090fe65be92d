# SPDX-License-Identifier: BSD-3-Clause
"""Keys in the request that asks for the rest of an answer are refused."""
from violation import *


def violate(w):
    c = w.connect()
    text = {"InitiatorName": c.name, "SessionType": "Discovery", "MaxRecvDataSegmentLength": "512"}
    w.login_again(c, text, flags=0x04, extra=b"".join(b"X-key-%03d=v\0" % i for i in range(60)))
    pdu = w.until(c, raw.LOGIN_RSP)
    if not pdu.flags & 0x40 or len(pdu.data) > 512:
        raise Wrong(f"flags {pdu.flags:02x}, {len(pdu.data)} bytes")
    w.login_again(c, {"X-more": "1"}, flags=0x04)
    w.login_refused(c)
