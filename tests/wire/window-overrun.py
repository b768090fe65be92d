# SPDX-License-Identifier: BSD-3-Clause
"""A window full of commands and more: the rest is ignored, the session lives (tcmu 315)."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
    for _ in range(400):
        c.command(write10(1), edtl=512, write=True)
    w.lives(c)
