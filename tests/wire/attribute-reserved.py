# SPDX-License-Identifier: BSD-3-Clause
"""A reserved task attribute ends the session."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.SCSI_CMD, 0x85, 9, tail=struct.pack(">I", 0) + c.sequence()))
    w.closed(c)
