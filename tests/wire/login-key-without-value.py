# SPDX-License-Identifier: BSD-3-Clause
"""A key without = is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"nonsense\0"))
