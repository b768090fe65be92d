# SPDX-License-Identifier: BSD-3-Clause
"""A key that comes again in a later request is refused."""
from violation import *


def violate(w):
    c = w.first_login(flags=0x04, extra=b"ErrorRecoveryLevel=0\0")
    w.stays_in_login(c)
    w.login_again(c, {"ErrorRecoveryLevel": "0"})
    w.login_refused(c)
