# SPDX-License-Identifier: BSD-3-Clause
"""StatSN goes on from FFFFFFFFh to 0."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, exp_stat_sn=0xfffffff0)
    last = None
    for _ in range(64):
        pdu = w.until(c, raw.SCSI_RSP, c.command(bytes(6)))
        if last is not None and pdu.word(24) != (last + 1) & M32:
            raise Wrong(f"StatSN {last:08x}, then {pdu.word(24):08x}")
        last = pdu.word(24)
    if last > 0x100:
        raise Wrong(f"it did not wrap: {last:08x}")
