# SPDX-License-Identifier: BSD-3-Clause
"""A login request in full feature phase ends the session."""
from violation import *


def violate(w):
    c = w.session(DISK)
    c.send(*c.login_pdu({}))
    w.closed(c)
