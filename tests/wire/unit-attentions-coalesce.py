# SPDX-License-Identifier: BSD-3-Clause
"""Many changes make one unit attention a kind, never more than five (libiscsi 153)."""
from violation import *


def violate(w):
    c = w.session(MASKED)
    for _ in range(3):
        for luns in ("0-1", "1"):
            w.d.execute("lun-mask", name="m", initiator="*", luns=luns)
    told = 0
    while told <= 10 and w.sense(c, bytes(6), lun=1)[1] == 6:
        told += 1
    if not 1 <= told <= 2:
        raise Wrong(f"{told} unit attentions")
