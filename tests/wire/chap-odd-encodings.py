# SPDX-License-Identifier: BSD-3-Clause
"""Responses that are no binary value are refused."""
from violation import *


def violate(w):
    for bad in ("0x", "0xzz", "0b====", "0bA", "12345", "0b" + "A" * 2000, "0x" + "0" * 2046):
        violate_with(w, bad)


def violate_with(w, bad):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET}
    c = w.first_login(dict(keys, AuthMethod="CHAP"), flags=0x00)
    w.stays_in_login(c)
    w.login_again(c, {"CHAP_A": "7"}, flags=0x00)
    challenge = w.stays_in_login(c).keys
    w.login_again(c, {"CHAP_N": "alice", "CHAP_R": bad}, flags=0x81)
    w.login_refused(c)
