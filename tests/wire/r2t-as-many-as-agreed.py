# SPDX-License-Identifier: BSD-3-Clause
"""As many R2Ts as agreed are outstanding at once, in order and numbered, and all data arrives."""
from violation import *

BURST = 4096


def write(w, offer, total, first):
    c = w.session(SCRATCH, InitialR2T="No", ImmediateData="No", MaxBurstLength=str(BURST),
                  FirstBurstLength="2048", MaxOutstandingR2T=str(offer))
    agreed = int(c.login_text["MaxOutstandingR2T"])
    if not 1 <= agreed <= min(offer, 64):
        raise Wrong(f"{agreed} was agreed on {offer}")
    data = w.j.rng.randbytes(total)
    itt = c.command(write10(total // 512, 800), edtl=total, write=True, final=not first)
    if first:
        c.data_out(itt, M32, 0, 0, data[:first])
    sn, asked, got, waiting = 0, first, first, []
    while got < total:
        # nothing is sent before as many as may be are here
        while asked < total and len(waiting) < agreed:
            pdu = w.r2t(c, itt)
            at, n = pdu.word(40), pdu.word(44)
            if pdu.word(36) != sn or at != asked or not 0 < n <= BURST:
                raise Wrong(f"R2TSN {pdu.word(36)} for {n} bytes at {at}; {sn} for {asked} is next")
            sn, asked = sn + 1, at + n
            waiting.append(pdu)
        pdu = waiting.pop(0)
        ttt, at, n = pdu.word(20), pdu.word(40), pdu.word(44)
        half = n // 2
        c.data_out(itt, ttt, 0, at, data[at:at + half], final=False)
        c.data_out(itt, ttt, 1, at + half, data[at + half:at + n])
        got += n
    w.want_good(w.sense_of(c, itt))
    if c.read10(800, total // 512) != (GOOD, data):
        raise Wrong("other data is read")


def violate(w):
    for offer in (1, 2, 3, 8, 65535):
        write(w, offer, 65536, 0)
    write(w, 4, 65536, 2048)
