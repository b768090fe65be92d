# SPDX-License-Identifier: BSD-3-Clause
"""The bench's part "scale": what does not show in commands a second. Counts and sizes hold anywhere;
times are of this machine at this moment."""
import json
import os
import random
import resource
import selectors
import statistics
import struct
import subprocess
import time

from cowtest import KIB, MIB, Failed, qemu_img, qemu_io, run
from rawiscsi import DATA_IN, SCSI_RSP, RawInitiator
from servers import CLIENT_CPU, SERVER_CPU, TWO_CPUS, cpu_seconds, load_command, rss_bytes

IQN = "iqn.2026-11.com.example:scale"
TIB = 1 << 40
LBA_STATUS = struct.pack(">BB", 0x9e, 0x12)
LAYER_STATUS_OPCODE = 0xc5


def say(b, what, value):
    print(f"  {what:90} {value}", flush=True)
    b.notes.setdefault("scale", {})[what] = value


def open_session(port, iqn, n=0, timeout=60):
    c = RawInitiator(port, timeout=timeout, name=f"iqn.2026-11.com.example:host{n}")
    c.login(iqn, isid=b"\x80\0\0\0" + struct.pack(">H", n))
    while c.finish(c.command(bytes(6)))[0]:
        pass  # unit attentions
    return c


class Lun:
    """What load_command() wants of a server."""
    client = "load"

    def __init__(self, d, name):
        self.port, self.pid, self.iqn = d.port, d.proc.pid, f"{IQN}-{name}"
        self.address = ["-n", self.iqn, "-l", "0"]


def export(d, name, image, *extra):
    began = time.monotonic()
    q = d.qmp()
    args = dict(zip((e.strip("-") for e in extra[::2]), extra[1::2]))
    q.execute("chain-export", name=name, image=image, target=f"{IQN}-{name}", **args)
    q.close()
    return time.monotonic() - began


def load(lun, *args):
    return json.loads(run(*load_command(lun, args), timeout=600).stdout)


def nodes(d, drv="qcow2"):
    return [n for n in d.execute("query-named-block-nodes") if n["drv"] == drv]


# ---- chains ---------------------------------------------------------------------------------------------

def chain(b, name, depth, size, clusters):
    """@clusters of 64 KiB, each in one layer, at random; the layers' files, base first."""
    rng = random.Random(depth)
    offsets = rng.sample(range(size // 65536), clusters)
    below, files = None, []
    for i in range(depth):
        path = b.j.path(f"{name}-{i}.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", *(["-b", below, "-F", "qcow2"] if below else []), path, size)
        mine = sorted(offsets[i * clusters // depth:(i + 1) * clusters // depth])
        if mine:
            qemu_io(path, [f"write -q -P {i % 251 + 1} {c * 65536} 65536" for c in mine])
        below = path
        files.append(path)
    return files


def opening(b, d, _):
    for depth in (1, 64):
        files = chain(b, f"open{depth}", depth, TIB, depth * 4)
        took = []
        for nr in range(b.opt.rounds):
            took.append(export(d, f"open{depth}-{nr}", files[-1]))
            d.execute("chain-remove", name=f"open{depth}-{nr}")
        say(b, f"export of a 1 TiB chain of {depth} layers, with the state on disk, ms, median",
            round(statistics.median(took) * 1e3, 1))
        for f in files:
            os.unlink(f)


def walk(b, d, c, what, first_bytes, blocks):
    """The mapping of the whole disk, as many extents an answer as it gives."""
    lba, calls, extents, worst, layer = 0, 0, 0, 0.0, first_bytes == LAYER_STATUS_OPCODE
    misses = sum(n["cache"].get("misses", 0) for n in nodes(d))
    cpu, began = cpu_seconds(d.proc.pid), time.monotonic()
    while lba < blocks:
        if layer:
            cdb = struct.pack(">BBQIBB", LAYER_STATUS_OPCODE, 0, lba, 65536, 0, 0)
        else:
            cdb = LBA_STATUS + struct.pack(">QIBB", lba, 65536, 0, 0)
        start = time.monotonic()
        status, data = c.finish(c.command(cdb, 0, 65536, read=True))
        worst = max(worst, time.monotonic() - start)
        if status:
            raise Failed(f"{what}: status {status}, sense {c.sense_data.hex()}")
        calls += 1
        head = 32 if layer else 8
        found = (len(data) - head) // 16
        extents += found
        last_lba, last_blocks = struct.unpack(">QI", data[len(data) - 16:len(data) - 4])
        lba = last_lba + last_blocks
    took = time.monotonic() - began
    misses = sum(n["cache"].get("misses", 0) for n in nodes(d)) - misses
    say(b, f"{what}: extents, calls, 4 KiB pieces of tables read, in a call", f"{extents}, {calls}, {misses}, {misses / calls:.0f}")
    say(b, f"{what}: seconds in all, server CPU, ms of the slowest call",
        f"{took:.2f}, {cpu_seconds(d.proc.pid) - cpu:.2f}, {worst * 1e3:.1f}")


def fragments(b, d, _):
    """A 1 TiB disk whose writes were random, and a chain of it."""
    short = b.opt.short
    path = b.j.path("frag.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", path, TIB)
    d.ctl("chain", "export", "fragw", path, "--writable", "--target", f"{IQN}-fragw")
    load(Lun(d, "fragw"), "-m", "randwrite", "-b", 4096, "-q", 64, "-N", 1000 if short else 16384, "-s", 300)
    d.execute("chain-remove", name="fragw")
    top = path
    for i in range(3):
        over = b.j.path(f"frag{i}.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", top, "-F", "qcow2", over)
        top = over
    export(d, "frag", top)
    with open_session(d.port, f"{IQN}-frag") as c:
        walk(b, d, c, "GET LBA STATUS, fragmented 1 TiB, 4 layers", 0x9e, TIB // 512)
        walk(b, d, c, "GET LAYER STATUS of the same", LAYER_STATUS_OPCODE, TIB // 512)
    load(Lun(d, "frag"), "-m", "randread", "-b", 4096, "-q", 64, "-N", 2000 if short else 200000, "-s", 300)
    m = [n["merged-map"] for n in nodes(d) if "merged-map" in n][0]
    say(b, "its merged map after random reads all over it, MiB, of at most",
        f"{m['bytes'] / MIB:.1f}, {m['max-bytes'] // MIB}")
    d.execute("chain-remove", name="frag")


def sequential(b, d, _):
    """Requests to files of a sequential read: what of it arrives in one piece."""
    size = 64 * MIB if b.opt.short else 512 * MIB
    dev = os.stat(b.j.tmp).st_dev
    disk = f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}/stat"

    def disk_reads():
        with open(disk) as f:
            return int(f.read().split()[0])
    for depth in (1, 16):
        files = chain(b, f"seq{depth}", depth, size, size // 65536)
        export(d, f"seq{depth}", files[-1])
        lun = Lun(d, f"seq{depth}")
        load(lun, "-m", "read", "-b", 262144, "-q", 16, "-u", "-s", 300)  # the map
        counted = f"/proc/{d.proc.pid}/io"

        def reads():
            with open(counted) as f:
                return int(next(l for l in f if l.startswith("syscr")).split()[1])
        before = reads()
        r = load(lun, "-m", "read", "-b", 262144, "-q", 16, "-u", "-s", 300)
        say(b, f"sequential read of 256 KiB, {depth} layers of random 64 KiB: reads of files a MiB, MB/s",
            f"{(reads() - before) / (size / MIB):.1f}, {r['mbps']:.0f}")
        for path in files:
            with open(path, "rb") as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if os.path.exists(disk):
            before = disk_reads()
            load(lun, "-m", "read", "-b", 262144, "-q", 16, "-u", "-s", 300)
            say(b, "the same from the disk: reads of the disk a MiB, all others' included",
                f"{(disk_reads() - before) / (size / MIB):.1f}")
        d.execute("chain-remove", name=f"seq{depth}")
        for f in files:
            os.unlink(f)


# ---- sessions -------------------------------------------------------------------------------------------

def fairness(b, d, image):
    for name in ("busy", "quiet"):  # load has one name: two targets make two sessions of it
        export(d, name, image, "--format", "raw")
    lun, busy_lun = Lun(d, "quiet"), Lun(d, "busy")
    quiet = ["-m", "randread", "-b", 4096, "-q", 1, "-s", b.opt.seconds]
    alone = load(lun, *quiet)
    for what, args in (("256 reads of 4 KiB", ["-b", 4096, "-q", 256]), ("256 reads of 64 KiB", ["-b", 65536, "-q", 256])):
        hog = subprocess.Popen(load_command(busy_lun, ["-m", "randread", "-s", b.opt.seconds + 1, *args]),
                               stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        beside = load(lun, *quiet)
        busy = json.loads(hog.communicate(timeout=300)[0])
        say(b, f"one 4 KiB read at a time beside a session of {what}: p50, p99 in us",
            f"{beside['p50_us']:.0f}, {beside['p99_us']:.0f} (alone {alone['p50_us']:.0f}, {alone['p99_us']:.0f}; "
            f"the other does {busy['iops']:.0f} a second)")
    for name in ("busy", "quiet"):
        d.execute("chain-remove", name=name)


def drive(sessions, seconds):
    """Each session has one 4 KiB read under way all the time; how many each got."""
    sel, got = selectors.DefaultSelector(), {}
    for c in sessions:
        c.sock.setblocking(True)
        c.send_read(0, 8)
        sel.register(c.sock, selectors.EVENT_READ, c)
        got[c] = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in sel.select(1):
            c = key.data
            pdu = c.recv()
            if pdu.opcode == SCSI_RSP or (pdu.opcode == DATA_IN and pdu.flags & 1):
                got[c] += 1
                c.send_read(got[c] * 8 % 65536, 8)
    sel.close()
    return sorted(got.values())


def sessions(b, d, image):
    number = 100 if b.opt.short else 1000
    export(d, "many", image, "--format", "raw")
    for n in range(20):
        open_session(d.port, f"{IQN}-many", 3000 + n).sock.close()
    before, began, all_of = rss_bytes(d.proc.pid), time.monotonic(), []
    for n in range(number):
        c = RawInitiator(d.port, timeout=60, name=f"iqn.2026-11.com.example:host{n}")
        c.login(f"{IQN}-many", isid=b"\x80\0\0\0" + struct.pack(">H", n))
        all_of.append(c)
    took = time.monotonic() - began
    say(b, f"{number} logins, one after the other, a second", round(number / took))
    say(b, f"memory of an idle session, KiB, of {number}", round((rss_bytes(d.proc.pid) - before) / number / KIB, 1))
    for c in all_of:
        while c.finish(c.command(bytes(6)))[0]:
            pass
    got = drive(all_of, b.opt.seconds * 2)
    say(b, f"{number} sessions at work: reads of the least and the most served session, in all a second",
        f"{got[0]}, {got[-1]}, {sum(got) / (b.opt.seconds * 2):.0f} (the initiator, in Python, is the limit)")
    say(b, "memory of a session then, KiB", round((rss_bytes(d.proc.pid) - before) / number / KIB, 1))
    for c in all_of:
        c.sock.close()
    d.execute("chain-remove", name="many")


def luns(b, d, _):
    number = 100 if b.opt.short else 1000
    before, began, q = rss_bytes(d.proc.pid), time.monotonic(), d.qmp()
    for n in range(number):
        q.execute("chain-export", name=f"l{n}", image="ram:1M", target=f"{IQN}-l{n}", writable=True)
    took = time.monotonic() - began
    say(b, f"{number} chains and targets in one daemon: exports a second, KiB each",
        f"{number / took:.0f}, {(rss_bytes(d.proc.pid) - before) / number / KIB:.0f}")
    for n in range(number):
        q.execute("chain-remove", name=f"l{n}")
    q.close()


def bench_scale(b):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print("\nscale\n")
    image = b.j.path("scale.raw")
    with open(image, "wb") as f:
        for _ in range(64):
            f.write(os.urandom(MIB))
    if TWO_CPUS:
        os.sched_setaffinity(0, {int(CLIENT_CPU)})
    for name, parts in (("chains", (opening, fragments, sequential)), ("quiet", (fairness,)), ("sessions", (sessions,)),
                        ("luns", (luns,))):
        d = b.j.daemon(name)  # one each: memory is compared
        if TWO_CPUS:
            run("taskset", "-a", "-p", "-c", SERVER_CPU, d.proc.pid)
        for part in parts:
            part(b, d, image)
        d.stop()
    os.unlink(image)
    if TWO_CPUS:
        os.sched_setaffinity(0, range(os.cpu_count()))
