# SPDX-License-Identifier: BSD-3-Clause
"""MaxRecvDataSegmentLength=-1 is no such declaration and is refused."""
from violation import *


def violate(w):
    w.login_refused(w.first_login(extra=b"MaxRecvDataSegmentLength=-1\0"))
