# SPDX-License-Identifier: BSD-3-Clause
"""Immediate data with a read is rejected."""
from violation import *


def violate(w):
    c = w.session()
    c.command(read10(1), edtl=512, read=True, data=bytes(512))
    w.rejected(c, 4)
