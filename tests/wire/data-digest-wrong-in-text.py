# SPDX-License-Identifier: BSD-3-Clause
"""A Text Request with a wrong digest is rejected."""
from violation import *


def violate(w):
    c = w.session(None, DataDigest="CRC32C")
    text = b"SendTargets=All\0"
    tail = struct.pack(">I", M32) + c.sequence()
    c.send(bhs(raw.TEXT, 0x80, 9, 0, len(text), tail=tail), text, spoil_data=True)
    c.cmd_sn += 1
    w.rejected(c, 2)
