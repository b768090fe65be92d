# SPDX-License-Identifier: BSD-3-Clause
"""A command without F is rejected where InitialR2T is Yes."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes")
    c.command(write10(1), edtl=512, write=True, final=False)
    w.rejected(c, 4)
