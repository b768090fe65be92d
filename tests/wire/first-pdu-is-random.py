# SPDX-License-Identifier: BSD-3-Clause
"""Random bytes instead of a login end the connection."""
from violation import *


def violate(w):
    c = w.connect()
    c.send_raw(b"\x5a" + w.j.rng.randbytes(4095))
    w.closed(c)
