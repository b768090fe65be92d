# SPDX-License-Identifier: BSD-3-Clause
"""An initiator that knows the COW layer extension: page D5h and GET LAYER STATUS, from the text of
docs/cow-layer-extension.md and not from the daemon's sources, which it judges."""
import struct
import uuid

from cowtest import Failed
from rawiscsi import RawInitiator

GOOD, CHECK = 0, 2
DATA, ZEROS, NOBODY, COMPRESSED = range(4)
READ_ONLY, TOP, BASE, SEALED, ELSEWHERE, STREAMING = 1, 2, 4, 16, 32, 64
NO_LUN = b"\xff" * 8
NO_UUID = uuid.UUID(int=0)


class Page:
    """VPD page D5h."""

    def __init__(self, b):
        if len(b) < 82 or b[1] != 0xd5 or b[4:8] != b"COWL" or b[8] != 1:
            raise Failed(f"no page D5h: {b.hex()}")
        self.length, self.flags = struct.unpack(">H", b[2:4])[0], b[9]
        self.index, self.layers, self.view = struct.unpack(">HHB", b[10:15])
        self.chain, self.layer, self.parent = (uuid.UUID(bytes=b[n:n + 16]) for n in (16, 32, 48))
        self.parent_lun = b[64:72]
        self.granularity, self.generation, n = struct.unpack(">IIH", b[72:82])
        self.reserved = b[15] | b[9] & 0x88
        self.name = b[82:82 + n].decode()
        self.whole = self.length == len(b) - 4 == 78 + n

    def parent_is(self, lun):
        """A LUN below 256, peripheral device addressing (SAM)."""
        return self.parent_lun == struct.pack(">HHHH", lun, 0, 0, 0)


class Status:
    """What GET LAYER STATUS says."""

    def __init__(self, b):
        self.length, self.generation, self.next_lba = struct.unpack(">IIQ", b[:16])
        self.extents, self.reserved = [], 0
        for at in range(16, len(b) - 15, 16):
            lba, blocks, state, reserved, depth = struct.unpack(">QIBBH", b[at:at + 16])
            self.extents.append((lba, blocks, state, depth))
            self.reserved |= reserved

    def wrong(self, lba):
        """What must hold of any answer that begins at @lba and was not truncated."""
        at, before = lba, None
        for start, blocks, state, depth in self.extents:
            if start != at or not blocks:
                return f"an extent at {start} of {blocks}, not at {at}"
            if (state, depth) == before:
                return f"two neighbours alike at {start}"
            if state > COMPRESSED or (depth == 0xffff) != (state == NOBODY):
                return f"state {state} with depth {depth} at {start}"
            at, before = start + blocks, (state, depth)
        if self.next_lba != at or self.reserved or self.length != 12 + 16 * len(self.extents):
            return f"next LBA {self.next_lba}, length {self.length}, {len(self.extents)} extents to {at}"
        return ""


class CowInitiator(RawInitiator):
    def __init__(self, port, iqn, number=1):
        super().__init__(port, name=f"iqn.2026-11.com.example:cow{number}")
        self.login(iqn, isid=b"\x80\0\0\0\x0c" + bytes([number]))

    def sense(self):
        """(key, ASC, ASCQ) of the last command; fixed format."""
        s = self.sense_data
        return (s[2] & 15, s[12], s[13]) if len(s) > 13 else None

    def ask(self, cdb, lun, allocation):
        """(status, data, sense)"""
        status, data = self.finish(self.command(cdb, lun, allocation, read=allocation > 0))
        return status, data, self.sense() if status == CHECK else None

    def attentions(self, lun):
        """The unit attentions that wait there, one (ASC, ASCQ) each; they are taken."""
        found = []
        while True:
            status, _, sense = self.ask(bytes(6), lun, 0)
            if status == GOOD:
                return found
            if sense is None or sense[0] != 6 or len(found) > 15:
                raise Failed(f"TEST UNIT READY on LUN {lun}: status {status}, sense {sense}")
            found.append(sense[1:])

    def vpd(self, lun, page, allocation=1024):
        return self.ask(struct.pack(">BBBHx", 0x12, 1, page, allocation), lun, allocation)[1]

    def page(self, lun):
        return Page(self.vpd(lun, 0xd5))

    def luns(self):
        data = self.ask(struct.pack(">BBBxxxIxx", 0xa0, 0, 0, 1024), 0, 1024)[1]
        return [struct.unpack(">H", data[at:at + 2])[0] & 0x3fff for at in range(8, len(data), 8)]

    def status_raw(self, lun, lba=0, allocation=4096, depth=0, action=0, control=0):
        cdb = struct.pack(">BBQIBB", 0xc5, action, lba, allocation, depth, control)
        return self.ask(cdb, lun, allocation)

    def status(self, lun, lba=0, allocation=4096, depth=0):
        status, data, sense = self.status_raw(lun, lba, allocation, depth)
        if status != GOOD:
            raise Failed(f"GET LAYER STATUS of LUN {lun}: status {status}, sense {sense}")
        return Status(data)

    def capacity(self, lun):
        """(blocks, block size)"""
        data = self.ask(struct.pack(">BB8xIxx", 0x9e, 0x10, 32), lun, 32)[1]
        last, size = struct.unpack(">QI", data[:12])
        return last + 1, size
