# SPDX-License-Identifier: BSD-3-Clause
"""An initiator that sends exactly the bytes it is told to (RFC 7143), for misbehaving on purpose.
What it receives it checks by its digests."""
import ctypes
import socket
import struct

from cowtest import SLOW

NOP_OUT, SCSI_CMD, TMF, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0, 1, 2, 3, 4, 5, 6, 0x10
NOP_IN, SCSI_RSP, TMF_RSP, LOGIN_RSP, TEXT_RSP, DATA_IN, LOGOUT_RSP, R2T, ASYNC, REJECT = (
    0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f)
RESERVED_TAG = 0xffffffff


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82f63b78 if n & 1 else n >> 1
        table.append(n)
    return table


_TABLE = _crc_table()


try:
    _isal = ctypes.CDLL("libisal.so.2").crc32_iscsi
    _isal.argtypes, _isal.restype = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint], ctypes.c_uint
except (OSError, AttributeError):
    _isal = None


def crc32c(data):
    crc = 0xffffffff
    if _isal:
        return struct.pack("<I", _isal(bytes(data), len(data), crc) ^ crc)
    for b in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ b) & 0xff]
    return struct.pack("<I", crc ^ 0xffffffff)


def bhs(opcode, flags=0x80, itt=0, lun=0, data_len=0, ahs_words=0, immediate=False, tail=b""):
    """A basic header segment; @tail is bytes 20..47."""
    lun_field = struct.pack(">HHHH", lun if lun < 256 else 0x4000 | lun, 0, 0, 0)
    head = struct.pack(">BBHI", opcode | (0x40 if immediate else 0), flags, 0,
                       ahs_words << 24 | data_len)
    return head + lun_field + struct.pack(">I", itt) + tail.ljust(28, b"\0")


class Pdu:
    def __init__(self, header, data):
        self.header, self.data = header, data
        self.opcode = header[0] & 0x3f
        self.flags = header[1]
        self.itt = struct.unpack(">I", header[16:20])[0]

    def word(self, at):
        return struct.unpack(">I", self.header[at:at + 4])[0]


class Closed(Exception):
    """The target hung up, or said nothing for too long."""


class BadDigest(Exception):
    """A digest of the target's is not that of what came with it."""


class RawInitiator:
    def __init__(self, port, timeout=5.0, name="iqn.2026-11.com.example:raw",
                 host="127.0.0.1"):
        self.name = name
        self.sock = socket.create_connection((host, port), timeout * SLOW)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cmd_sn, self.exp_stat_sn, self.next_itt = 1, 0, 1
        self.header_digest = self.data_digest = False
        self.login_text = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send_raw(self, data):
        try:
            self.sock.sendall(data)
        except OSError as e:
            raise Closed(str(e)) from e

    def send(self, header, data=b"", spoil_header=False, spoil_data=False):
        """Header and data with padding and the digests agreed on; spoiled ones on request."""
        out = header
        if self.header_digest:
            digest = crc32c(header)
            out += bytes(b ^ 0xff for b in digest) if spoil_header else digest
        if data:
            padded = data + bytes(-len(data) % 4)
            out += padded
            if self.data_digest:
                digest = crc32c(padded)
                out += bytes(b ^ 0xff for b in digest) if spoil_data else digest
        self.send_raw(out)

    def _exactly(self, n):
        out = b""
        while len(out) < n:
            try:
                part = self.sock.recv(n - len(out))
            except OSError as e:
                raise Closed(str(e)) from e
            if not part:
                raise Closed("closed by the target")
            out += part
        return out

    def recv(self):
        header = self._exactly(48)
        ahs = self._exactly(4 * header[4])
        if self.header_digest and self._exactly(4) != crc32c(header + ahs):
            raise BadDigest(f"header of {header[0]:02x}h")
        length = struct.unpack(">I", b"\0" + header[5:8])[0]
        data = self._exactly(length + -length % 4)
        if self.data_digest and length and self._exactly(4) != crc32c(data):
            raise BadDigest(f"{length} bytes of data of {header[0]:02x}h")
        pdu = Pdu(header, data[:length])
        if pdu.opcode != R2T and not (pdu.opcode == DATA_IN and not pdu.flags & 1):
            self.exp_stat_sn = (pdu.word(24) + 1) & 0xffffffff
        return pdu

    def sequence(self):
        return struct.pack(">II", self.cmd_sn, self.exp_stat_sn)

    def take_itt(self):
        self.next_itt += 1
        return self.next_itt

    # ---- login --------------------------------------------------------------------------

    def login_pdu(self, keys, flags=0x87, isid=b"\x80\0\0\0\0\x01", tsih=0, itt=1):
        """Stage and transit bits in @flags; 0x87: operational to full feature."""
        data = keys if isinstance(keys, bytes) else b"".join(
            f"{k}={v}".encode() + b"\0" for k, v in keys.items())
        head = struct.pack(">BBBBI", LOGIN | 0x40, flags, 0, 0, len(data)) + isid + struct.pack(
            ">HIHHII", tsih, itt, 0, 0, self.cmd_sn, self.exp_stat_sn)
        return head.ljust(48, b"\0"), data

    def login(self, target=None, isid=b"\x80\0\0\0\0\x01", tsih=0, **extra):
        """A whole login; returns the last response. Keys as extra, "_" for none."""
        keys = {"InitiatorName": self.name, "SessionType": "Normal" if target else "Discovery"}
        if target:
            keys["TargetName"] = target
        keys.update({"HeaderDigest": "None", "DataDigest": "None",
                     "MaxRecvDataSegmentLength": "65536"})
        keys.update(extra)
        self.send_raw(b"".join((lambda h, d: (h, d + bytes(-len(d) % 4)))(
            *self.login_pdu(keys, isid=isid, tsih=tsih))))
        rsp = self.recv()
        if rsp.opcode == LOGIN_RSP and rsp.word(36) >> 16 == 0:
            text = dict(p.split(b"=", 1) for p in rsp.data.split(b"\0") if b"=" in p)
            self.login_text = {k.decode(): v.decode() for k, v in text.items()}
            self.header_digest = self.login_text.get("HeaderDigest") == "CRC32C"
            self.data_digest = self.login_text.get("DataDigest") == "CRC32C"
        return rsp

    def step(self, keys, flags, isid=b"\x80\0\0\0\0\x01"):
        """One login request and its response, keys as a dict in rsp.keys."""
        header, data = self.login_pdu(keys, flags=flags, isid=isid)
        self.send_raw(header + data + bytes(-len(data) % 4))
        rsp = self.recv()
        rsp.status = rsp.word(36) >> 16
        rsp.keys = {k.decode(): v.decode() for k, v in (
            p.split(b"=", 1) for p in rsp.data.split(b"\0") if b"=" in p)}
        return rsp

    # ---- full feature phase -----------------------------------------------------------------

    def command(self, cdb, lun=0, edtl=0, read=False, write=False, data=b"", itt=None, final=True,
                cmd_sn=None, data_len=None, **spoil):
        """Sends a SCSI command (immediate data with it); returns its ITT."""
        itt = self.take_itt() if itt is None else itt
        flags = (0x80 if final else 0) | (0x40 if read else 0) | (0x20 if write else 0) | 1
        sn = self.cmd_sn if cmd_sn is None else cmd_sn
        tail = struct.pack(">III", edtl, sn, self.exp_stat_sn) + bytes(cdb).ljust(16, b"\0")
        length = len(data) if data_len is None else data_len
        self.send(bhs(SCSI_CMD, flags, itt, lun, length, tail=tail), data, **spoil)
        if cmd_sn is None:
            self.cmd_sn = (self.cmd_sn + 1) & 0xffffffff
        return itt

    def finish(self, itt):
        """Reads until the status of @itt: (SCSI status, data-in). R2Ts get zeros.
        self.sense_data is the sense that came with it."""
        data, self.sense_data = bytearray(), b""
        while True:
            pdu = self.recv()
            if pdu.opcode == REJECT or pdu.itt != itt:
                continue
            if pdu.opcode == R2T:
                ttt, offset, want = pdu.word(20), pdu.word(40), pdu.word(44)
                self.data_out(itt, ttt, 0, offset, bytes(want))
            elif pdu.opcode == DATA_IN:
                data += pdu.data
                if pdu.flags & 1:
                    return pdu.header[3], bytes(data)
            elif pdu.opcode == SCSI_RSP:
                self.sense_data = pdu.data[2:]
                return pdu.header[3], bytes(data)

    def data_out(self, itt, ttt, data_sn, offset, data, final=True, spoil_data=False):
        tail = struct.pack(">IIIIIII", ttt, 0, self.exp_stat_sn, 0, data_sn, offset, 0)
        self.send(bhs(DATA_OUT, 0x80 if final else 0, itt, 0, len(data), tail=tail), data,
                  spoil_data=spoil_data)

    def ping(self, payload=b"hello"):
        """NOP-Out and its NOP-In; true if the payload came back."""
        itt = self.take_itt()
        tail = struct.pack(">I", RESERVED_TAG) + self.sequence()
        self.send(bhs(NOP_OUT, 0x80, itt, 0, len(payload), immediate=True, tail=tail), payload)
        while True:
            pdu = self.recv()
            if pdu.opcode == NOP_IN and pdu.itt == itt:
                return pdu.data == payload

    def read10(self, lba, blocks, lun=0):
        cdb = struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)
        return self.finish(self.command(cdb, lun, 512 * blocks, read=True))

    def send_read(self, lba, blocks, lun=0):
        cdb = struct.pack(">BBQIBB", 0x88, 0, lba, blocks, 0, 0)
        return self.command(cdb, lun, 512 * blocks, read=True)

    def manage(self, function, lun=0, task=RESERVED_TAG):
        """Task management; reads until its response, returns (response, PDUs seen before)."""
        itt = self.take_itt()
        tail = struct.pack(">IIII", task, self.cmd_sn, self.exp_stat_sn, 0)
        self.send(bhs(TMF, 0x80 | function, itt, lun, immediate=True, tail=tail))
        before = []
        while True:
            pdu = self.recv()
            if pdu.opcode == TMF_RSP and pdu.itt == itt:
                return pdu.header[2], before
            before.append(pdu)
