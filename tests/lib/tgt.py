# SPDX-License-Identifier: BSD-3-Clause
"""Debian's tgtd with one disk, as a source that knows nothing of layers."""
import os

from cowtest import free_port, poll, run

IQN = "iqn.2026-11.com.example:tgt"


class Tgtd:
    iqn, lun = IQN, 1

    def __init__(self, j, image, thin):
        self.number = str(20000 + j.rng.randrange(10000))
        self.port = free_port()
        os.makedirs("/var/run/tgtd", exist_ok=True)
        self.proc = j.spawn("tgtd", "-f", "-C", self.number, "--iscsi", f"portal=127.0.0.1:{self.port}",
                            stdout=-3, stderr=-3)
        poll("tgtd", lambda: self.admin("--op", "show", "--mode", "sys", check=False).returncode == 0, 20)
        self.admin("--op", "new", "--mode", "target", "--tid", 1, "-T", IQN)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", 1, "--lun", 1, "-b", image)
        if thin:
            self.admin("--op", "update", "--mode", "logicalunit", "--tid", 1, "--lun", 1,
                       "--params", "thin_provisioning=1")
        self.admin("--op", "bind", "--mode", "target", "--tid", 1, "-I", "ALL")

    def admin(self, *args, check=True):
        return run("tgtadm", "-C", self.number, "--lld", "iscsi", *args, check=check)

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        for suffix in ("", ".lock"):
            try:
                os.unlink(f"/var/run/tgtd/socket.{self.number}{suffix}")
            except OSError:
                pass
