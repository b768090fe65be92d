# SPDX-License-Identifier: BSD-3-Clause
"""FirstBurstLength above MaxBurstLength is answered with no more than that, in whatever order
they come."""
from violation import *


def violate(w):
    for keys in ({"FirstBurstLength": "262144", "MaxBurstLength": "4096"},
                 {"MaxBurstLength": "4096", "FirstBurstLength": "262144"}):
        c = w.session(SCRATCH, InitialR2T="No", ImmediateData="Yes", **keys)
        got = (c.login_text.get("FirstBurstLength"), c.login_text.get("MaxBurstLength"))
        if got != ("4096", "4096"):
            raise Wrong(str(got))
        w.want_good(w.sense(c, write10(8, 40), out=bytes(4096)))
