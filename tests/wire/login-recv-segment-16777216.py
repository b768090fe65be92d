# SPDX-License-Identifier: BSD-3-Clause
"""MaxRecvDataSegmentLength=16777216 is no such declaration and is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"MaxRecvDataSegmentLength=16777216\0"))
