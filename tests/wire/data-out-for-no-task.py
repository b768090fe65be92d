# SPDX-License-Identifier: BSD-3-Clause
"""Data-Out for a command that is not there is ignored."""
from violation import *


def violate(w):
    c = w.session()
    c.data_out(77, 88, 0, 0, bytes(512))
    w.ignored(c)
