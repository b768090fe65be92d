# SPDX-License-Identifier: BSD-3-Clause
"""A login whose keys are cut into pieces of 7 bytes over the C bit is taken."""
from violation import *


def violate(w):
    text = b"".join(f"{k}={v}".encode() + b"\0" for k, v in {
        "InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": DISK,
        "MaxRecvDataSegmentLength": "4096", "ImmediateData": "No"}.items())
    c, isid = w.connect(), w.new_isid()
    parts = [text[i:i + 7] for i in range(0, len(text), 7)]
    for part in parts[:-1]:
        w.login_again(c, part, flags=0x44, isid=isid)
        w.stays_in_login(c)
    w.login_again(c, parts[-1], isid=isid)
    w.stays_in_login(c, transit=True)
    w.lives(c)
