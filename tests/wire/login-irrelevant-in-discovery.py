# SPDX-License-Identifier: BSD-3-Clause
"""Keys that mean nothing in a discovery session are answered Irrelevant."""
from violation import *


NORMAL_ONLY = {"MaxConnections": "1", "InitialR2T": "No", "ImmediateData": "Yes", "MaxBurstLength": "65536",
               "FirstBurstLength": "65536", "MaxOutstandingR2T": "1", "DataPDUInOrder": "Yes",
               "DataSequenceInOrder": "Yes", "TaskReporting": "RFC3720", "iSCSIProtocolLevel": "1"}


def violate(w):
    c = w.session(None, **NORMAL_ONLY)
    wrong = {k: v for k, v in c.login_text.items() if k in NORMAL_ONLY and v != "Irrelevant"}
    if wrong or not set(NORMAL_ONLY) <= set(c.login_text):
        raise Wrong(str(c.login_text))
    w.lives(c)
