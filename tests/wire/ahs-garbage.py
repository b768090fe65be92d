# SPDX-License-Identifier: BSD-3-Clause
"""An AHS of an unknown kind is skipped; lengths that contradict each other are no command."""
from violation import *


def violate(w):
    c = w.session()
    for ahs, good in ((struct.pack(">HB", 1017, 0x3e) + w.j.rng.randbytes(1017), True),
                      (struct.pack(">HB", 1018, 0x3e) + w.j.rng.randbytes(1017), False),
                      (b"\xff" * 1020, False), (bytes(1020), True)):
        itt = c.take_itt()
        tail = struct.pack(">III", 0, c.cmd_sn, c.exp_stat_sn) + bytes(16)
        c.send_raw(bhs(raw.SCSI_CMD, 0x81, itt, ahs_words=255, tail=tail) + ahs)
        c.cmd_sn += 1
        if good:
            w.want_good(w.sense_of(c, itt))
        else:
            w.want_sense(w.sense_of(c, itt), 5, 0x2000)
