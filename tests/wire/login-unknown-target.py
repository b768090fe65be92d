# SPDX-License-Identifier: BSD-3-Clause
"""A login to a target that is not there is refused with 0203."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": DISK + "-no"}
    w.login_refused(w.first_login(keys), 0x0203)
