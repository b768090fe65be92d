# SPDX-License-Identifier: BSD-3-Clause
"""A value of 64 KiB is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"X-a=" + b"a" * 65536 + b"\0"))
