# SPDX-License-Identifier: BSD-3-Clause
"""A Reject has the header of what it rejects."""
from violation import *


def violate(w):
    c = w.session()
    header = bhs(raw.SNACK, 0x80, 5, tail=struct.pack(">I", 0) + c.sequence())
    c.send(header)
    pdu = w.refused(c, 3)
    if pdu is None or pdu.data != header or pdu.itt != M32:
        raise Wrong("another header" if pdu else "closed")
    w.lives(c)
