# SPDX-License-Identifier: BSD-3-Clause
"""An expected length without R or W is no transfer."""
from violation import *


def violate(w):
    c = w.session()
    itt = c.take_itt()
    tail = struct.pack(">III", 0xffffffff, c.cmd_sn, c.exp_stat_sn) + bytes(16)
    c.send(bhs(raw.SCSI_CMD, 0x81, itt, tail=tail))
    c.cmd_sn += 1
    w.want_good(w.sense_of(c, itt))
