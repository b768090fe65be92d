# SPDX-License-Identifier: BSD-3-Clause
"""AuthMethod in the operational stage is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"AuthMethod=None\0"))
