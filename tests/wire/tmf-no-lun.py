# SPDX-License-Identifier: BSD-3-Clause
"""Functions on a LUN that is not there are answered so."""
from violation import *


def violate(w):
    c = w.session()
    for function in (2, 4, 5):
        got = c.manage(function, lun=99)[0]
        if got != 2:
            raise Wrong(f"function {function}: response {got}")
