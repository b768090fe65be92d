# SPDX-License-Identifier: BSD-3-Clause
"""A second host: a network namespace with a daemon in it, joined to here by a veth pair, or by a
pair of TAPs with a bridge in between that treats frames badly. Needs root."""
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time

from cowtest import Daemon, have, poll, program, run

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 0x0002, 0x1000


def can_make_namespaces():
    name = f"cowtry{os.getpid()}"
    fine = os.geteuid() == 0 and have("ip") and have("tc") and run("ip", "netns", "add", name,
                                                                    check=False).returncode == 0
    if fine:
        run("ip", "netns", "del", name, check=False)
    return fine


class Elsewhere(Daemon):
    """A daemon in a network namespace of its own, reached over a veth pair."""
    count = 0

    def __init__(self, judge, name):
        Elsewhere.count += 1
        ident = f"{os.getpid() % 1000000}{chr(96 + Elsewhere.count)}"
        self.netns, self.outer, self.inner = f"cowt{ident}", f"ct{ident}o", f"ct{ident}i"
        self.net = f"10.{200 + judge.rng.randrange(50)}.{judge.rng.randrange(256)}"
        super().__init__(judge, name)

    def ip(self, *args):
        run("ip", "netns", "exec", self.netns, "ip", *args)

    def make_link(self):
        run("ip", "link", "add", self.outer, "type", "veth", "peer", "name", self.inner, "netns", self.netns)

    def wire(self):
        run("ip", "netns", "add", self.netns)
        self.make_link()
        run("ip", "addr", "add", self.net + ".1/24", "dev", self.outer)
        run("ip", "link", "set", self.outer, "up")
        self.ip("addr", "add", self.net + ".2/24", "dev", self.inner)
        self.ip("link", "set", self.inner, "up")
        self.ip("link", "set", "lo", "up")

    def unwire(self):
        run("ip", "link", "del", self.outer, check=False)
        run("ip", "netns", "del", self.netns, check=False)

    def slow_down(self, rate):
        run("ip", "netns", "exec", self.netns, "tc", "qdisc", "replace", "dev", self.inner, "root", "tbf",
            "rate", rate, "burst", "64k", "latency", "200ms")

    def link(self, state):
        self.ip("link", "set", self.inner, state)

    def start(self, extra=(), seconds=20):
        cmd = ["ip", "netns", "exec", self.netns, program("cowtgtd"), "-f", "-p", f"{self.net}.2:{self.port}",
               "-c", self.sock, "-s", self.state, *extra]
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        poll(f"{self.name} daemon ready", self.ready, seconds)
        return self


def open_tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def can_make_taps():
    try:
        os.close(open_tap(f"cowtry{os.getpid() % 1000000}"))
        return True
    except OSError:
        return False


class Bridge(threading.Thread):
    """Carries Ethernet frames between two TAPs; all that is bad about it may change at any time."""
    CLEAN = {
        "delay_s": 0.0,     # each way
        "jitter_s": 0.0,    # up to so much more, decided for each frame: they overtake one another
        "loss": 0.0,        # share of the frames
        "duplicate": 0.0,
        "corrupt": 0.0,     # one bit behind the addresses
        "rate": 0,          # bytes a second, each way
        "queue_bytes": 65536,  # what waits for its turn under a rate; more is lost
        "hole": False,
    }

    def __init__(self, fds, seed):
        super().__init__(daemon=True)
        self.fds, self.rng = fds, random.Random(seed)
        self.waiting, self.serial, self.ended = [], 0, False
        self.free_at = {fd: 0.0 for fd in fds}
        self.frames = self.lost = self.doubled = self.corrupted = self.overtaken = 0
        self.be()

    def be(self, **bad):
        """Clean but for what is named."""
        for name, value in {**self.CLEAN, **bad}.items():
            setattr(self, name, value)

    def take(self, frame, to):
        self.frames += 1
        now = time.monotonic()
        chance = self.rng.random
        if self.hole or chance() < self.loss:
            self.lost += 1
            return
        if chance() < self.corrupt:
            bit = self.rng.randrange(14 * 8, len(frame) * 8)
            frame = bytearray(frame)
            frame[bit // 8] ^= 1 << bit % 8
            self.corrupted += 1
        due = now + self.delay_s + chance() * self.jitter_s
        if self.rate:
            begin = max(now, self.free_at[to])
            if (begin - now) * self.rate > self.queue_bytes:
                self.lost += 1
                return
            self.free_at[to] = begin + len(frame) / self.rate
            due += self.free_at[to] - now
        self.put(due, to, frame)
        if chance() < self.duplicate:
            self.doubled += 1
            self.put(due + 0.001, to, frame)

    def put(self, due, to, frame):
        self.serial += 1
        heapq.heappush(self.waiting, (due, self.serial, to, frame))

    def deliver(self):
        newest = {}
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, serial, to, frame = heapq.heappop(self.waiting)
            self.overtaken += serial < newest.get(to, 0)
            newest[to] = serial
            try:
                os.write(to, frame)
            except OSError:  # an interface that is down, or its queue is full: lost, as on a wire
                self.lost += 1

    def run(self):
        other = {self.fds[0]: self.fds[1], self.fds[1]: self.fds[0]}
        while not self.ended:
            wait = self.waiting[0][0] - time.monotonic() if self.waiting else 0.1
            for fd in select.select(self.fds, [], [], min(max(wait, 0), 0.1))[0]:
                try:
                    for _ in range(64):
                        self.take(os.read(fd, 65536), other[fd])
                except OSError:
                    pass
            self.deliver()
        for fd in self.fds:
            os.close(fd)


class BadlyWired(Elsewhere):
    """Behind a bridge, self.bridge, instead of a veth pair."""

    def make_link(self):
        fds = [open_tap(self.outer), open_tap(self.inner)]
        run("ip", "link", "set", self.inner, "netns", self.netns)
        self.bridge = Bridge(fds, self.judge.seed)
        self.bridge.start()

    def unwire(self):
        self.bridge.ended = True
        self.bridge.join(5)
        run("ip", "netns", "del", self.netns, check=False)
