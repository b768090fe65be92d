# SPDX-License-Identifier: BSD-3-Clause
"""A login with 1020 bytes of AHS and 16 MiB to come is refused."""
from violation import *


def violate(w):
    c = w.connect()
    header = bytearray(c.login_pdu({})[0])
    header[4:8] = b"\xff\xff\xff\xff"
    c.send_raw(bytes(header) + bytes(1020))
    w.login_refused(c)
