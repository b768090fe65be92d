# SPDX-License-Identifier: BSD-3-Clause
"""CLEAR ACA is answered as not supported: there is no ACA."""
from violation import *


def violate(w):
    c = w.session()
    if c.manage(3)[0] != 5:
        raise Wrong("other response")
