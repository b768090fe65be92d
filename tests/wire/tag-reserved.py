# SPDX-License-Identifier: BSD-3-Clause
"""A command with the reserved tag FFFFFFFFh ends the session."""
from violation import *


def violate(w):
    c = w.session()
    c.command(bytes(6), itt=M32)
    w.closed(c)
