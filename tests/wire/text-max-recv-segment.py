# SPDX-License-Identifier: BSD-3-Clause
"""MaxRecvDataSegmentLength declared in full feature phase holds from then on."""
from violation import *


def violate(w):
    c = w.session(DISK)
    text = b"MaxRecvDataSegmentLength=1024\0"
    c.send(bhs(raw.TEXT, 0x80, 9, 0, len(text), tail=struct.pack(">I", M32) + c.sequence()), text)
    c.cmd_sn += 1
    if w.until(c, raw.TEXT_RSP, 9).data:
        raise Wrong("a declaration was answered")
    itt = c.command(read10(16), edtl=8192, read=True)
    got, sn = b"", 0
    while len(got) < 8192:
        pdu = w.until(c, raw.DATA_IN, itt)
        if len(pdu.data) > 1024 or pdu.word(40) != len(got) or pdu.word(36) != sn:
            raise Wrong(f"{len(pdu.data)} bytes at {pdu.word(40)}, DataSN {pdu.word(36)}")
        got, sn = got + pdu.data, sn + 1
    if got != w.content[:8192] or not pdu.flags & 0x81 == 0x81:
        raise Wrong("other data")
