# SPDX-License-Identifier: BSD-3-Clause
"""A SCSI command in a discovery session is rejected."""
from violation import *


def violate(w):
    c = w.session(None)
    c.command(bytes(6))
    w.rejected(c)
