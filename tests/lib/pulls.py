# SPDX-License-Identifier: BSD-3-Clause
"""A pull set up for judging: source and destination daemons, a chain with enough data, a verifying
writer on the pulled disk, and the judgement of what is left when the source is gone."""
import json
import os
import subprocess

from chains import describe, make_chain
from cowtest import (Failed, MIB, QmpError, check_image, identical, poll, program, qemu_img, qemu_io,
                     run)

SOURCE_IQN = "iqn.2026-11.com.example:vm1"
LOCAL_IQN = "iqn.2026-11.com.example:vm1-local"


class Writer:
    """verify-writer in the background; its model survives restarts of the daemon."""

    def __init__(self, judge, url, base, seed, name="writer", args=()):
        self.judge, self.base = judge, base
        self.model = judge.path(name + ".model")
        self.stop_file = judge.path(name + ".stop")
        self.ready_file = judge.path(name + ".ready")
        self.log = judge.path(name + ".log")
        with open(self.log, "wb") as log:
            self.proc = judge.spawn(
                program("verify-writer"), "run", "--model", self.model, "--base", base, "--seed", seed,
                "--seconds", "3600", "--stop-file", self.stop_file, "--ready-file", self.ready_file,
                "--reconnect", "60", *args, url, stdout=log, stderr=log)
        poll("the verifying writer at work", self.at_work, 30)

    def at_work(self):
        if self.proc.poll() is not None:
            raise Failed("verify-writer ended early: " + self.said())
        return os.path.exists(self.ready_file)

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()[-1500:]

    def stop(self):
        """Ends it after a last full read; (found nothing wrong?, what it said)."""
        with open(self.stop_file, "w"):
            pass
        try:
            code = self.proc.wait(180)
        except subprocess.TimeoutExpired:
            return False, "verify-writer does not end: " + self.said()
        return code == 0, self.said()

    def expected(self, out):
        run(program("verify-writer"), "expect", "--model", self.model, "--base", self.base, "--out", out)
        return out


class Pull:
    def __init__(self, judge, size_mib=64, depth=3, data_mib=24, piece_kib=0, layers=None, name=""):
        """@piece_kib: so much data in every MiB, for steady progress, instead of @data_mib. @layers:
        this chain, as it is. @name: before those of files, where a judge has several of these."""
        self.j = judge
        self.layers = layers or make_chain(judge.rng, judge.path("chain"), depth, size=size_mib * MIB)
        top = self.layers[-1]
        rng = judge.rng
        if layers:
            cmds = []
        elif piece_kib:
            cmds = [f"write -P {rng.randint(1, 255)} {i * MIB} {piece_kib}k" for i in range(top.size // MIB)]
        else:
            cmds = [f"write -P {rng.randint(1, 255)} {rng.randrange(top.size // MIB - 1) * MIB} 1M"
                    for _ in range(data_mib)]
        if cmds:
            qemu_io(top.path, cmds)
        self.base = judge.path(name + "base.raw")
        qemu_img("convert", "-O", "raw", top.path, self.base)
        judge.say(f"source chain: {describe(self.layers)}")
        self.src = judge.daemon(name + "source")
        self.src.ctl("chain", "export", "vm1", top.path, "--target", SOURCE_IQN)
        self.dst = judge.daemon(name + "destination")
        self.into = judge.path(name + "into")
        os.makedirs(self.into)
        self.overlay = os.path.join(self.into, "vm1.qcow2")
        self.url = self.dst.url(LOCAL_IQN, 0)

    def source_url(self, lun=None):
        return f"iscsi://127.0.0.1:{self.src.port}/{SOURCE_IQN}" + ("" if lun is None else f"/{lun}")

    def pull(self, *args, check=True):
        return self.dst.ctl("chain", "pull", "vm1", self.source_url(), "--into", self.into,
                            "--target", LOCAL_IQN, *args, check=check)

    def percent(self):
        """Progress of the stream, None when there is no job."""
        p = self.dst.progress()
        return None if p is None else 100.0 * p[0] / max(p[1], 1)

    def set_speed(self, speed):
        jobs = self.dst.execute("query-block-jobs")
        if jobs:
            try:
                self.dst.execute("block-job-set-speed", device=jobs[0]["device"], speed=speed)
            except QmpError as e:
                if e.cls != "DeviceNotActive" and "'pending'" not in e.desc:  # it ended just now
                    raise

    def wait_done(self, seconds=120):
        poll("the stream's end", lambda: self.dst.alive() and self.dst.progress() is None, seconds, 0.05)

    def backing(self):
        info = json.loads(qemu_img("info", "-U", "--output=json", self.overlay).stdout)
        return info.get("backing-filename"), info.get("backing-filename-format")

    def judge_half_streamed(self):
        """The image as it is on disk at this moment: never wrong, leaks at most."""
        copy = self.j.path("half.qcow2")
        qemu_img_copy = run("cp", "--sparse=always", self.overlay, copy)
        image = "json:" + json.dumps({"driver": "qcow2", "backing": None,
                                      "file": {"driver": "file", "filename": copy}})
        p = run("qemu-img", "check", image, check=False)
        os.unlink(copy)
        return qemu_img_copy.returncode == 0 and p.returncode in (0, 3), p.stdout + p.stderr

    def judge_result(self, writer, leaks=False):
        """Source dead, job done: the overlay alone is source plus writes, and clean (but for
        clusters that a killed daemon leaked, with @leaks)."""
        j = self.j
        fine, said = writer.stop()
        j.check(fine, f"the verifying writer found nothing wrong: {said.strip().splitlines()[-1]}", said)
        expected = writer.expected(j.path("expected.raw"))
        same, said = identical(self.url, "raw", expected, "raw")
        j.check(same, "LUN 0 reads as source plus writes, source dead", said)
        backing, _ = self.backing()
        j.check(backing is None, "the overlay names no backing file", backing)
        j.check(self.dst.stop() == 0, "the destination ends on SIGTERM with 0", self.dst.log_tail())
        clean, said = check_image(self.overlay)
        if leaks and not clean:
            j.say(f"qemu-img check: {said.splitlines()[0]}")
            clean = "This means waste of disk space, but no harm to data" in said and "ERROR" not in said
        j.check(clean, f"qemu-img check of the overlay: {'leaks at most' if leaks else 'clean'}", said)
        same, said = identical(self.overlay, "qcow2", expected, "raw")
        j.check(same, "qemu-img compare: overlay and expectation are identical", said)
        self.dst.start()
        same, said = identical(self.url, "raw", expected, "raw")
        j.check(same, "after a restart the chain is served again, complete", said)
