# SPDX-License-Identifier: BSD-3-Clause
"""A machine of namespaces: processes, /srv, /run and what else is named are its own, and end with it; its
network is that of its host (twohosts.py), or this one's. Needs root."""
import os
import subprocess

from cowtest import Failed, have


def impossible():
    """Why there can't be such machines here, or None."""
    if os.geteuid() != 0:
        return "namespaces need root"
    return next((f"{t} is not installed" for t in ("nsenter", "unshare") if not have(t)), None)


class Machine:
    FOLDERS = ("/srv", "/run", "/var/lib/cowtgt")

    def __init__(self, judge, name, host=None, bin_dir=None, folders=()):
        """@bin_dir: programs that come before those of the system; @folders: empty ones besides FOLDERS."""
        self.judge, self.name = judge, name
        self.path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self.programs = f"{bin_dir}:{self.path}" if bin_dir else self.path
        script = f"""set -e
            for d in {' '.join([*self.FOLDERS, *folders])}; do mkdir -p $d; mount -t tmpfs -o mode=755 tmpfs $d; done
            mkdir /srv/images; echo up; while :; do sleep 1000; done"""  # a shell: it takes leave of the dead
        self.proc = judge.spawn(*(host.enter if host else []), "unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child",
                                "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = self.proc.stdout.readline()
        if said != "up\n":
            raise Failed(f"no machine {name}: {said}{self.proc.stdout.read()}")
        path = f"/proc/{self.proc.pid}/task/{self.proc.pid}/children"
        with open(path) as f:
            self.pid = f.read().split()[0]
        self.enter = ["nsenter", "-t", self.pid, "-m", "-p", "-n"]

    def run(self, text, timeout=300, programs=None):
        """Runs shell commands there: (exit status of the whole, ended by the first that fails; output)."""
        log = self.judge.path(self.name + ".said")
        with open(log, "wb") as out:  # a file: daemons keep it open, and nobody waits for them
            p = subprocess.Popen([*self.enter, "bash", "-ec", text], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                 cwd="/", env={"PATH": programs or self.programs, "HOME": "/root", "LC_ALL": "C"})
            try:
                code = p.wait(timeout)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
                code = "no end"
        with open(log, errors="replace") as f:
            return code, f.read()[-3000:]

    def put(self, path, name):
        with open(path, "rb") as f:
            subprocess.run([*self.enter, "cp", "--sparse=always", "/dev/stdin", name], stdin=f, check=True)

    def end(self):
        self.proc.kill()
        self.proc.wait()
