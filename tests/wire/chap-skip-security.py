# SPDX-License-Identifier: BSD-3-Clause
"""A login that starts in the operational stage is refused where a secret is asked for."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": SECRET}
    w.login_refused(w.first_login(keys), 0x0201)
