# SPDX-License-Identifier: BSD-3-Clause
"""A login may go from the security stage to the full feature phase at once."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": DISK, "AuthMethod": "CHAP,None"}
    c = w.first_login(keys, flags=0x83, isid=w.new_isid())
    rsp = w.stays_in_login(c, transit=True)
    if rsp.flags != 0x83 or rsp.keys.get("AuthMethod") != "None" or not any(rsp.header[14:16]):
        raise Wrong(f"flags {rsp.flags:02x}, keys {rsp.keys}")
    w.lives(c)
    for _ in range(4):
        status = c.finish(c.command(bytes(6)))[0]
    if status != GOOD:
        raise Wrong("no defaults")
