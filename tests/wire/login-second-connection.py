# SPDX-License-Identifier: BSD-3-Clause
"""A second connection for a session is refused with 0206: there is one each."""
from violation import *


def violate(w):
    first = w.session(DISK)
    keys = {"InitiatorName": first.name, "TargetName": DISK}
    w.login_refused(w.first_login(keys, isid=first.isid, tsih=first.tsih, at={20: b"\0\1"}), 0x0206)
    w.lives(first)
