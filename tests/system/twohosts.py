# SPDX-License-Identifier: BSD-3-Clause
"""Two hosts on one machine: network namespaces joined by veth pairs, eth0 and eth1 at both, that can
be slow and down. The namespaces have names with the process id, so that several tests can run at
once."""
import os
import subprocess
import time

from cowtest import Daemon, have, poll, program, run


def impossible():
    """Why there can't be two hosts here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if not have(tool):
            return f"{tool} is not installed (package iproute2)"
    name = f"cowtry{os.getpid()}"
    if (p := run("ip", "netns", "add", name, check=False)).returncode != 0:
        return f"no network namespaces: {p.stderr.strip()}"
    run("ip", "netns", "del", name, check=False)
    return None


class Host:
    """One of them; what it runs is started with @enter before it."""

    def __init__(self, judge, name, address):
        self.judge, self.name, self.address = judge, name, address
        self.netns, self.links = f"cow{name[:3]}{os.getpid()}", ("eth0", "eth1")
        self.enter = ["ip", "netns", "exec", self.netns]

    def ip(self, *args):
        run("ip", "-n", self.netns, *args)

    def up(self):
        """10.0.0.N on eth0, 10.0.1.N on eth1."""
        for number, link in enumerate(self.links):
            self.ip("addr", "add", self.address.replace("10.0.0", f"10.0.{number}") + "/24", "dev", link)
            self.ip("link", "set", link, "up")
        self.ip("link", "set", "lo", "up")

    def slow_down(self, rate):
        run(*self.enter, "tc", "qdisc", "replace", "dev", self.links[0], "root", "tbf", "rate", rate, "burst", "64k",
            "latency", "100ms")

    def link_down(self, seconds):
        self.ip("link", "set", self.links[0], "down")
        time.sleep(seconds)
        self.ip("link", "set", self.links[0], "up")

    def daemon(self, portals, extra=()):
        return HostDaemon(self, portals).start(extra)


class HostDaemon(Daemon):
    def __init__(self, host, portals):
        super().__init__(host.judge, host.name)
        self.host, self.portals, self.port = host, portals, 3260

    def start(self, extra=(), seconds=20):
        cmd = [*self.host.enter, program("cowtgtd"), "-f", "-c", self.sock, "-s", self.state, *extra]
        for portal in self.portals:
            cmd += ["-p", portal]
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        poll(f"{self.name} daemon ready", self.ready, seconds)
        return self


class TwoHosts:
    """with TwoHosts(judge) as (source, destination)."""

    def __init__(self, judge):
        self.hosts = [Host(judge, "source", "10.0.0.1"), Host(judge, "destination", "10.0.0.2")]

    def __enter__(self):
        a, b = self.hosts
        for host in self.hosts:
            run("ip", "netns", "add", host.netns)
        for link in a.links:
            run("ip", "link", "add", link, "netns", a.netns, "type", "veth", "peer", "name", link, "netns", b.netns)
        for host in self.hosts:
            host.up()
        return self.hosts

    def __exit__(self, *_):
        for host in self.hosts:
            run("ip", "netns", "del", host.netns, check=False)
