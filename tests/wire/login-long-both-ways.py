# SPDX-License-Identifier: BSD-3-Clause
"""12 KiB of keys over the C bit are answered in full, in pieces that the initiator can take."""
from violation import *

KEYS = 480


def violate(w):
    text = "".join(f"{k}={v}\0" for k, v in (
        ("InitiatorName", "iqn.2026-11.com.example:raw"), ("TargetName", DISK),
        ("MaxRecvDataSegmentLength", "600"), *((f"X-com.example.key-{i}", "a" * 8) for i in range(KEYS)),
        ("ImmediateData", "No"))).encode()
    isid = w.new_isid()
    c = w.first_login(text[:8192], flags=0x44, isid=isid)
    if w.stays_in_login(c).data:
        raise Wrong("an answer before the end of the question")
    w.login_again(c, text[8192:], isid=isid)
    answer = b""
    while True:
        rsp = w.until(c, raw.LOGIN_RSP)
        answer += rsp.data
        if rsp.word(36) >> 16 or len(rsp.data) > 600 or (rsp.flags & 0xc0) == 0xc0:
            raise Wrong(f"status {rsp.word(36) >> 16:04x}, {len(rsp.data)} bytes, flags {rsp.flags:02x}")
        if not rsp.flags & 0x40:
            break
        w.login_again(c, b"", isid=isid)
    got = [p.split(b"=") for p in answer.split(b"\0") if p]
    if sum(v == b"NotUnderstood" for _, v in got) != KEYS or [b"ImmediateData", b"No"] not in got:
        raise Wrong(f"{len(got)} answers")
    if rsp.flags != 0x87:
        raise Wrong(f"flags {rsp.flags:02x}: no transit at the end")
    w.lives(c)
