# SPDX-License-Identifier: BSD-3-Clause
"""A login with a version above ours is refused with 0205."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(at={3: b"\1"}), 0x0205)
