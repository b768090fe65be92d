# SPDX-License-Identifier: BSD-3-Clause
"""A login request without the immediate bit is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(at={0: bytes([raw.LOGIN])}))
