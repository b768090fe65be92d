# SPDX-License-Identifier: BSD-3-Clause
"""An opcode that nobody knows is rejected, the session lives."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(0x1c, tail=struct.pack(">I", 0) + c.sequence()))
    w.rejected(c, 5)
