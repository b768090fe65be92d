# SPDX-License-Identifier: BSD-3-Clause
"""Debian's istgt with one disk, LUN 0."""
from cowtest import Failed, free_port, listens, poll

IQN = "iqn.2026-11.com.example:istgt"


def configure(j, port, image):
    """Its configuration, in j's folder: a path."""
    conf, auth = j.path(f"istgt-{port}.conf"), j.path("istgt-auth.conf")
    with open(auth, "w", encoding="ascii") as f:
        f.write("[AuthGroup1]\n")
    node, name = IQN.rsplit(":", 1)
    with open(conf, "w", encoding="ascii") as f:
        f.write(f"""[Global]
NodeBase "{node}"
PidFile {j.path("istgt.pid")}
AuthFile {auth}
LogFacility "local7"
Timeout 30
NopInInterval 20
DiscoveryAuthMethod None
MaxSessions 16
MaxConnections 4
MaxR2T 32
MaxOutstandingR2T 16
FirstBurstLength 262144
MaxBurstLength 1048576
MaxRecvDataSegmentLength 262144
InitialR2T Yes
ImmediateData Yes
ErrorRecoveryLevel 0
[UnitControl]
AuthMethod None
Portal UC1 127.0.0.1:{free_port()}
Netmask 127.0.0.1
[PortalGroup1]
Portal DA1 127.0.0.1:{port}
[InitiatorGroup1]
InitiatorName "ALL"
Netmask 127.0.0.0/8
[LogicalUnit1]
TargetName {name}
Mapping PortalGroup1 InitiatorGroup1
AuthMethod None
UseDigest Auto
UnitType Disk
QueueDepth 64
LUN0 Storage {image} Auto
""")
    return conf


class Istgt:
    iqn, lun = IQN, 0

    def __init__(self, j, image):
        self.port = free_port()
        log = j.path(f"istgt-{self.port}.log")
        with open(log, "wb") as out:
            self.proc = j.spawn("istgt", "-D", "-c", configure(j, self.port, image), stdout=out, stderr=out)

        def up():
            if self.proc.poll() is not None:
                with open(log, errors="replace") as f:
                    raise Failed(f"istgt ended with {self.proc.returncode}: {f.read()[-500:]}")
            return listens(self.port)
        poll("istgt", up)

    def kill(self):
        self.proc.kill()
        self.proc.wait()
