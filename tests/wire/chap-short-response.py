# SPDX-License-Identifier: BSD-3-Clause
"""A response shorter than the digest is refused."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET}
    c = w.first_login(dict(keys, AuthMethod="CHAP"), flags=0x00)
    w.stays_in_login(c)
    w.login_again(c, {"CHAP_A": "7"}, flags=0x00)
    challenge = w.stays_in_login(c).keys
    w.login_again(c, {"CHAP_N": "alice", "CHAP_R": "0x5a"}, flags=0x81)
    w.login_refused(c)
