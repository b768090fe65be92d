# SPDX-License-Identifier: BSD-3-Clause
"""A transit to the stage it is in is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(flags=0x85))
