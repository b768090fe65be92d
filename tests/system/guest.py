# SPDX-License-Identifier: BSD-3-Clause
"""A running Linux guest under QEMU's TCG: boots the image of guestimage.py, runs shell commands in
it, and is gone with its judge. The host is 10.0.2.2 to it. Only one command at a time is under way
on the agent's channel; start() runs more beside it."""
import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cowtest import SLOW, Daemon, Failed, poll
from guestimage import Archive, Image, NoGuest

HOST = "10.0.2.2"
QEMU = "qemu-system-x86_64"


class Result:
    def __init__(self, status, out):
        self.status, self.out = status, out

    @property
    def fine(self):
        return self.status == 0

    def __str__(self):
        return f"status {self.status}: {self.out}"


class Job:
    """A command in the background of the guest."""
    count = 0

    def __init__(self, guest, command):
        Job.count += 1
        self.guest, self.stem = guest, f"/run/job{Job.count}"
        guest.run(f"( {{ {command}\n}} >{self.stem}.out 2>&1; echo $? >{self.stem}.tmp; "
                  f"mv {self.stem}.tmp {self.stem}.status ) &")

    def output(self):
        return self.guest.run(f"tail -c 4000 {self.stem}.out").out

    def ended(self):
        return self.guest.run(f"test -s {self.stem}.status", check=False).fine

    def wait(self, seconds=60):
        poll(f"the end of a command in the guest: {self.stem}", self.ended, seconds, 0.2)
        return Result(int(self.guest.run(f"cat {self.stem}.status").out), self.output())


class Guest:
    def __init__(self, judge, name="guest", memory_mib=512, cpus=1, files=None, qemu=(), image=None,
                 net_options="", prefix=()):
        """@files: more of the initramfs, {"path": bytes}; "start" among them: the guest runs that
        instead of the agent. @qemu: more arguments; @net_options: of the user network;
        @prefix: what runs QEMU. NoGuest where there can't be one."""
        if not shutil.which(QEMU):
            raise NoGuest("qemu-system-x86 is not installed")
        self.judge, self.name = judge, name
        self.image = image or Image().make()
        self.dir = judge.path(name)
        os.makedirs(self.dir)
        self.console = os.path.join(self.dir, "console")
        self.socket_path = os.path.join(self.dir, "agent")
        self.memory_mib, self.cpus, self.extra = memory_mib, cpus, list(qemu)
        self.prefix, self.net_options = list(prefix), net_options
        self.initramfs = self.with_files(files or {})
        self.proc = self.sock = None
        self.buf = b""

    def with_files(self, files):
        """An initramfs may be several archives one after the other."""
        if not files:
            return self.image.initramfs
        path = os.path.join(self.dir, "initramfs.cpio")
        archive = Archive()
        for name, data in files.items():
            archive.file(name, data)
        shutil.copyfile(self.image.initramfs, path)
        with open(path, "ab") as f:
            f.write(archive.bytes())
        return path

    def command(self):
        return [*self.prefix, QEMU, "-M", "q35", "-accel", os.environ.get("COWTGT_ACCEL", "tcg,thread=multi"),
                "-cpu", "max", "-smp", str(self.cpus), "-m", str(self.memory_mib), "-nodefaults",
                "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
                "-serial", f"file:{self.console}",
                "-chardev", f"socket,id=agent,path={self.socket_path},server=on,wait=off",
                "-device", "virtio-serial-pci", "-device",
                "virtserialport,chardev=agent,name=cowtgt.agent",
                "-device", "virtio-rng-pci",
                "-netdev", "user,id=net0" + self.net_options, "-device", "virtio-net-pci,netdev=net0,romfile=",
                "-kernel", self.image.kernel, "-initrd", self.initramfs, "-append",
                "console=ttyS0,115200 quiet panic=-1 mitigations=off tsc=reliable net.ifnames=0",
                *self.extra]

    def launch(self):
        """Switches it on, and does not wait for anything in it."""
        with open(os.path.join(self.dir, "qemu.log"), "wb") as log:
            self.proc = self.judge.spawn(*self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.sock = socket.socket(socket.AF_UNIX)
        poll("QEMU's socket", self.connected, 20)

    def connected(self):
        self.check_alive()
        return self.sock.connect_ex(self.socket_path) == 0  # the file is there before it listens

    def start(self, seconds=90):
        """Boots it and waits until its agent answers."""
        self.launch()
        return self.greet(seconds)

    def greet(self, seconds):
        line = self.read_line(time.monotonic() + seconds * SLOW)
        if not line.startswith("READY"):
            raise Failed(f"the guest's agent says {line!r}")
        return self

    def check_alive(self):
        if self.proc.poll() is not None:
            raise Failed(f"QEMU ended with {self.proc.returncode}: {self.tail('qemu.log')} {self.tail()}")

    def tail(self, name="console", nbytes=1500):
        try:
            with open(os.path.join(self.dir, name), errors="replace") as f:
                return re.sub(r"[\r\0]", "", f.read())[-nbytes:]
        except OSError:
            return ""

    def receive(self, end):
        self.sock.settimeout(max(end - time.monotonic(), 0.01))
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            raise Failed(f"{self.name} does not answer; its console: {self.tail()}") from None
        if not data:
            self.check_alive()
            raise Failed(f"{self.name} is gone; its console: {self.tail()}")
        self.buf += data

    def read_line(self, end):
        while b"\n" not in self.buf:
            self.receive(end)
        line, self.buf = self.buf.split(b"\n", 1)
        return line.decode()

    def run(self, script, check=True, timeout=60):
        """Runs a shell script in the guest; Failed when its status is not 0, unless not @check."""
        self.sock.sendall(base64.b64encode(script.encode()) + b"\n")
        end = time.monotonic() + timeout * SLOW
        status, length = (int(n) for n in self.read_line(end).split())
        while len(self.buf) < length:
            self.receive(end)
        out, self.buf = self.buf[:length].decode(errors="replace"), self.buf[length:]
        if check and status != 0:
            raise Failed(f"in the guest: {script.strip().splitlines()[0]}: status {status}: {out.strip()[-800:]}")
        return Result(status, out)

    def out(self, script, timeout=60):
        return self.run(script, timeout=timeout).out.strip()

    def background(self, command):
        return Job(self, command)

    def until(self, what, script, seconds=30):
        """Waits until @script ends with 0 in the guest; its output."""
        return poll(what, lambda: (lambda r: r.fine and (r.out or True))(self.run(script, check=False)), seconds, 0.1)

    def write_file(self, path, text):
        self.run(f"cat >{path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE")

    def stop(self):
        if self.proc and self.proc.poll() is None:
            self.sock.sendall(b"OFF\n")
            try:
                self.proc.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()


class Initiator(Guest):
    """A guest with open-iscsi at work."""

    def start(self, seconds=90):
        super().start(seconds)
        self.run("iscsid")
        self.until("iscsid", "grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix")
        return self

    def discover(self, daemon):
        return self.out(f"iscsiadm -m discovery -t sendtargets -p {portal(daemon)}")

    def set_node(self, iqn, at, **settings):
        """Values of a node record; __ in a name stands for a dot."""
        for name, value in settings.items():
            name = name.replace("__", ".").replace("conn0", "conn[0]")
            self.run(f"iscsiadm -m node -T {iqn} -p {at} -o update -n '{name}' -v '{value}'")

    def login(self, iqn, at, check=True, timeout=60):
        return self.run(f"iscsiadm -m node -T {iqn} -p {at} --login", check=check, timeout=timeout)

    def logout(self, iqn, at):
        self.run(f"iscsiadm -m node -T {iqn} -p {at} --logout")

    def disk(self, iqn, lun=0, seconds=30):
        """/dev/sdX of a LUN, waited for until the kernel has looked at it."""
        script = f"""for s in /sys/class/iscsi_session/session*; do
            [ "$(cat $s/targetname)" = {iqn} ] || continue
            for b in $s/device/target*/*:{lun}/block/*; do
                [ -b /dev/${{b##*/}} ] && [ "$(cat $b/size)" -gt 0 ] && echo /dev/${{b##*/}} && exit 0
            done
        done; exit 1"""
        return self.until(f"the disk of {iqn} LUN {lun}", script, seconds).split()[0]


def portal(daemon):
    return daemon.advertise or f"{HOST}:{daemon.port}"


def target(judge, name, extra=(), at_port=None):
    """A daemon that tells initiators the address at which the guest reaches it (or @at_port)."""
    d = Daemon(judge, name)
    d.advertise = f"{HOST}:{at_port or d.port}"
    return d.start(extra)
