# SPDX-License-Identifier: BSD-3-Clause
"""Another CID in the second request of a login is refused."""
from violation import *


def violate(w):
    c = w.first_login(flags=0x04)
    w.stays_in_login(c)
    w.login_again(c, {}, flags=0x87, at={20: b"\0\x07"})
    w.login_refused(c)
