# SPDX-License-Identifier: BSD-3-Clause
"""An unknown SessionType is refused with 0209."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:raw", "SessionType": "Odd"}
    w.login_refused(w.first_login(keys), 0x0209)
