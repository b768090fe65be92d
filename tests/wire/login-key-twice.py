# SPDX-License-Identifier: BSD-3-Clause
"""A key that comes twice is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"MaxBurstLength=1024\0MaxBurstLength=2048\0"))
