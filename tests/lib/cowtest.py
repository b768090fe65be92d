# SPDX-License-Identifier: BSD-3-Clause
"""What the judges share: daemons on free loopback ports, a QMP client, checks, clean-up.

A judge prints one line a check ("ok - ...", "not ok - ...", "skip - ...") and exits 0 only when
no check failed. Everything it makes lies in one temporary directory, which goes away at the end;
it ends only processes that it started.
"""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("COWTGT_BUILD", TOP)
SLOW = float(os.environ.get("COWTGT_SLOW", "1"))  # > 1 where the programs are instrumented
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SANITIZER = re.compile(r"(ERROR|WARNING): \w*Sanitizer|runtime error:|SUMMARY: \w*Sanitizer")


class Failed(Exception):
    """The judge can't go on."""


def program(name):
    """Path of a program of the build tree."""
    for sub in ("", "admin", "tests/tools", "tests/bench", "tests/crash", "tests/crash/chains"):
        path = os.path.join(BUILD, sub, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise Failed(f"{name} is not built in {BUILD}: run make && make check-programs")


def have(tool):
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    """Without a connection, which a server may take badly."""
    want = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as f:
            if any(l.split()[1].endswith(want) and l.split()[3] == "0A" for l in f.readlines()[1:]):
                return True
    return False


def run(*cmd, check=True, timeout=120, **kw):
    """Runs a command, output captured as text; raises Failed with its output if it fails."""
    cmd = [str(c) for c in cmd]
    try:
        p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           errors="replace", timeout=timeout * SLOW, **kw)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{' '.join(cmd)}: no end after {timeout * SLOW:.0f} s") from e
    if check and p.returncode != 0:
        raise Failed(f"{' '.join(cmd)}: exit {p.returncode}: {(p.stderr or p.stdout).strip()[-600:]}")
    return p


def poll(what, fn, seconds=20.0, every=0.02):
    """Waits until fn() is true and returns its value; Failed after the limit."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = fn()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds * SLOW:.0f} s")
        time.sleep(every)


class QmpError(Exception):
    def __init__(self, err):
        super().__init__(f"{err.get('class')}: {err.get('desc')}")
        self.cls, self.desc = err.get("class"), err.get("desc")


class Qmp:
    """A client of the control socket. Events are kept in self.events as they come."""

    def __init__(self, path, negotiate=True, timeout=20.0):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout * SLOW)
        self.sock.connect(path)
        self.buf, self.events, self.next_id = "", [], 1
        self.decoder = json.JSONDecoder()
        self.greeting = self.read_value()
        if negotiate:
            self.execute("qmp_capabilities")

    def read_value(self):
        while True:
            text = self.buf.lstrip()
            if text:
                try:
                    value, end = self.decoder.raw_decode(text)
                    self.buf = text[end:]
                    return value
                except json.JSONDecodeError:
                    pass
            data = self.sock.recv(65536)
            if not data:
                raise EOFError("control socket closed")
            self.buf += data.decode()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")

    def execute(self, command, **arguments):
        ident = self.next_id
        self.next_id += 1
        self.send({"execute": command, "id": ident,
                   "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
        while True:
            value = self.read_value()
            if "event" in value:
                self.events.append(value)
            elif value.get("id") == ident:
                if "error" in value:
                    raise QmpError(value["error"])
                return value["return"]

    def pump(self, seconds):
        """Reads what comes for at most @seconds; true if anything came."""
        self.sock.settimeout(max(seconds, 0.001))
        try:
            value = self.read_value()
        except socket.timeout:
            return False
        finally:
            self.sock.settimeout(20.0 * SLOW)
        if "event" in value:
            self.events.append(value)
        return True

    def wait_event(self, name, seconds=30.0):
        end = time.monotonic() + seconds * SLOW
        while not any(e["event"] == name for e in self.events):
            left = end - time.monotonic()
            if left <= 0:
                raise Failed(f"no event {name} within {seconds * SLOW:.0f} s")
            self.pump(min(left, 0.5))
        return next(e for e in self.events if e["event"] == name)

    def close(self):
        self.sock.close()


class Daemon:
    """One cowtgtd with a port, control socket and state directory of its own."""

    def __init__(self, judge, name):
        self.judge, self.name = judge, name
        self.dir = os.path.join(judge.tmp, name)
        os.makedirs(self.dir)
        self.sock = os.path.join(self.dir, "control.sock")
        self.state = os.path.join(self.dir, "state")
        self.log = os.path.join(self.dir, "log")
        self.port = free_port()
        self.advertise = ""  # what SendTargets answers instead of the portal: "HOST:PORT"
        self.proc = None
        judge.daemons.append(self)

    def start(self, extra=(), seconds=20):
        portal = f"127.0.0.1:{self.port}" + (f",advertise={self.advertise}" if self.advertise else "")
        cmd = [program("cowtgtd"), "-f", "-p", portal, "-c", self.sock, "-s", self.state, *extra]
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        poll(f"{self.name} daemon ready", self.ready, seconds)
        return self

    def ready(self):
        if self.proc.poll() is not None:
            raise Failed(f"{self.name} daemon ended with {self.proc.returncode}: {self.log_tail()}")
        try:
            Qmp(self.sock, negotiate=False, timeout=5).close()
            return True
        except (OSError, EOFError):
            return False

    def alive(self):
        return self.proc is not None and self.proc.poll() is None

    def kill9(self):
        self.proc.kill()
        self.proc.wait()

    def stop(self, seconds=20):
        """Orderly end; returns the exit status (None: it had to be killed)."""
        if not self.alive():
            return self.proc.returncode if self.proc else 0
        self.proc.send_signal(signal.SIGCONT)
        self.proc.terminate()
        try:
            return self.proc.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.kill9()
            return None

    def ctl(self, *args, check=True, timeout=120):
        return run(program("cowtgt"), "-c", self.sock, *args, check=check, timeout=timeout)

    def qmp(self):
        return Qmp(self.sock)

    def execute(self, command, **arguments):
        q = self.qmp()
        try:
            return q.execute(command, **arguments)
        finally:
            q.close()

    def url(self, iqn, lun):
        return f"iscsi://127.0.0.1:{self.port}/{iqn}/{lun}"

    def progress(self):
        """(bytes done, bytes in all) of the only block job, or None when there is none."""
        jobs = self.execute("query-block-jobs")
        return (jobs[0]["offset"], jobs[0]["len"]) if jobs else None

    def log_text(self):
        try:
            with open(self.log, errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def log_tail(self, nbytes=1500):
        return self.log_text()[-nbytes:].strip()


def first_seed(name):
    """COWTGT_SEED; else always the same in CI, so that what turns red there is the change. A full run hunts."""
    asked = os.environ.get("COWTGT_SEED", "")
    if asked == "random" or (not asked and os.environ.get("COWTGT_SIZE") == "full"):
        return random.SystemRandom().randrange(1 << 31)
    return int(asked) if asked else zlib.crc32(name.encode()) >> 1


class Judge:
    """with Judge() as j: j.check(...). Ends the process when the block ends."""

    def __init__(self):
        self.name = os.path.basename(sys.argv[0])
        self.failed = self.passed = self.skipped = 0
        self.daemons, self.procs = [], []
        self.fast = os.environ.get("COWTGT_FAST", "") not in ("", "0")
        self.keep = os.environ.get("COWTGT_KEEP", "") not in ("", "0")
        self.seed = first_seed(self.name)
        self.rng = random.Random(self.seed)
        self.tmp = tempfile.mkdtemp(prefix=f"cowtgt-{self.name}-")

    def say(self, text):
        print(f"# {text}", flush=True)

    def ok(self, what):
        self.passed += 1
        print(f"ok - {self.name}: {what}", flush=True)

    def not_ok(self, what, detail=""):
        self.failed += 1
        print(f"not ok - {self.name}: {what}", flush=True)
        for line in str(detail).strip().splitlines()[-25:]:
            print(f"#     {line}", flush=True)

    def skip(self, why):
        self.skipped += 1
        print(f"skip - {self.name}: {why}", flush=True)

    def check(self, cond, what, detail=""):
        if cond:
            self.ok(what)
        else:
            self.not_ok(what, detail() if callable(detail) else detail)
        return bool(cond)

    def require(self, cond, what, detail=""):
        if not self.check(cond, what, detail):
            raise Failed(f"can't go on without: {what}")

    def attempt(self, what, fn, *args, **kw):
        """A check that holds when fn() does not raise; returns fn()'s value or None."""
        try:
            value = fn(*args, **kw)
        except (Failed, QmpError, OSError, EOFError, AssertionError) as e:
            self.not_ok(what, e)
            return None
        self.ok(what)
        return value

    def daemon(self, name, extra=()):
        return Daemon(self, name).start(extra)

    def path(self, *names):
        return os.path.join(self.tmp, *names)

    def spawn(self, *cmd, **kw):
        p = subprocess.Popen([str(c) for c in cmd], **kw)
        self.procs.append(p)
        return p

    def __enter__(self):
        return self

    def clean_up(self):
        for p in self.procs:
            if p.poll() is None:
                p.kill()
                p.wait()
        for d in self.daemons:
            if d.proc is None:
                continue
            died = d.proc.poll()
            if died is not None and died not in (0, -signal.SIGKILL):
                self.not_ok(f"the {d.name} daemon lived to the end", f"{died}: {d.log_tail()}")
            elif died is None:
                code = d.stop()
                if code != 0:
                    self.not_ok(f"the {d.name} daemon ends on SIGTERM with 0",
                                f"got {code}: {d.log_tail()}")
            found = SANITIZER.search(d.log_text())
            if found:
                text = d.log_text()
                self.not_ok(f"no sanitizer report from the {d.name} daemon",
                            text[max(found.start() - 100, 0):found.start() + 3000])

    def __exit__(self, kind, value, trace):
        if kind is not None and not issubclass(kind, SystemExit):
            text = str(value) if kind is Failed else "".join(
                traceback.format_exception(kind, value, trace))
            self.not_ok("ran to its end", text)
            for d in self.daemons:
                if d.proc is not None:
                    self.say(f"log of {d.name}: ... {d.log_tail()}".replace("\n", "\n# "))
        self.clean_up()
        if self.keep or (self.failed and os.environ.get("COWTGT_KEEP_FAILED")):
            self.say(f"kept: {self.tmp}")
        else:
            shutil.rmtree(self.tmp, ignore_errors=True)
        sys.exit(1 if self.failed else 0)


# ---- images -----------------------------------------------------------------------------------

def qemu_img(*args, **kw):
    return run("qemu-img", *args, **kw)


def qemu_io(image, commands, fmt="qcow2", read_only=False):
    """Commands for one qemu-io, one a line; any that fails is an error."""
    out = run("qemu-io", *(["-r"] if read_only else []), "-f", fmt, image, input="\n".join(commands) + "\nquit\n").stdout
    bad = [l for l in out.splitlines() if "failed" in l or "rror" in l]
    if bad:
        raise Failed(f"qemu-io on {image}: {bad[0]}")
    return out


def virtual_size(image, fmt=None):
    args = ["-f", fmt] if fmt else []
    return json.loads(qemu_img("info", "--output=json", *args, image).stdout)["virtual-size"]


def no_backing(image):
    """A qcow2 image as a file name that shows this layer alone."""
    return "json:" + json.dumps({"driver": "qcow2", "backing": None,
                                 "file": {"driver": "file", "filename": image}})


def identical(a, a_fmt, b, b_fmt):
    """qemu-img compare: (same?, what it said)."""
    a_args = ["-f", a_fmt] if a_fmt else []
    b_args = ["-F", b_fmt] if b_fmt else []
    p = qemu_img("compare", *a_args, *b_args, a, b, check=False, timeout=240)
    return p.returncode == 0, (p.stdout + p.stderr).strip()


def check_image(image):
    """qemu-img check of one layer without its backing: (clean?, what it said)."""
    p = qemu_img("check", no_backing(image), check=False)
    return p.returncode == 0 and "No errors were found" in p.stdout, (p.stdout + p.stderr).strip()
