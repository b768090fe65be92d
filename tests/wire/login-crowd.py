# SPDX-License-Identifier: BSD-3-Clause
"""Connections that never log in don't keep others out for good."""
from violation import *


def violate(w):
    for _ in range(100):
        w.connect()
    w.lives(w.session(DISK))
