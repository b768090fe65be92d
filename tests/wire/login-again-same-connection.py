# SPDX-License-Identifier: BSD-3-Clause
"""A connection opened anew (same TSIH and CID) takes the session over, the old one ends."""
from violation import *


def violate(w):
    old = w.session(SCRATCH, InitialR2T="Yes", MaxOutstandingR2T="3")
    w.want_good(w.sense(old, b"\x16" + bytes(5)))
    itt = old.command(write10(64, 400), edtl=32768, write=True)
    w.r2t(old, itt)
    new = w.connect()
    new.cmd_sn = old.cmd_sn
    rsp = new.login(SCRATCH, isid=old.isid, tsih=old.tsih, MaxOutstandingR2T="1", DataDigest="CRC32C")
    if rsp.word(36) >> 16 or struct.unpack(">H", rsp.header[14:16])[0] != old.tsih:
        raise Wrong(f"login status {rsp.word(36) >> 16:04x}, TSIH {rsp.header[14:16].hex()}")
    if new.login_text.get("MaxOutstandingR2T") != "Reject" or not new.data_digest:
        raise Wrong(f"a key of the leading login was negotiated again: {new.login_text}")
    w.closed(old)
    w.want_good(w.sense(new, bytes(6)))  # no unit attention: it is the same nexus
    w.want_good(w.sense(new, write10(64, 400), out=bytes(32768)))
    other = w.session(SCRATCH)
    if w.sense(other, write10(1), out=bytes(512))[0] != CONFLICT:
        raise Wrong("the reservation is gone")
    w.want_good(w.sense(new, b"\x17" + bytes(5)))
