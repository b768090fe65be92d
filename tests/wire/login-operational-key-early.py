# SPDX-License-Identifier: BSD-3-Clause
"""An operational key in the security stage is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(flags=0x81, extra=b"MaxBurstLength=65536\0"))
