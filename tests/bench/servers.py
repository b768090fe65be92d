# SPDX-License-Identifier: BSD-3-Clause
"""The servers that the bench compares. Each runs on free ports, is pinned to the first CPU and ends
with the judge that started it; load generators run on the second CPU.

A server has: name, pid, port, client (the load generator to use) and address (its options)."""
import json
import os
import signal
import subprocess

import cowtest
from cowtest import Failed, free_port, listens, poll, program, run
from istgt import IQN as ISTGT_IQN, configure as istgt_configure
from tgt import IQN as TGT_IQN, Tgtd

IQN = "iqn.2026-11.com.example:bench"
SERVER_CPU, CLIENT_CPU = "0", "1"
TWO_CPUS = (os.cpu_count() or 1) > 1


def pinned(cpu, cmd):
    return ["taskset", "-c", cpu, *cmd] if TWO_CPUS else list(cmd)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    """Its own memory, without what it maps of files: that is the page cache's."""
    with open(f"/proc/{pid}/statm") as f:
        resident, of_files = (int(n) for n in f.read().split()[1:3])
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")


class Server:
    client, proc = "load", None

    def __init__(self, name):
        self.name, self.port = name, free_port()

    @property
    def pid(self):
        return self.proc.pid

    def pin(self):
        if TWO_CPUS:
            run("taskset", "-a", "-p", "-c", SERVER_CPU, self.pid)
        return self

    def spawn(self, judge, *cmd):
        with open(judge.path(f"{self.name.replace(' ', '-')}.log"), "wb") as log:
            self.proc = judge.spawn(*pinned(SERVER_CPU, [str(c) for c in cmd]), stdout=log, stderr=log)

        def up():
            if self.proc.poll() is not None:
                with open(log.name, errors="replace") as f:
                    raise Failed(f"{self.name} ended with {self.proc.returncode}: {f.read()[-500:]}")
            return listens(self.port)
        poll(self.name, up)

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(60)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()


class Cowtgt(Server):
    """One LUN of one of our daemons; several can share a daemon."""

    def __init__(self, judge, name, image, *extra, aio=None, daemon=None):
        self.name = name
        tag = name.replace(" ", "-").replace("_", "-")
        self.daemon = daemon or judge.daemon(tag, ["--aio", aio] if aio else ())
        self.proc, self.port, self.chain = self.daemon.proc, self.daemon.port, tag
        self.daemon.ctl("chain", "export", tag, image, "--target", f"{IQN}-{tag}", *extra)
        self.address = ["-n", f"{IQN}-{tag}", "-l", "0"]
        self.pin()

    def stop(self):
        self.daemon.stop()

    def remove(self):
        self.daemon.ctl("chain", "remove", self.chain)


class Tgt(Server):
    """Debian's tgtd, as it comes or with its burst and segment sizes raised towards ours."""

    def __init__(self, judge, name, image, tuned=False, thin=False):
        self.name = name
        self.tgtd = Tgtd(judge, image, thin)
        self.proc, self.port = self.tgtd.proc, self.tgtd.port
        self.address = ["-n", TGT_IQN, "-l", "1"]
        if tuned:
            # Not MaxRecvDataSegmentLength: tgtd 1.0.85 then drops a login that names no value of
            # its own in the security stage.
            for key, value in (("FirstBurstLength", 262144), ("MaxBurstLength", 1048576),
                               ("InitialR2T", "No"), ("MaxXmitDataSegmentLength", 262144)):
                self.tgtd.admin("--op", "update", "--mode", "target", "--tid", "1", "-n", key, "-v", value)
        self.pin()

    def stop(self):
        self.tgtd.kill()


class Istgt(Server):
    def __init__(self, judge, name, image):
        super().__init__(name)
        self.address = ["-n", ISTGT_IQN, "-l", "0"]
        self.spawn(judge, "istgt", "-D", "-c", istgt_configure(judge, self.port, image))


class Floor(Server):
    """tests/bench/floor.c."""

    def __init__(self, judge, name, *disk):
        super().__init__(name)
        self.address = ["-n", IQN, "-l", "0"]
        self.spawn(judge, program("floor"), "-p", self.port, *disk)


class QemuNbd(Server):
    client, address = "load-nbd", []

    def __init__(self, judge, name, image, fmt, *extra):
        super().__init__(name)
        self.spawn(judge, "qemu-nbd", "-t", "-b", "127.0.0.1", "-p", self.port, "-f", fmt, *extra, image)


class StorageDaemon(Server):
    client, address = "load-nbd", ["-n", "disk"]

    def __init__(self, judge, name, image, aio):
        super().__init__(name)
        direct = "on" if aio == "native" else "off"
        self.spawn(judge, "qemu-storage-daemon",
                   "--blockdev", f"driver=file,node-name=disk,filename={image},aio={aio},cache.direct={direct}",
                   "--nbd-server", f"addr.type=inet,addr.host=127.0.0.1,addr.port={self.port}",
                   "--export", "type=nbd,id=disk,node-name=disk,writable=on,name=disk")


class Nbdkit(Server):
    client, address = "load-nbd", []

    def __init__(self, judge, name, image):
        super().__init__(name)
        self.spawn(judge, "nbdkit", "-f", "-i", "127.0.0.1", "-p", self.port, "file", image)


def load_command(server, args, client=None):
    return pinned(CLIENT_CPU, [program(client or server.client), "-t", f"127.0.0.1:{server.port}",
                               *server.address, *[str(a) for a in args]])


def load(server, args, client=None, before=()):
    """Runs a load generator against @server; what it says, and the server's CPU for it."""
    cmd = [*before, *load_command(server, args, client)]
    began = cpu_seconds(server.pid)
    p = subprocess.run(cmd, capture_output=True, text=True, timeout=300 * cowtest.SLOW)
    if p.returncode:
        raise Failed(f"{server.name}: {' '.join(cmd)}: {p.stderr.strip() or p.stdout.strip()}")
    result = json.loads(p.stdout)
    result["server_cpu_s"] = cpu_seconds(server.pid) - began
    result["cpu_100k"] = result["server_cpu_s"] * 1e5 / max(result["ios"], 1)
    result["said"] = p.stderr
    return result


def syscalls_per_io(server, args):
    """By perf, over all threads of the server while the load generator runs; None without perf."""
    if not cowtest.have("perf"):
        return None
    try:
        result = load(server, args, before=["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter",
                                            "-p", str(server.pid), "--"])
    except Failed:
        return None  # not allowed here
    for line in result["said"].splitlines():
        if "sys_enter" in line and line.split(",")[0].isdigit():
            return int(line.split(",")[0]) / max(result["ios"], 1)
    return None
