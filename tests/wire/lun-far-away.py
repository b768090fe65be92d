# SPDX-License-Identifier: BSD-3-Clause
"""Commands to LUN addresses of every method end with a sense."""
from violation import *


def violate(w):
    c = w.session()
    for field in (b"\0\x63" + bytes(6), b"\x7f\xff" + bytes(6), b"\xc1\2" + bytes(6), b"\xff" * 8,
                  b"\0\0\0\1" + bytes(4), b"\x80\0" + bytes(6)):
        itt = c.take_itt()
        tail = struct.pack(">III", 0, c.cmd_sn, c.exp_stat_sn) + bytes(16)
        header = bytearray(bhs(raw.SCSI_CMD, 0x81, itt, tail=tail))
        header[8:16] = field
        c.send(bytes(header))
        c.cmd_sn += 1
        w.want_sense(w.sense_of(c, itt), 5, 0x2500)
