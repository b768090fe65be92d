# SPDX-License-Identifier: BSD-3-Clause
"""What comes after a logout is not carried out."""
from violation import *


def violate(w):
    c = w.session()
    logout = bhs(raw.LOGOUT, 0x80, 9, immediate=True, tail=struct.pack(">I", 0) + c.sequence())
    tail = struct.pack(">III", 512, c.cmd_sn, c.exp_stat_sn) + write10(1, 5000).ljust(16, b"\0")
    c.send_raw(logout + bhs(raw.SCSI_CMD, 0xa1, 10, 0, 512, tail=tail) + b"\xdd" * 512)
    w.closed(c)
    if w.session().read10(5000, 1) != (GOOD, bytes(512)):
        raise Wrong("it was written")
