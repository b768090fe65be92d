# SPDX-License-Identifier: BSD-3-Clause
"""A write is given up and its data never sent: the function is answered nevertheless."""
from violation import *


def violate(w):
    waiting = []
    for function in (1, 2, 4, 5):
        c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
        itt = c.command(write10(64, 400), edtl=32768, write=True)
        w.r2t(c, itt)
        waiting.append((c, w.manage(c, function, itt)))
    for c, tmf in waiting:
        if w.until(c, raw.TMF_RSP, tmf).header[2]:
            raise Wrong("another response")
    for c, _ in waiting:  # after the last function: it may take another session's command with it
        w.becomes_ready(c)
