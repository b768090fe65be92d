# SPDX-License-Identifier: BSD-3-Clause
"""A name server we didn't write: open-isns's isnsd, on a free port of the loopback."""
import os
import re

from cowtest import Failed, free_port, poll, run

IQN = "iqn.2026-11.com.example:isns-"   # targets begin so,
HOST = "iqn.2026-11.com.example:host-"  # and initiators so


class Server:
    """One isnsd with a data base of its own; at @port, where another one was, it knows nothing."""

    def __init__(self, j, name, port=None):
        self.j, self.port, self.dir = j, port or free_port(), j.path(name)
        os.makedirs(os.path.join(self.dir, "db"))
        self.config = self.write("isnsd.conf", "iqn.2026-11.com.example:server",
                                 f"Database = {self.dir}/db\nDefaultDiscoveryDomain = 1\n"
                                 f"PIDFile = {self.dir}/pid\nBindAddress = 127.0.0.1:{self.port}\n")
        self.admin = self.write("admin.conf", "iqn.2026-11.com.example:admin")
        self.start()

    def write(self, name, source, more=""):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(f"SourceName = {source}\nServerAddress = 127.0.0.1:{self.port}\nSecurity = 0\n"
                    f"ControlSocket = {self.dir}/control\n{more}")
        return path

    def start(self):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.proc = self.j.spawn("isnsd", "-f", "-c", self.config, stdout=log, stderr=log)
        poll("isnsd", self.answers)

    def answers(self):
        """Its control socket may drop who comes, and isnsadm then tries for a minute."""
        try:
            run("isnsadm", "-c", self.admin, "--local", "--list", "nodes", timeout=5)
            return True
        except Failed:
            return False

    def stop(self):
        self.proc.kill()
        self.proc.wait()

    def list(self, what):
        return run("isnsadm", "-c", self.admin, "--local", "--list", what, check=False).stdout

    def targets(self):
        return sorted(re.findall(r'"' + IQN + r'(\w+)"', self.list("nodes")))

    def add_host(self, name, initiator=None):
        initiator = initiator or HOST + name
        conf = self.write(f"{name}.conf", initiator)
        run("isnsadm", "-c", conf, "--register", f"entity={name}", f"initiator={initiator}")
