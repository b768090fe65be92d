# SPDX-License-Identifier: BSD-3-Clause
"""Reads and writes that end, or wrap, beyond the last block are refused."""
from violation import *


def violate(w):
    c = w.session()
    blocks = 64 * 2048
    for op in (0x88, 0x8a):
        for lba, n in ((blocks, 1), (blocks - 1, 2), (2**64 - 1, 1), (2**64 - 1, 2), (2**63, 2**32 - 1)):
            out = bytes(512) if op == 0x8a else None
            w.want_sense(w.sense(c, cdb16(op, lba, n), out=out, edtl=0 if out else 512), 5, 0x2100, 0x2400)
