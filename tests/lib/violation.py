# SPDX-License-Identifier: BSD-3-Clause
"""What the violations of tests/wire/ share: one daemon, an innocent session, words for answers."""
import os
import struct
import time

import rawiscsi as raw
from cowtest import Failed, MIB, SLOW, poll, qemu_img
from rawiscsi import Closed, RawInitiator, bhs

IQN = "iqn.2026-11.com.example:wire"
DISK, SCRATCH, MASKED, SECRET = IQN, IQN + "-w", IQN + "-m", IQN + "-s"
GOOD, CHECK, BUSY, CONFLICT, TASK_SET_FULL = 0, 2, 8, 0x18, 0x28
M32 = 0xffffffff


class Wrong(Exception):
    """The target did not answer as the standard has it."""


def cdb16(op, lba, blocks, byte1=0):
    return struct.pack(">BBQIBB", op, byte1, lba, blocks, 0, 0)


def cdb10(op, lba, blocks, byte1=0):
    return struct.pack(">BBIBHB", op, byte1, lba, 0, blocks, 0)


def read10(blocks, lba=0):
    return cdb10(0x28, lba, blocks)


def write10(blocks, lba=0):
    return cdb10(0x2a, lba, blocks)


class Wire:
    """One violation's view of the daemon; its connections are closed after it."""

    def __init__(self, j):
        self.j = j
        self.d = j.daemon("target")
        self.content = j.rng.randbytes(4 * MIB)
        with open(j.path("disk.raw"), "wb") as f:
            f.write(self.content)
        qemu_img("create", "-q", "-f", "qcow2", j.path("w.qcow2"), 64 * MIB)
        qemu_img("create", "-q", "-f", "qcow2", "-b", j.path("disk.raw"), "-F", "raw", j.path("m.qcow2"))
        with open(j.path("secret"), "wb") as f:
            f.write(b"#a secret; with 'all' sorts\xff of\\bytes\n")
        os.chmod(j.path("secret"), 0o600)
        ctl = self.d.ctl
        ctl("chain", "export", "r", j.path("disk.raw"), "--format", "raw", "--target", DISK)
        ctl("chain", "export", "w", j.path("w.qcow2"), "--target", SCRATCH, "--writable")
        ctl("chain", "export", "m", j.path("m.qcow2"), "--target", MASKED, "--mask", "*=1")
        qemu_img("create", "-q", "-f", "qcow2", j.path("s.qcow2"), MIB)
        ctl("chain", "export", "s", j.path("s.qcow2"), "--target", SECRET, "--user", "alice",
            "--secret-file", j.path("secret"))
        self.isid = 0
        self.open = []
        self.innocent = self.session(DISK)
        self.open.clear()

    # ---- connections --------------------------------------------------------------------

    def new_isid(self):
        self.isid += 1
        return b"\x80\0\0" + struct.pack(">BH", self.isid >> 16, self.isid & 0xffff)

    def connect(self, **kw):
        c = RawInitiator(self.d.port, **kw)
        self.open.append(c)
        return c

    def session(self, target=SCRATCH, cmd_sn=1, exp_stat_sn=0, **keys):
        """Logged in, with no unit attention left; target None: discovery."""
        c = self.connect()
        c.cmd_sn, c.exp_stat_sn = cmd_sn, exp_stat_sn
        c.isid = self.new_isid()
        rsp = c.login(target, isid=c.isid, **keys)
        if rsp.opcode != raw.LOGIN_RSP or rsp.word(36) >> 16:
            raise Wrong(f"login refused: {rsp.word(36) >> 16:04x}")
        c.tsih = struct.unpack(">H", rsp.header[14:16])[0]
        for _ in range(6 if target else 0):
            if c.finish(c.command(bytes(6)))[0] == GOOD:
                break
        return c

    def first_login(self, keys=None, flags=0x87, at=None, extra=b"", **kw):
        """A connection that has sent this one login request; @at: header bytes that differ."""
        c = self.connect()
        self.login_again(c, keys, flags, at, extra, **kw)
        return c

    def login_again(self, c, keys=None, flags=0x87, at=None, extra=b"", **kw):
        if keys is None:
            keys = {"InitiatorName": c.name, "SessionType": "Discovery"}
        header, data = c.login_pdu(keys, flags=flags, **kw)
        data += extra
        header = bytearray(header)
        header[5:8] = struct.pack(">I", len(data))[1:]
        for offset, value in (at or {}).items():
            header[offset:offset + len(value)] = value
        c.send_raw(bytes(header) + data + bytes(-len(data) % 4))

    def stays_in_login(self, c, transit=False):
        """A Login Response without an error."""
        pdu = self.until(c, raw.LOGIN_RSP)
        if pdu.word(36) >> 16:
            raise Wrong(f"login status {pdu.word(36) >> 16:04x}")
        if bool(pdu.flags & 0x80) != transit:
            raise Wrong(f"login response flags {pdu.flags:02x}")
        pdu.keys = {k.decode(): v.decode() for k, v in (
            p.split(b"=", 1) for p in pdu.data.split(b"\0") if b"=" in p)}
        return pdu

    def close_all(self):
        for c in self.open:
            c.sock.close()
        self.open.clear()

    # ---- answers --------------------------------------------------------------------------

    def answer(self, c):
        """The next PDU, or None when the target hangs up."""
        try:
            return c.recv()
        except Closed as e:
            if "timed out" in str(e):
                raise Wrong("no answer, and no end") from e
            return None

    def until(self, c, opcode, itt=None):
        """Reads until a PDU of this kind."""
        while True:
            pdu = self.answer(c)
            if pdu is None:
                raise Wrong(f"closed before a PDU of opcode {opcode:02x}")
            if pdu.opcode == opcode and itt in (None, pdu.itt):
                return pdu

    def refused(self, c, *reasons):
        """A Reject (with one of these reasons, if any are given), or the end."""
        pdu = self.answer(c)
        if pdu is None:
            return None
        if pdu.opcode != raw.REJECT:
            raise Wrong(f"opcode {pdu.opcode:02x}, flags {pdu.flags:02x}, not a Reject")
        if reasons and pdu.header[2] not in reasons:
            raise Wrong(f"Reject with reason {pdu.header[2]:02x}")
        return pdu

    def rejected(self, c, *reasons):
        """A Reject, after which the session lives."""
        if self.refused(c, *reasons) is None:
            raise Wrong("closed instead of rejected")
        self.lives(c)

    def closed(self, c):
        """It hangs up, whatever it says before."""
        for _ in range(100):
            if self.answer(c) is None:
                return
        raise Wrong("it goes on")

    def lives(self, c):
        try:
            good = c.ping()
        except Closed as e:
            raise Wrong(f"the session ended: {e}") from e
        if not good:
            raise Wrong("a ping came back spoiled")

    def ignored(self, c):
        """No answer at all, and the session lives: the ping's answer is the next that comes."""
        itt = c.take_itt()
        tail = struct.pack(">I", M32) + c.sequence()
        c.send(bhs(raw.NOP_OUT, 0x80, itt, immediate=True, tail=tail))
        pdu = self.answer(c)
        if pdu is None or pdu.opcode != raw.NOP_IN or pdu.itt != itt:
            raise Wrong("it was not ignored: " + (f"opcode {pdu.opcode:02x}" if pdu else "closed"))

    def login_refused(self, c, *statuses):
        """A Login Response with one of these statuses (none given: any error), or the end."""
        pdu = self.answer(c)
        if pdu is None:
            return
        if pdu.opcode == raw.REJECT:
            self.closed(c)
            return
        status = pdu.word(36) >> 16
        if pdu.opcode != raw.LOGIN_RSP or status < 0x100 or (statuses and status not in statuses):
            raise Wrong(f"opcode {pdu.opcode:02x}, login status {status:04x}")
        self.closed(c)

    def sense(self, c, cdb, lun=0, out=None, edtl=0):
        """(status, key, asc << 8 | ascq)"""
        itt = c.command(cdb, lun, len(out) if out is not None else edtl, read=bool(edtl),
                        write=out is not None, data=(out or b"")[:65536])
        return self.sense_of(c, itt, out)

    def sense_of(self, c, itt, out=None):
        while True:
            pdu = self.answer(c)
            if pdu is None:
                raise Wrong("closed instead of a status")
            if pdu.opcode == raw.R2T and pdu.itt == itt:
                at, n = pdu.word(40), pdu.word(44)
                c.data_out(itt, pdu.word(20), 0, at, (out or bytes(at + n))[at:at + n])
            elif pdu.opcode == raw.DATA_IN and pdu.itt == itt and pdu.flags & 1:
                return pdu.header[3], 0, 0
            elif pdu.opcode == raw.SCSI_RSP and pdu.itt == itt:
                s = pdu.data[2:]
                if len(s) < 14:
                    return pdu.header[3], 0, 0
                return pdu.header[3], s[2] & 15, s[12] << 8 | s[13]

    def want_sense(self, got, key, *codes):
        if got[1] != key or (codes and got[2] not in codes):
            raise Wrong(f"status {got[0]:02x}, sense {got[1]:x}/{got[2]:04x}")

    def want_good(self, got):
        if got[0] != GOOD:
            raise Wrong(f"status {got[0]:02x}, sense {got[1]:x}/{got[2]:04x}")

    def never_good(self, c, itt):
        """The command ends with an error, or with the connection."""
        while True:
            pdu = self.answer(c)
            if pdu is None:
                return
            if pdu.opcode == raw.SCSI_RSP and pdu.itt == itt:
                if pdu.header[2] == 0 and pdu.header[3] == GOOD:
                    raise Wrong("it ended GOOD")
                return

    def r2t(self, c, itt):
        return self.until(c, raw.R2T, itt)

    # ---- task management --------------------------------------------------------------------

    def manage(self, c, function, task):
        """Sends it, immediate; its ITT."""
        itt = c.take_itt()
        c.send(bhs(raw.TMF, 0x80 | function, itt, immediate=True,
                   tail=struct.pack(">IIII", task, c.cmd_sn, c.exp_stat_sn, 0)))
        return itt

    def becomes_ready(self, c):
        for _ in range(4):
            if c.finish(c.command(bytes(6)))[0] == GOOD:
                return
        raise Wrong("the LUN does not become ready")

    def waits_for_data(self, function):
        """A write is given up while its data is due: answered after the data has come."""
        c = self.session(SCRATCH, InitialR2T="Yes", ImmediateData="No")
        itt = c.command(write10(64, 400), edtl=32768, write=True)
        r2t = self.r2t(c, itt)
        start = time.monotonic()
        tmf = self.manage(c, function, itt)
        ping = c.take_itt()
        c.send(bhs(raw.NOP_OUT, 0x80, ping, immediate=True, tail=struct.pack(">I", M32) + c.sequence()))
        while True:
            pdu = self.answer(c)
            if pdu is None or (pdu.opcode == raw.SCSI_RSP and pdu.itt == itt):
                raise Wrong("closed" if pdu is None else "the write was answered")
            if pdu.opcode == raw.TMF_RSP and time.monotonic() - start < 1:
                raise Wrong("answered before the data came")
            if pdu.opcode == raw.TMF_RSP or pdu.opcode == raw.NOP_IN:
                break
        c.data_out(itt, r2t.word(20), 0, 0, bytes(r2t.word(44)))
        while pdu.opcode != raw.TMF_RSP:
            pdu = self.answer(c)
            if pdu is None or (pdu.opcode == raw.SCSI_RSP and pdu.itt == itt):
                raise Wrong("closed" if pdu is None else "the write was answered")
        if pdu.itt != tmf or pdu.header[2]:
            raise Wrong(f"response {pdu.header[2]}")
        self.ignored(c)
        self.becomes_ready(c)

    # ---- reservations ---------------------------------------------------------------------

    def conflicts(self, cdb, out=b"", edtl=0):
        """The command by a second nexus, against each kind of reservation that forbids writing."""
        holder, other = self.session(), self.session()
        prout = lambda c, action, kind, key, new: self.want_good(self.sense(
            c, struct.pack(">BBBHIB", 0x5f, action, kind, 0, 24, 0), out=struct.pack(
                ">QQQ", key, new, 0)))
        run = lambda: self.sense(other, cdb, out=out if not edtl else None, edtl=edtl)[0]
        try:
            prout(holder, 6, 0, 0, 0xa)
            for kind in (1, 3, 5, 6, 7, 8):
                prout(holder, 1, kind, 0xa, 0)
                if run() != CONFLICT:
                    raise Wrong(f"no conflict with a persistent reservation of type {kind}")
                prout(holder, 2, kind, 0xa, 0)
        finally:
            prout(holder, 3, 0, 0xa, 0)
        self.want_good(self.sense(holder, b"\x16" + bytes(5)))
        if run() != CONFLICT:
            raise Wrong("no conflict with RESERVE(6)")
        self.want_good(self.sense(holder, b"\x17" + bytes(5)))

    # ---- after each ---------------------------------------------------------------------

    def harm(self):
        """"" or what the violation did to others."""
        try:
            status, data = self.innocent.read10(128, 16)
            if status == GOOD and data == self.content[128 * 512:144 * 512] and self.d.alive():
                return ""
            what = f"the innocent session: status {status}, {len(data)} bytes"
        except Closed as e:
            what = f"the innocent session: {e}"
        if not self.d.alive():
            self.d.start()
        self.innocent = self.session(DISK)
        self.open.remove(self.innocent)
        return what


def within(seconds, what, fn):
    """fn() comes true in time; else Wrong."""
    try:
        return poll(what, fn, seconds)
    except Failed as e:
        raise Wrong(str(e)) from e


__all__ = ["Wire", "Wrong", "Closed", "raw", "bhs", "struct", "cdb10", "cdb16", "read10", "write10",
           "within", "DISK", "SCRATCH", "MASKED", "SECRET", "GOOD", "CHECK", "BUSY", "CONFLICT",
           "TASK_SET_FULL", "M32", "SLOW"]
