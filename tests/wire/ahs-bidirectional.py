# SPDX-License-Identifier: BSD-3-Clause
"""A bidirectional command is refused, nothing is written."""
from violation import *


def violate(w):
    c = w.session()
    itt = c.take_itt()
    tail = struct.pack(">III", 512, c.cmd_sn, c.exp_stat_sn) + struct.pack(">BBIBHB", 0x53, 0, 7, 0, 1, 0).ljust(16, b"\0")
    c.send_raw(bhs(raw.SCSI_CMD, 0xe1, itt, 0, 512, ahs_words=2, tail=tail) +
               struct.pack(">HBBI", 5, 2, 0, 512) + b"\xcc" * 512)
    c.cmd_sn += 1
    w.want_sense(w.sense_of(c, itt), 5, 0x2000)
    itt = c.take_itt()  # the same, of a command that is known
    tail = struct.pack(">III", 512, c.cmd_sn, c.exp_stat_sn) + write10(1, 7).ljust(16, b"\0")
    c.send_raw(bhs(raw.SCSI_CMD, 0xe1, itt, 0, 512, ahs_words=2, tail=tail) +
               struct.pack(">HBBI", 5, 2, 0, 512) + b"\xcc" * 512)
    c.cmd_sn += 1
    w.want_sense(w.sense_of(c, itt), 5, 0x2000)
    if c.read10(7, 1) != (GOOD, bytes(512)):
        raise Wrong("it was written")
