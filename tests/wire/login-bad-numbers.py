# SPDX-License-Identifier: BSD-3-Clause
"""Numbers out of range, and no numbers, are answered Reject, and the login goes on."""
from violation import *


def violate(w):
    c = w.first_login({"InitiatorName": "iqn.2026-11.com.example:raw", "TargetName": DISK,
                       "MaxBurstLength": "511", "FirstBurstLength": "x", "MaxOutstandingR2T": "0",
                       "MaxConnections": "65536", "ErrorRecoveryLevel": "3", "ImmediateData": "yes",
                       "HeaderDigest": "CRC16"}, isid=w.new_isid())
    keys = w.stays_in_login(c, transit=True).keys
    wrong = [k for k in ("MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "MaxConnections",
                         "ErrorRecoveryLevel", "ImmediateData", "HeaderDigest")
             if keys.get(k) != "Reject"]
    if wrong:
        raise Wrong(f"{wrong}: {keys}")
    w.lives(c)
