# SPDX-License-Identifier: BSD-3-Clause
"""An unknown task management function is answered as not supported."""
from violation import *


def violate(w):
    c = w.session()
    if c.manage(0x55)[0] not in (5, 255):
        raise Wrong("other response")
    w.lives(c)
