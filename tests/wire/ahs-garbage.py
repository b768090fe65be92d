# SPDX-License-Identifier: BSD-3-Clause
"""An AHS of nonsense is skipped."""
from violation import *


def violate(w):
    c = w.session()
    itt = c.take_itt()
    tail = struct.pack(">III", 0, c.cmd_sn, c.exp_stat_sn) + bytes(16)
    c.send_raw(bhs(raw.SCSI_CMD, 0x81, itt, ahs_words=255, tail=tail) + w.j.rng.randbytes(1020))
    c.cmd_sn += 1
    w.want_good(w.sense_of(c, itt))
