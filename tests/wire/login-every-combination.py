# SPDX-License-Identifier: BSD-3-Clause
"""Whatever combination of keys is offered, each is answered by its rule, and data moves both ways by what holds."""
from violation import *

YESNO = (None, "Yes", "No")
SIZES = (None, "512", "1001", "4096", "65536", "300000", "16777215")
OFFERS = {
    "InitialR2T": YESNO, "ImmediateData": YESNO, "DataPDUInOrder": YESNO, "DataSequenceInOrder": YESNO,
    "FirstBurstLength": SIZES, "MaxBurstLength": SIZES, "MaxOutstandingR2T": (None, "1", "2", "65535"),
    "HeaderDigest": ("None", "CRC32C", "CRC32C,None", "X-y,CRC32C"), "DataDigest": ("None", "CRC32C", "None,CRC32C"),
    "MaxRecvDataSegmentLength": ("512", "1001", "8192", "0x40000"), "MaxConnections": (None, "1", "65535"),
    "ErrorRecoveryLevel": (None, "0", "1", "2"), "DefaultTime2Wait": (None, "0", "3600"),
    "DefaultTime2Retain": (None, "0", "0xe10"), "X-com.example.key": (None, "", "a" * 255),
    "TaskReporting": (None, "RFC3720", "FastAbort", "ResponseFence,RFC3720"),
    "iSCSIProtocolLevel": (None, "0", "31"), "InitiatorAlias": (None, "", "some host"),
}
SILENT = {"MaxRecvDataSegmentLength", "InitiatorAlias"}
BLOCKS = 96


def number(text, default):
    return int(text, 0) if text else default


def rule(offer):
    """What is to be answered."""
    max_burst = min(number(offer.get("MaxBurstLength"), 262144), 1 << 20)
    first = lambda v, known: next((x for x in v.split(",") if x in known), "Reject")
    by = {
        "InitialR2T": lambda v: v, "ImmediateData": lambda v: v, "DataPDUInOrder": lambda v: "Yes",
        "DataSequenceInOrder": lambda v: "Yes", "MaxBurstLength": lambda v: str(max_burst),
        "FirstBurstLength": lambda v: str(min(int(v), 262144, max_burst)),
        "MaxOutstandingR2T": lambda v: str(min(int(v), 8)), "MaxConnections": lambda v: "1",
        "ErrorRecoveryLevel": lambda v: "0", "DefaultTime2Wait": lambda v: str(max(int(v), 2)),
        "DefaultTime2Retain": lambda v: "0", "X-com.example.key": lambda v: "NotUnderstood",
        "HeaderDigest": lambda v: first(v, ("None", "CRC32C")), "DataDigest": lambda v: first(v, ("None", "CRC32C")),
        "TaskReporting": lambda v: first(v, ("RFC3720",)), "iSCSIProtocolLevel": lambda v: str(min(int(v), 1)),
    }
    return {k: by[k](v) for k, v in offer.items() if k not in SILENT}


def send(w, c, itt, ttt, at, data):
    """One burst in segments of any length."""
    sn, sent = 0, 0
    while True:
        n = min(w.j.rng.choice((1, 512, 4096, 70000)), len(data) - sent)
        c.data_out(itt, ttt, sn, at + sent, data[sent:sent + n], final=sent + n == len(data))
        sn, sent = sn + 1, sent + n
        if sent == len(data):
            return


def write(w, c, t, lba, data):
    solicited = t["InitialR2T"] == "Yes"
    first = min(int(t["FirstBurstLength"]), len(data))
    now = w.j.rng.choice((0, 1, first)) if t["ImmediateData"] == "Yes" else 0
    early = first if not solicited and w.j.rng.random() < 0.7 else now
    itt = c.command(write10(BLOCKS, lba), edtl=len(data), write=True, data=data[:now], final=early == now)
    if early > now:
        send(w, c, itt, M32, now, data[now:early])
    expected, sn = early, 0
    while True:
        pdu = w.answer(c)
        if pdu is None:
            raise Wrong("closed")
        if pdu.opcode == raw.SCSI_RSP:
            if pdu.header[2:4] != b"\0\0" or expected != len(data):
                raise Wrong(f"status {pdu.header[3]} after {expected} bytes")
            return
        at, n = pdu.word(40), pdu.word(44)
        if pdu.opcode != raw.R2T or at != expected or not 0 < n <= int(t["MaxBurstLength"]) or pdu.word(36) != sn:
            raise Wrong(f"opcode {pdu.opcode:x}: {n} bytes at {at}, not {expected}; number {pdu.word(36)}")
        expected, sn = at + n, sn + 1
        send(w, c, itt, pdu.word(20), at, data[at:at + n])


def read(w, c, t, lba):
    itt, got, sn, burst = c.command(read10(BLOCKS, lba), edtl=512 * BLOCKS, read=True), b"", 0, 0
    while True:
        pdu = w.until(c, raw.DATA_IN, itt)
        burst += len(pdu.data)
        if (pdu.word(36), pdu.word(40)) != (sn, len(got)) or len(pdu.data) > t["segment"]:
            raise Wrong(f"Data-In {pdu.word(36)} of {len(pdu.data)} bytes at {pdu.word(40)}")
        if burst > int(t["MaxBurstLength"]):
            raise Wrong("a sequence longer than MaxBurstLength")
        got, sn, burst = got + pdu.data, sn + 1, 0 if pdu.flags & 0x80 else burst
        if pdu.flags & 1:
            return got


def violate(w):
    rng = w.j.rng
    for _ in range(40):
        offer = {k: v for k in OFFERS if (v := rng.choice(OFFERS[k])) is not None}
        keys = list(offer)
        rng.shuffle(keys)
        c = w.session(SCRATCH, **{k: offer[k] for k in keys})
        told = {k: v for k, v in c.login_text.items() if k in offer and k not in SILENT}
        if told != rule(offer):
            raise Wrong(f"offered {offer}, told {told}, not {rule(offer)}")
        t = {"InitialR2T": "Yes", "ImmediateData": "Yes", "MaxBurstLength": "262144",
             "FirstBurstLength": "65536"} | told
        t["FirstBurstLength"] = min(int(t["FirstBurstLength"]), int(t["MaxBurstLength"]))
        t["segment"] = number(offer["MaxRecvDataSegmentLength"], 0)
        data = rng.randbytes(512 * BLOCKS)
        try:
            write(w, c, t, 1000, data)
            same = read(w, c, t, 1000) == data
        except Wrong as e:
            raise Wrong(f"{e}; {offer}") from e
        if not same:
            raise Wrong(f"other data is read than written; {offer}")
        c.sock.close()
