# SPDX-License-Identifier: BSD-3-Clause
"""A session or connection opened anew while the old one's write is at the disk begins when that has ended."""
from violation import *


def violate(w):
    for again in (False, True):
        old = w.session(SCRATCH)
        w.want_good(w.sense(old, write10(8, 2000), out=bytes(4096)))
        w.d.execute("x-inject-error", device="w", operation="write", errno="none", delay_ms=1000, once=True)
        old.command(write10(8, 2000), edtl=4096, write=True, data=b"\xa5" * 4096)
        if not old.ping():  # the write has been taken in
            raise Wrong("a ping came back spoiled")
        new = w.connect()
        new.cmd_sn = old.cmd_sn
        if new.login(SCRATCH, isid=old.isid, tsih=old.tsih if again else 0).word(36) >> 16:
            raise Wrong("login refused")
        for _ in range(3):
            status, data = new.finish(new.command(read10(8, 2000), edtl=4096, read=True))
            if status == GOOD:
                break
        w.d.execute("x-clear-errors", device="w")
        if status != GOOD or data != b"\xa5" * 4096:
            raise Wrong(f"status {status}: the write is still to come")
