# SPDX-License-Identifier: BSD-3-Clause
"""REPORT SUPPORTED OPERATION CODES bounds opcode and service action (FreeBSD CVE-2024-42416)."""
from violation import *


def violate(w):
    c = w.session()
    for options in range(8):
        for opcode in (0x00, 0x5e, 0x7f, 0x9e, 0xa3, 0xff):
            for action in (0, 0x1f, 0x20, 0x7fff, 0xffff):
                got = w.sense(c, struct.pack(">BBBBHIBB", 0xa3, 0x0c, options, opcode, action, 4096, 0, 0),
                              edtl=4096)
                if got[0] not in (GOOD, CHECK):
                    raise Wrong(f"status {got[0]:02x}")
