# SPDX-License-Identifier: BSD-3-Clause
"""An AHS that is promised and never sent, then the end."""
from violation import *


def violate(w):
    c = w.session()
    c.send_raw(bhs(raw.SCSI_CMD, 0xc1, 9, ahs_words=255))
    c.sock.shutdown(1)
    w.closed(c)
