# SPDX-License-Identifier: BSD-3-Clause
"""Another ITT in the second request of a login is refused."""
from violation import *


def violate(w):
    c = w.first_login(flags=0x04)
    w.stays_in_login(c)
    w.login_again(c, {}, flags=0x87, at={16: b"\0\0\0\x63"})
    w.login_refused(c)
