# SPDX-License-Identifier: BSD-3-Clause
"""A NOP-Out that wants no answer and takes a CmdSN ends the session."""
from violation import *


def violate(w):
    c = w.session()
    c.send(bhs(raw.NOP_OUT, 0x80, M32, tail=struct.pack(">I", M32) + c.sequence()))
    w.closed(c)
