# SPDX-License-Identifier: BSD-3-Clause
"""Half a login holds up nobody else."""
from violation import *


def violate(w):
    c = w.connect()
    header, data = c.login_pdu({"InitiatorName": c.name, "SessionType": "Discovery"})
    c.send_raw(header + data[:10])
    w.lives(w.session(DISK))
