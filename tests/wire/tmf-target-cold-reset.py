# SPDX-License-Identifier: BSD-3-Clause
"""TARGET COLD RESET is answered, then every session of the target ends."""
from violation import *


def violate(w):
    c, other = w.session(), w.session()
    if c.manage(7)[0] != 0:
        raise Wrong("other response")
    w.closed(c)
    w.closed(other)
    w.session()
