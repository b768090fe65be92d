# SPDX-License-Identifier: BSD-3-Clause
"""Task management of all kinds amid writes whose data comes, comes late, or never: nothing is lost or freed twice."""
import os
import socket

from violation import *

ROUNDS = int(os.environ.get("COWTGT_STORM_ROUNDS", 60))


class Storm:
    """One session and what it still owes."""

    def __init__(self, w):
        self.w, self.rng = w, w.j.rng
        self.begin()

    def begin(self, **how):
        digest = self.rng.choice(("None", "CRC32C"))
        self.c = self.w.connect()
        self.c.isid = how.get("isid") or self.w.new_isid()
        rsp = self.c.login(SCRATCH, InitialR2T=self.rng.choice(("Yes", "No")), MaxOutstandingR2T="4",
                           MaxBurstLength="8192", DataDigest=digest, **how | {"isid": self.c.isid})
        if how.get("tsih") and rsp.word(36) >> 16 == 0x020a:
            raise Closed("it ended before")
        if rsp.word(36) >> 16:
            raise Wrong(f"login status {rsp.word(36) >> 16:04x}")
        self.c.tsih = struct.unpack(">H", rsp.header[14:16])[0]
        self.owed, self.tags = [], []

    def take(self):
        """What has come by now."""
        while True:
            self.c.sock.settimeout(0.005)
            try:
                if not self.c.sock.recv(1, socket.MSG_PEEK):
                    raise Closed("closed")
            except TimeoutError:
                return
            except OSError as e:
                raise Closed(str(e)) from e
            finally:
                self.c.sock.settimeout(5 * SLOW)
            pdu = self.c.recv()
            if pdu.opcode == raw.R2T:
                self.owed.append((pdu.itt, pdu.word(20), pdu.word(40), pdu.word(44)))

    def write(self):
        early = self.c.login_text.get("InitialR2T") == "No" and self.rng.random() < 0.5
        self.tags.append(self.c.command(write10(64, 1000), edtl=32768, write=True, final=not early,
                                        data=bytes(self.rng.choice((0, 512)))))

    def pay(self):
        if self.owed:
            itt, ttt, at, n = self.owed.pop(self.rng.choice((0, -1)))
            self.c.data_out(itt, ttt, 0, at, bytes(n), final=self.rng.random() < 0.9,
                            spoil_data=self.rng.random() < 0.1)

    def manage(self):
        self.w.manage(self.c, self.rng.choice((1, 1, 1, 2, 4, 5, 6)), self.rng.choice(self.tags or [5]))

    def again(self):
        """The session, or its connection, is opened anew."""
        isid, tsih = self.c.isid, self.c.tsih
        self.begin(isid=isid, tsih=self.rng.choice((0, tsih)))

    def leave(self):
        self.c.sock.close()
        self.begin()


def violate(w):
    storms = [Storm(w) for _ in range(3)]
    acts = (Storm.write, Storm.write, Storm.write, Storm.take, Storm.pay, Storm.pay, Storm.manage, Storm.again,
            Storm.leave)
    for _ in range(ROUNDS):
        for s in storms:
            try:
                w.j.rng.choice(acts)(s)
            except (Closed, OSError):
                s.begin()  # it was sent away for what it did
    last = w.session(SCRATCH)
    within(30, "the LUN to write again", lambda: w.sense(last, write10(1), out=bytes(512))[0] == GOOD)
