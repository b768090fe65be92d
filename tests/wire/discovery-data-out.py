# SPDX-License-Identifier: BSD-3-Clause
"""Data-Out in a discovery session is rejected."""
from violation import *


def violate(w):
    c = w.session(None)
    c.data_out(5, M32, 0, 0, bytes(512))
    w.rejected(c)
