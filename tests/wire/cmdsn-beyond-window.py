# SPDX-License-Identifier: BSD-3-Clause
"""A CmdSN beyond MaxCmdSN is ignored (tcmu 697)."""
from violation import *


def violate(w):
    c = w.session()
    c.command(bytes(6), cmd_sn=c.cmd_sn + 100000)
    w.ignored(c)
