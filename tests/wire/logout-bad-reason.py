# SPDX-License-Identifier: BSD-3-Clause
"""A reserved reason for logout is rejected."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.LOGOUT, 0x83, 9, immediate=True, tail=struct.pack(">I", 0) + c.sequence()))
    w.rejected(c, 9)
