# SPDX-License-Identifier: BSD-3-Clause
"""A login into a session that does not exist is refused with 020a."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": DISK}
    w.login_refused(w.first_login(keys, tsih=0x7f31), 0x020a)
