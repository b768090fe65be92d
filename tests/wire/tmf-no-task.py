# SPDX-License-Identifier: BSD-3-Clause
"""ABORT TASK of a task that is not there is answered so."""
from violation import *


def violate(w):
    c = w.session()
    if c.manage(1, task=0x4711)[0] not in (0, 1):
        raise Wrong("other response")
    w.lives(c)
