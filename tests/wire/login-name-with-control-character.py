# SPDX-License-Identifier: BSD-3-Clause
"""A name with a control character is refused, and does not reach the log."""
from violation import *


def violate(w):
    keys = {"InitiatorName": "iqn.2026-11.com.example:\x1b[31mred", "SessionType": "Discovery"}
    w.login_refused(w.first_login(keys))
    if "\x1b" in w.d.log_text():
        raise Wrong("it is in the log")
