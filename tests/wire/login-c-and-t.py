# SPDX-License-Identifier: BSD-3-Clause
"""C and T in one login request are refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(flags=0xc7))
