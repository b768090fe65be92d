# SPDX-License-Identifier: BSD-3-Clause
"""GET LBA STATUS never tells of blocks past the end, nor more than was allowed (QEMU CVE-2020-1711)."""
from violation import *


def violate(w):
    c = w.session(DISK)
    blocks = len(w.content) // 512
    for lba, length in ((0, 8), (0, 24), (blocks - 1, 24), (0, 65535)):
        cdb = struct.pack(">BBQIBB", 0x9e, 0x12, lba, length, 0, 0)
        status, data = c.finish(c.command(cdb, edtl=65536, read=True))
        if status != GOOD or len(data) > length:
            raise Wrong(f"status {status:02x}, {len(data)} bytes")
        for at in range(8, len(data) - 15, 16):
            start, n = struct.unpack(">QI", data[at:at + 12])
            if start < lba or start + n > blocks:
                raise Wrong(f"LBA {start}, {n} blocks of {blocks}")
    w.want_sense(w.sense(c, struct.pack(">BBQIBB", 0x9e, 0x12, blocks, 24, 0, 0), edtl=24), 5, 0x2100)
