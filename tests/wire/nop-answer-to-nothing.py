# SPDX-License-Identifier: BSD-3-Clause
"""An answer to a ping that was never sent is taken without a word."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.NOP_OUT, 0x80, M32, immediate=True, tail=struct.pack(">I", 0x1234) + c.sequence()))
    w.ignored(c)
