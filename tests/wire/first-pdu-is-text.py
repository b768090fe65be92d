# SPDX-License-Identifier: BSD-3-Clause
"""A Text Request before login ends the connection."""
from violation import *


def violate(w):
    c = w.connect()
    c.send_raw(bhs(raw.TEXT, 0x80, 1))
    w.closed(c)
