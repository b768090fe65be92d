# SPDX-License-Identifier: BSD-3-Clause
"""Data with a wrong digest is rejected, the command fails, nothing is written."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, DataDigest="CRC32C", ImmediateData="Yes")
    itt = c.command(write10(1, 100), edtl=512, write=True, data=b"\xee" * 512, spoil_data=True)
    w.refused(c, 2)
    w.want_sense(w.sense_of(c, itt), 11, 0x4705)
    if c.read10(100, 1) != (GOOD, bytes(512)):
        raise Wrong("it was written")
