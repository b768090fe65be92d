# SPDX-License-Identifier: BSD-3-Clause
"""No challenge comes twice, each has the digest's length (tgt: CVE-2024-45751)."""
from violation import *


def violate(w):
    seen = set()
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET, "AuthMethod": "CHAP"}
    for _ in range(32):
        c = w.first_login(keys, flags=0x00)
        w.stays_in_login(c)
        w.login_again(c, {"CHAP_A": "7"}, flags=0x00)
        seen.add(w.stays_in_login(c).keys["CHAP_C"])
        w.close_all()
    if len(seen) != 32 or any(len(s) != 66 for s in seen):
        raise Wrong(str(sorted(seen)[:3]))
