# SPDX-License-Identifier: BSD-3-Clause
"""A login that wants to leave the security stage without a method is refused where a secret is
asked for."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET}
    w.login_refused(w.first_login(keys, flags=0x81), 0x0201)
