# SPDX-License-Identifier: BSD-3-Clause
"""A key that only a target may declare is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"TargetPortalGroupTag=1\0"))
