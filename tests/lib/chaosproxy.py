# SPDX-License-Identifier: BSD-3-Clause
"""A TCP proxy that makes a link bad on purpose, changeable while it runs: delay, rate, cut, black
hole, refusal, bits flipped in iSCSI PDUs. Bytes come in order and whole, unless bits are flipped."""
import queue
import socket
import struct
import threading
import time

CHUNK = 16384


class Session:
    """What the two directions of a connection have to know of each other."""

    def __init__(self, proxy):
        self.header_digest = 4 if proxy.header_digest else 0
        self.data_digest = 4 if proxy.data_digest else 0
        self.full_feature = False


class Framer:
    """Cuts a stream of PDUs into (part, bytes): "header" and "data" (with their digests), "login"."""

    def __init__(self, session):
        self.session, self.buf, self.data_left = session, b"", 0

    def feed(self, data):
        self.buf += data
        while self.buf:
            if self.data_left:
                part, self.buf = self.buf[:self.data_left], self.buf[self.data_left:]
                self.data_left -= len(part)
                yield "data", part
                continue
            if len(self.buf) < 48:
                return
            full = self.session.full_feature
            size = 48 + 4 * self.buf[4] + (self.session.header_digest if full else 0)
            if len(self.buf) < size:
                return
            head, self.buf = self.buf[:size], self.buf[size:]
            length = struct.unpack(">I", b"\0" + head[5:8])[0]
            self.data_left = length + -length % 4 + (self.session.data_digest if full and length else 0)
            yield "header" if full else "login", head
            # the last login response: T, next stage full feature, status 0
            if head[0] & 0x3f == 0x23 and head[1] & 0x83 == 0x83 and head[36] == 0:
                self.session.full_feature = True


class Link:
    """One connection: a pump for each direction, each a reader and a writer."""

    def __init__(self, proxy, near):
        self.proxy, self.near = proxy, near
        self.far = socket.create_connection(proxy.to, 10)
        self.dead = False
        for s in (near, self.far):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(proxy)
        self.start(near, self.far, Framer(session), "up")
        self.start(self.far, near, Framer(session), "down")

    def start(self, source, sink, framer, direction):
        waiting = queue.Queue(256)
        for fn, args in ((self.read, (source, waiting, framer, direction)), (self.write, (sink, waiting))):
            threading.Thread(target=fn, args=args, daemon=True).start()

    def close(self):
        self.dead = True
        for s in (self.near, self.far):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def read(self, source, waiting, framer, direction):
        p = self.proxy
        try:
            while not self.dead:
                data = source.recv(CHUNK)
                if not data:
                    break
                data = b"".join(p.maybe_flip(direction, kind, part) for kind, part in framer.feed(data))
                due = time.monotonic() + p.delay_s
                while not self.dead:
                    try:
                        waiting.put((due, data), timeout=0.2)
                        break
                    except queue.Full:
                        pass
        except OSError:
            pass
        self.close()

    def write(self, sink, waiting):
        p = self.proxy
        try:
            while not self.dead:
                try:
                    due, data = waiting.get(timeout=0.2)
                except queue.Empty:
                    continue
                time.sleep(max(due - time.monotonic(), 0))
                while p.hole and not self.dead:
                    time.sleep(0.02)
                if p.rate:
                    p.take_turn(len(data))
                sink.sendall(data)
                p.passed += len(data)
        except OSError:
            pass
        self.close()


class ChaosProxy:
    """Listens on self.port for @to (host, port); the digests: what the two will agree on."""

    def __init__(self, to, header_digest=False, data_digest=False):
        self.to, self.header_digest, self.data_digest = to, header_digest, data_digest
        self.delay_s = 0.0      # each way
        self.rate = 0           # bytes a second, both ways and all connections together
        self.hole = False       # nothing comes through, nothing is closed
        self.refuse = False     # new connections are closed at once
        self.flip = {}          # ("up" or "down", "header" or "data"): one bit in one of so many parts
        self.flips = self.passed = self.accepted = self.parts = 0
        self.links, self.lock, self.free_at = [], threading.Lock(), 0.0
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                if self.refuse:
                    near.close()
                else:
                    link = Link(self, near)
                    self.links = [l for l in self.links if not l.dead] + [link]
            except OSError:
                near.close()

    def take_turn(self, n):
        with self.lock:
            now = time.monotonic()
            self.free_at = max(self.free_at, now) + n / self.rate
            wait = self.free_at - now
        time.sleep(wait)

    def maybe_flip(self, direction, kind, part):
        every = self.flip.get((direction, kind))
        if not every:
            return part
        self.parts += 1
        if self.parts % every:
            return part
        self.flips += 1
        bit = (self.parts * 2654435761) % (8 * len(part))
        part = bytearray(part)
        part[bit // 8] ^= 1 << bit % 8
        return bytes(part)

    def cut(self):
        """All connections end now; how many there were."""
        gone = [l for l in self.links if not l.dead]
        for l in gone:
            l.close()
        return len(gone)

    def close(self):
        self.listener.close()
        self.cut()
