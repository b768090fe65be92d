# SPDX-License-Identifier: BSD-3-Clause
"""Asked to log out by the administrator, one who does not is served for some seconds and dropped."""
from violation import *


def id_of(w, isid):
    return next(s["id"] for s in w.d.execute("query-sessions") if s["isid"].replace(":", "") == isid.hex())


def violate(w):
    polite, deaf = w.session(), w.session()
    for c in (polite, deaf):
        w.d.execute("session-close", id=id_of(w, c.isid), logout=True)
        pdu = w.until(c, raw.ASYNC)
        wait = struct.unpack(">H", pdu.header[42:44])[0]
        if pdu.header[36] != 1 or not 1 <= wait <= 60:
            raise Wrong(f"event {pdu.header[36]}, {wait} seconds")
        w.want_good(w.sense_of(c, c.command(bytes(6))))
    polite.send(bhs(raw.LOGOUT, 0x80, 9, immediate=True, tail=struct.pack(">I", 0) + polite.sequence()))
    w.until(polite, raw.LOGOUT_RSP, 9)
    w.closed(polite)
    deaf.sock.settimeout(20 * SLOW)
    pdu = w.until(deaf, raw.ASYNC)
    if pdu.header[36] != 3:
        raise Wrong(f"event {pdu.header[36]} before the end")
    w.closed(deaf)
