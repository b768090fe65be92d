# SPDX-License-Identifier: BSD-3-Clause
"""A list of more than 255 bytes is a list like others."""
from violation import *


def violate(w):
    methods = ",".join(f"X-com.example.digest-{i}" for i in range(40))
    c = w.session(DISK, HeaderDigest=f"{methods},CRC32C,None", DataDigest=methods)
    if c.login_text.get("HeaderDigest") != "CRC32C" or c.login_text.get("DataDigest") != "Reject":
        raise Wrong(str(c.login_text))
    w.lives(c)
