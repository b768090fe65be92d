# SPDX-License-Identifier: BSD-3-Clause
"""TASK REASSIGN is answered as not supported: ErrorRecoveryLevel is 0."""
from violation import *


def violate(w):
    c = w.session()
    if c.manage(8)[0] not in (4, 5):
        raise Wrong("other response")
