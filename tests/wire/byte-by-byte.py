# SPDX-License-Identifier: BSD-3-Clause
"""PDUs that come byte by byte are whole in the end (gotgt 46)."""
from violation import *


def violate(w):
    c = w.session()
    block = bytes(range(256)) * 2
    itt = c.take_itt()
    tail = struct.pack(">III", 512, c.cmd_sn, c.exp_stat_sn) + write10(1, 40).ljust(16, b"\0")
    for byte in bhs(raw.SCSI_CMD, 0xa1, itt, 0, 512, tail=tail) + block:
        c.send_raw(bytes([byte]))
    c.cmd_sn += 1
    w.want_good(w.sense_of(c, itt))
    if c.read10(40, 1) != (GOOD, block):
        raise Wrong("other data is read")
