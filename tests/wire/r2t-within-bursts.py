# SPDX-License-Identifier: BSD-3-Clause
"""No R2T asks for more than MaxBurstLength, none are more than agreed, and all data arrives."""
from violation import *


def violate(w):
    c = w.session(SCRATCH, InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096",
                  MaxOutstandingR2T="4")
    data = w.j.rng.randbytes(65536)
    itt, got, waiting, most = c.command(write10(128, 800), edtl=65536, write=True), 0, [], 0
    while got < len(data):
        pdu = w.r2t(c, itt)
        waiting.append(pdu)
        c.sock.settimeout(0.05)
        try:
            while True:
                waiting.append(c.recv())
        except Closed:
            c.sock.settimeout(5 * SLOW)
        most = max(most, len(waiting))
        for i, pdu in enumerate(waiting):
            ttt, at, n = pdu.word(20), pdu.word(40), pdu.word(44)
            if n > 4096 or at != got:
                raise Wrong(f"R2T of {n} bytes at {at}, after {got}")
            c.data_out(itt, ttt, 0, at, data[at:at + n])
            got += n
        waiting = []
    w.want_good(w.sense_of(c, itt))
    if not 1 <= most <= int(c.login_text["MaxOutstandingR2T"]):
        raise Wrong(f"{most} R2Ts at once")
    if c.read10(800, 128) != (GOOD, data):
        raise Wrong("other data is read")
