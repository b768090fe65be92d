# SPDX-License-Identifier: BSD-3-Clause
"""A login without InitiatorName is refused with 0207."""
from violation import *


def violate(w):
    w.login_refused(w.first_login({"SessionType": "Discovery"}), 0x0207)
