# SPDX-License-Identifier: BSD-3-Clause
"""An InitiatorName of 224 bytes is refused."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:".ljust(224, "a"), "SessionType": "Discovery"}
    w.login_refused(w.first_login(keys))
