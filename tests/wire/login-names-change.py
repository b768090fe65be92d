# SPDX-License-Identifier: BSD-3-Clause
"""Names and session type come in the first request: later ones are refused."""
from violation import *

ME = {"InitiatorName": "iqn.2026-11.com.example:raw"}


def violate(w):
    for first, late in ((dict(ME, TargetName=DISK), {"SessionType": "Discovery"}),
                        (dict(ME, SessionType="Discovery"), {"TargetName": SCRATCH}),
                        (dict(ME, TargetName=DISK), {"InitiatorName": "iqn.2026-11.com.example:x"})):
        c = w.first_login(first, flags=0x04)
        w.stays_in_login(c)
        w.login_again(c, late)
        w.login_refused(c, 0x0200)
