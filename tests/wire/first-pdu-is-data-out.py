# SPDX-License-Identifier: BSD-3-Clause
"""A Data-Out before login ends the connection."""
from violation import *


def violate(w):
    c = w.connect()
    c.send_raw(bhs(raw.DATA_OUT, 0x80, 1))
    w.closed(c)
