# SPDX-License-Identifier: BSD-3-Clause
"""An extended CDB in an AHS is refused as an unknown command."""
from violation import *


def violate(w):
    c = w.session()
    itt = c.take_itt()
    tail = struct.pack(">III", 0, c.cmd_sn, c.exp_stat_sn) + b"\x7f" + bytes(6) + b"\x18\0\x09" + bytes(6)
    c.send_raw(bhs(raw.SCSI_CMD, 0x81, itt, ahs_words=5, tail=tail) +
               struct.pack(">HBB", 17, 1, 0) + bytes(16))
    c.cmd_sn += 1
    w.want_sense(w.sense_of(c, itt), 5, 0x2000)
