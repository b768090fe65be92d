# SPDX-License-Identifier: BSD-3-Clause
"""A CmdSN that was used already is ignored."""
from violation import *


def violate(w):
    c = w.session()
    c.command(bytes(6), cmd_sn=(c.cmd_sn - 1) & M32)
    w.ignored(c)
