# SPDX-License-Identifier: BSD-3-Clause
"""A secret with #, quotes, blanks and bytes above 7Fh works (truenas 16593)."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET}
    c = w.first_login(dict(keys, AuthMethod="CHAP"), flags=0x00)
    w.stays_in_login(c)
    w.login_again(c, {"CHAP_A": "7"}, flags=0x00)
    import hashlib
    challenge = w.stays_in_login(c).keys
    secret = b"#a secret; with 'all' sorts\xff of\\bytes"
    digest = hashlib.sha256(bytes([int(challenge["CHAP_I"])]) + secret +
                            bytes.fromhex(challenge["CHAP_C"][2:])).hexdigest()
    w.login_again(c, {"CHAP_N": "alice", "CHAP_R": "0x" + digest}, flags=0x83)
    w.stays_in_login(c, transit=True)
    w.lives(c)
    if "a secret" in w.d.log_text():
        raise Wrong("the secret is in the log")
