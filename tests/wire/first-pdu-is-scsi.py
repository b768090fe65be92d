# SPDX-License-Identifier: BSD-3-Clause
"""A SCSI command before login ends the connection."""
from violation import *


def violate(w):
    c = w.connect()
    c.send_raw(bhs(raw.SCSI_CMD, 0xc1, 1))
    w.closed(c)
