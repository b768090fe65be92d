# SPDX-License-Identifier: BSD-3-Clause
"""The operational stage without a transit to it is refused."""
from violation import *


def violate(w):
    c = w.first_login(flags=0x00)
    w.stays_in_login(c)
    w.login_again(c, {}, flags=0x87)
    w.login_refused(c, 0x020b)
