# SPDX-License-Identifier: BSD-3-Clause
"""Reads larger than every buffer and burst come whole (SPDK 788)."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, MaxBurstLength="262144", MaxRecvDataSegmentLength="65536")
    for blocks in (2049, 65536):
        itt = c.command(cdb16(0x88, 0, blocks), edtl=blocks * 512, read=True)
        status, data = c.finish(itt)
        if status != GOOD or len(data) != blocks * 512:
            raise Wrong(f"{blocks} blocks: status {status:02x}, {len(data)} bytes")
