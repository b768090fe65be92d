# SPDX-License-Identifier: BSD-3-Clause
"""Only unknown CHAP algorithms are refused."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET, "AuthMethod": "CHAP"}
    c = w.first_login(keys, flags=0x00)
    w.stays_in_login(c)
    w.login_again(c, {"CHAP_A": "1,2,255,99999"}, flags=0x00)
    w.login_refused(c, 0x0201)
