# SPDX-License-Identifier: BSD-3-Clause
"""SendTargets in each form: by name, All in discovery, nothing in a normal session."""
from violation import *


def ask(w, c, value):
    text = f"SendTargets={value}".encode() + b"\0"
    c.send(bhs(raw.TEXT, 0x80, 9, 0, len(text), tail=struct.pack(">I", M32) + c.sequence()), text)
    c.cmd_sn += 1
    rsp = w.until(c, raw.TEXT_RSP, 9)
    if rsp.flags != 0x80 or rsp.word(20) != M32:
        raise Wrong(f"flags {rsp.flags:02x}, tag {rsp.word(20):x}")
    return sorted(p[11:].decode() for p in rsp.data.split(b"\0") if p.startswith(b"TargetName="))


def violate(w):
    finder, user = w.session(None), w.session(DISK)
    for c, value, want in ((finder, DISK, [DISK]), (finder, DISK + "-none", []), (user, "", [DISK]),
                           (user, DISK, [DISK]), (user, SCRATCH, [])):
        got = ask(w, c, value)
        if got != want:
            raise Wrong(f"SendTargets={value}: {got}")
    if not {DISK, SCRATCH} <= set(ask(w, finder, "All")):
        raise Wrong("All is not all")
