# SPDX-License-Identifier: BSD-3-Clause
"""A wrong response is refused with 0201, and not at once."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET}
    c = w.first_login(dict(keys, AuthMethod="CHAP"), flags=0x00)
    w.stays_in_login(c)
    w.login_again(c, {"CHAP_A": "7"}, flags=0x00)
    challenge = w.stays_in_login(c).keys
    import time
    begin = time.monotonic()
    w.login_again(c, {"CHAP_N": "alice", "CHAP_R": "0x" + "5a" * 32}, flags=0x81)
    w.login_refused(c, 0x0201)
    if time.monotonic() - begin < 0.5:
        raise Wrong("guesses are answered without delay")
