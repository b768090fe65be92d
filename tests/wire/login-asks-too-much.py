# SPDX-License-Identifier: BSD-3-Clause
"""Order, recovery and connections beyond ours are negotiated down, and said so."""
from violation import *


def violate(w):
    c = w.session(DISK, DataPDUInOrder="No", DataSequenceInOrder="No", ErrorRecoveryLevel="2",
                  MaxConnections="8", MaxOutstandingR2T="65535", TaskReporting="FastAbort,RFC3720")
    t = c.login_text
    want = {"DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", "ErrorRecoveryLevel": "0",
            "MaxConnections": "1", "TaskReporting": "RFC3720"}
    if any(t.get(k) != want[k] for k in want) or not 1 <= int(t["MaxOutstandingR2T"]) <= 64:
        raise Wrong(str(t))
