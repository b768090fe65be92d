# SPDX-License-Identifier: BSD-3-Clause
"""LUN RESET of a write whose data is due: answered once the data has come, and the write never is."""
from violation import *


def violate(w):
    w.waits_for_data(5)
