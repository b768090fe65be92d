# SPDX-License-Identifier: BSD-3-Clause
"""A transit from the operational to the security stage is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(flags=0x84))
