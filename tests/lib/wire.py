# SPDX-License-Identifier: BSD-3-Clause
"""A relay in front of a target that counts what goes over the wire and can be cut."""
import selectors
import socket
import threading


class Wire:
    """Relays connections to 127.0.0.1:@port from a free port of its own; `received` is what came
    from the target, all protocol with it."""

    def __init__(self, port):
        self.to = port
        self.received = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.peer = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.running = True
        threading.Thread(target=self._run, daemon=True).start()

    def close(self):
        self.running = False

    def _drop(self, s):
        for one in (s, self.peer.pop(s, None)):
            if one is not None:
                self.peer.pop(one, None)
                try:
                    self.selector.unregister(one)
                except (KeyError, ValueError):
                    pass
                one.close()

    def _accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.to), timeout=5)
        except OSError:
            near.close()
            return
        for a, b in ((near, far), (far, near)):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            a.settimeout(30)
            self.peer[a] = b
            self.selector.register(a, selectors.EVENT_READ, "far" if a is far else "near")

    def _pass_on(self, s, side):
        if s not in self.peer:
            return
        try:
            data = s.recv(1 << 18)
            if data:
                self.peer[s].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(s)
        elif side == "far":
            self.received += len(data)

    def _run(self):
        while self.running:
            for key, _ in self.selector.select(0.2):
                if key.fileobj is self.listener:
                    self._accept()
                else:
                    self._pass_on(key.fileobj, key.data)
        for s in list(self.peer):
            self._drop(s)
        self.listener.close()
