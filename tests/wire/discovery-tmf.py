# SPDX-License-Identifier: BSD-3-Clause
"""Task management in a discovery session is rejected."""
from violation import *


def violate(w):
    c = w.session(None)
    c.send(bhs(raw.TMF, 0x86, 12, tail=struct.pack(">I", 0) + c.sequence(), immediate=True))
    w.rejected(c)
