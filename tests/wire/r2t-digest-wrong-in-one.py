# SPDX-License-Identifier: BSD-3-Clause
"""One burst of several comes damaged: the error is told when the others have come, too."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096",
                  MaxOutstandingR2T="4", DataDigest="CRC32C")
    itt = c.command(write10(32, 400), edtl=16384, write=True)
    agreed = int(c.login_text["MaxOutstandingR2T"])
    asked = [w.r2t(c, itt) for _ in range(agreed)]
    for i, pdu in enumerate(asked):
        at, n = pdu.word(40), pdu.word(44)
        c.data_out(itt, pdu.word(20), 0, at, bytes(n), spoil_data=not i)
    if w.until(c, raw.REJECT).header[2] != 2:
        raise Wrong("no Reject for the digest")
    status, key, code = w.sense_of(c, itt)
    if (status, key, code) != (CHECK, 0xb, 0x4705):
        raise Wrong(f"status {status:02x}, sense {key:x}/{code:04x}")
    w.lives(c)
