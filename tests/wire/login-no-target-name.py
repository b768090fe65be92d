# SPDX-License-Identifier: BSD-3-Clause
"""A normal login without TargetName is refused with 0207."""
from violation import *


def violate(w):
    w.login_refused(w.first_login({"InitiatorName": "iqn.2026-11.com.example:raw"}), 0x0207)
