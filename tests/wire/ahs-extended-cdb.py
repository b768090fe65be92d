# SPDX-License-Identifier: BSD-3-Clause
"""A long CDB in an AHS: GET LBA STATUS(32) is answered, what isn't known or is longer is refused."""
from violation import *


def send(c, cdb, edtl=0):
    itt, more = c.take_itt(), cdb[16:]
    ahs = struct.pack(">HBB", len(more) + 1, 1, 0) + more + bytes(-len(more) % 4)
    tail = struct.pack(">III", edtl, c.cmd_sn, c.exp_stat_sn) + cdb[:16]
    c.send_raw(bhs(raw.SCSI_CMD, 0xc1 if edtl else 0x81, itt, ahs_words=len(ahs) // 4, tail=tail) + ahs)
    c.cmd_sn += 1
    return itt


def long_cdb(action, alloc, lba=0):
    return struct.pack(">B6xBHBxQIII", 0x7f, 0x18, action, 0, lba, 0, 0, alloc)


def violate(w):
    c = w.session()
    short = c.finish(c.command(struct.pack(">BBQIBB", 0x9e, 0x12, 8, 512, 0, 0), edtl=512, read=True))
    if short[0] != GOOD or c.finish(send(c, long_cdb(0x12, 512, 8), 512)) != short:
        raise Wrong("GET LBA STATUS(32) does not tell what the short one does")
    w.want_sense(w.sense_of(c, send(c, long_cdb(0x09, 512), 512)), 5, 0x2400)  # READ(32)
    w.want_sense(w.sense_of(c, send(c, long_cdb(0x12, 512)[:28], 512)), 5, 0x2400)
    w.want_sense(w.sense_of(c, send(c, long_cdb(0x12, 512) + bytes(4), 512)), 5, 0x2000)
    w.want_sense(w.sense_of(c, send(c, long_cdb(0x12, 512) + bytes(988), 512)), 5, 0x2000)
    w.want_sense(w.sense_of(c, send(c, read10(1) + bytes(22), 512)), 5, 0x2000)
    w.lives(c)
