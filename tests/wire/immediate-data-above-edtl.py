# SPDX-License-Identifier: BSD-3-Clause
"""Immediate data above the expected length is rejected."""
from violation import *


def violate(w):
    c = w.session()
    c.command(write10(1), edtl=512, write=True, data=bytes(4096))
    w.rejected(c, 4)
