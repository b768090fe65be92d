# SPDX-License-Identifier: BSD-3-Clause
"""Persistent reservations of any target as an initiator of its own sees them: who is registered."""
import struct

from rawiscsi import RawInitiator

REGISTER_AND_IGNORE = 6
# Some targets offer what the initiator leaves out, and the login takes another round then.
OFFERED = {"InitialR2T": "Yes", "ImmediateData": "Yes", "FirstBurstLength": "65536", "MaxBurstLength": "262144",
           "MaxConnections": "1", "MaxOutstandingR2T": "1", "DefaultTime2Wait": "2", "DefaultTime2Retain": "0",
           "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", "ErrorRecoveryLevel": "0"}


class Looker(RawInitiator):
    """Asks a LUN who is registered."""

    def __init__(self, port, iqn, number=1):
        super().__init__(port, name=f"iqn.2026-11.com.example:looker{number}")
        self.login(iqn, isid=b"\x80\0\0\0\7" + bytes([number]), **OFFERED)

    def ready(self, lun):
        for _ in range(4):
            if self.finish(self.command(bytes(6), lun))[0] == 0:
                return

    def pr_in(self, lun, action):
        self.ready(lun)
        cdb = struct.pack(">BB5xHx", 0x5e, action, 2048)
        status, data = self.finish(self.command(cdb, lun, 2048, read=True))
        return data if status == 0 else b""

    def keys(self, lun):
        data = self.pr_in(lun, 0)
        n = struct.unpack(">I", data[4:8])[0] // 8
        return sorted(struct.unpack(f">{n}Q", data[8:8 + 8 * n]))

    def reserved(self, lun):
        return len(self.pr_in(lun, 1)) > 8

    def register(self, lun, key):
        self.ready(lun)
        body = struct.pack(">QQ8x", 0, key)
        cdb = struct.pack(">BB6xBx", 0x5f, REGISTER_AND_IGNORE, len(body))
        return self.finish(self.command(cdb, lun, len(body), write=True, data=body))[0]


def keys(port, iqn, luns):
    with Looker(port, iqn) as c:
        return {lun: c.keys(lun) for lun in luns}
