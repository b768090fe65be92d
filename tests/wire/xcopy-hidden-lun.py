# SPDX-License-Identifier: BSD-3-Clause
"""EXTENDED COPY does not reach a LUN that this initiator may not see (LIO CVE-2020-28374)."""
from violation import *


def violate(w):
    c = w.session(MASKED)
    for _ in range(4):
        if w.sense(c, bytes(6), lun=1)[1] != 6:
            break
    got = w.sense(c, bytes(6), lun=0)
    w.want_sense(got, 5, 0x2500)
    for descriptor in (b"\x01\x03\0\x10" + bytes(16), b"\x01\x03\0\x08" + bytes(8)):
        cscd = (b"\xe4\0\0\0" + descriptor).ljust(28, b"\0") + b"\0\0\2\0"
        body = cscd * 2 + struct.pack(">BBHHHHHQQ", 2, 2, 24, 0, 1, 0, 1, 0, 0)
        out = struct.pack(">BBHIII", 1, 0x10, 64, 0, 28, 0) + body
        got = w.sense(c, b"\x83\0" + bytes(8) + struct.pack(">IH", len(out), 0), lun=1, out=out)
        if got[0] != CHECK:
            raise Wrong(f"status {got[0]:02x}")
