# SPDX-License-Identifier: BSD-3-Clause
"""A gap in CmdSN, which nothing can fill, ends the session."""
from violation import *


def violate(w):
    c = w.session()
    c.command(bytes(6), cmd_sn=c.cmd_sn + 1)
    w.closed(c)
