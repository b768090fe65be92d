# SPDX-License-Identifier: BSD-3-Clause
"""Disks to be copied: full ones, and ones with a quarter of data."""
import os
import random

MIB = 1 << 20


def write_random(path, size):
    with open(path, "wb") as f:
        for _ in range(size // MIB):
            f.write(os.urandom(65536) * 16)


def write_quarter(path, size):
    """Random extents of 1 MiB, a quarter of the disk."""
    rng = random.Random(7)
    with open(path, "wb") as f:
        f.truncate(size)
        for i in sorted(rng.sample(range(size // MIB), size // MIB // 4)):
            f.seek(i * MIB)
            f.write(os.urandom(65536) * 16)
