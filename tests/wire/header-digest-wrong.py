# SPDX-License-Identifier: BSD-3-Clause
"""A wrong header digest ends the connection."""
from violation import *


def violate(w):
    c = w.session(DISK, HeaderDigest="CRC32C", DataDigest="CRC32C")
    c.command(bytes(6), spoil_header=True)
    w.closed(c)
