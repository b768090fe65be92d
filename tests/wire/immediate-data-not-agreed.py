# SPDX-License-Identifier: BSD-3-Clause
"""Immediate data that was not agreed on is rejected."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, ImmediateData="No")
    c.command(write10(1), edtl=512, write=True, data=bytes(512))
    w.rejected(c, 4)
