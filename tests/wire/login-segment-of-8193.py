# SPDX-License-Identifier: BSD-3-Clause
"""A login segment above 8192 bytes ends the connection."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"X-a=b\0" * 1400))
