# SPDX-License-Identifier: BSD-3-Clause
"""Half a header, then the end: nothing is kept of it."""
from violation import *


def violate(w):
    c = w.connect()
    c.send_raw(b"\x43" * 20)
    c.sock.shutdown(1)
    w.closed(c)
