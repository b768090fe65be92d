# SPDX-License-Identifier: BSD-3-Clause
"""A data segment of exactly what we declared is taken."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, ImmediateData="Yes", FirstBurstLength="262144")
    w.want_good(w.sense_of(c, c.command(write10(512), edtl=262144, write=True, data=b"q" * 262144)))
