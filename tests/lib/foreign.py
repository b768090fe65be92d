# SPDX-License-Identifier: BSD-3-Clause
"""A LUN of a target that we didn't write as the source of a pull: no VPD D5h, no GET LAYER STATUS, so
all the fall-backs. A source has: port, iqn, lun, and kill()."""
import os

from cowtest import MIB, check_image, identical, no_backing, poll
from prkeys import Looker
from pulls import LOCAL_IQN, Writer


REFUSES, FORGETS, LASTS = range(3)


def make_image(j, name, size_mib, pieces):
    """A raw image: zeros with @pieces of random data of 1 to 2 MiB, not aligned to anything."""
    path = j.path(name)
    with open(path, "wb") as f:
        for _ in range(pieces):
            f.seek(512 * j.rng.randrange(2048 * (size_mib - 2)))
            f.write(j.rng.randbytes(MIB + 512 * j.rng.randrange(2048)))
        f.truncate(size_mib * MIB)
    return path


def registered(source):
    with Looker(source.port, source.iqn) as c:
        return c.keys(source.lun)


def judge_registration(j, d, what, source, pulled, holds):
    told = {REFUSES: "does not know that this host needs it", FORGETS: "forgets that this host needs it", LASTS: ""}
    warned = [l for l in pulled.stderr.splitlines() if "this host needs it" in l]
    fine = told[holds] in warned[0] if told[holds] and warned else not told[holds] and not warned
    if holds == REFUSES:
        j.check(fine, f"{what}: refuses a registration: used with a warning", pulled.stderr)
        return
    key, found = d.execute("query-chains", name=what)[0]["holds"]["key"], registered(source)
    j.check(fine and found == [int(str(key), 0)], f"{what}: knows by one key that the disk is needed"
            + (", until it is restarted" if holds == FORGETS else ""), f"{found}, not {key}; {pulled.stderr}")


def judge_need(j, d, what, source, image, tells):
    """What is read of a source that @tells by GET LBA STATUS what is allocated, or does not."""
    name = what + "-need"
    into = j.path(f"into-{name}")
    os.makedirs(into)
    d.ctl("chain", "pull", name, f"iscsi://127.0.0.1:{source.port}/{source.iqn}", "--into", into,
          "--target", f"{LOCAL_IQN}-{name}")
    poll("the stream's end", lambda: d.progress() is None, 90, 0.05)
    read, overlay = d.execute("query-chains", name=name)[0]["source-bytes-read"], os.path.join(into, name + ".qcow2")
    used, size = (os.stat(image).st_blocks * 512, os.stat(image).st_size)
    if tells:
        j.check(read <= used + MIB, f"{what}: what is not allocated is not read", f"{read} bytes of {used}")
    else:
        j.check(read >= size, f"{what}: does not tell what is allocated, so all is read", f"{read} bytes of {size}")
    same, said = identical(d.url(f"{LOCAL_IQN}-{name}", 0), "raw", image, "raw")
    small = os.stat(overlay).st_blocks * 512
    j.check(same and small <= used + 8 * MIB, f"{what}: the copy is right, and has no room for zeros",
            f"{said} {small} bytes for {used}")
    d.ctl("chain", "remove", name)


def judge_pull(j, d, what, source, image, holds, speed="16M"):
    """The whole of a pull by @d under a verifying writer; @image is what the source serves, @holds:
    what it does with a registration."""
    into, iqn = j.path(f"into-{what}"), f"{LOCAL_IQN}-{what}"
    os.makedirs(into)
    try:
        p = d.ctl("chain", "pull", what, f"iscsi://127.0.0.1:{source.port}/{source.iqn}", "--into", into,
                  "--target", iqn, "--speed", speed, check=False)
        if not j.check(p.returncode == 0, f"{what}: LUN {source.lun}, its only disk, is found and pulled", p.stderr):
            return
        judge_registration(j, d, what, source, p, holds)
        writer = Writer(j, d.url(iqn, 0), image, j.seed, name=what)
        poll("the stream's end", lambda: d.progress() is None, 90, 0.05)
        if holds != REFUSES:
            j.attempt(f"{what}: and that it is no more", poll, "no key", lambda: not registered(source), 20, 0.1)
        j.say(f"{what}: {d.execute('query-chains', name=what)[0]['source-bytes-read'] / MIB:.1f} MiB were read")
    finally:
        source.kill()
    judge_result(j, d, what, iqn, writer, os.path.join(into, what + ".qcow2"))


def judge_result(j, d, what, iqn, writer, overlay):
    fine, said = writer.stop()
    j.check(fine, f"{what}: the writer found nothing wrong: {said.strip().splitlines()[-1]}", said)
    expected = writer.expected(j.path("expected"))
    same, said = identical(d.url(iqn, 0), "raw", expected, "raw")
    j.check(same, f"{what}: LUN 0 is source plus writes, the source dead", said)
    d.ctl("chain", "remove", what)
    clean, said = check_image(overlay)
    same, diff = identical(no_backing(overlay), None, expected, "raw")
    j.check(clean and same, f"{what}: the overlay is clean and identical", said + diff)
    os.unlink(expected)
