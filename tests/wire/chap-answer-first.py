# SPDX-License-Identifier: BSD-3-Clause
"""A CHAP answer before the challenge is refused."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET, "AuthMethod": "CHAP",
            "CHAP_N": "alice", "CHAP_R": "0x" + "00" * 32}
    w.login_refused(w.first_login(keys, flags=0x00))
