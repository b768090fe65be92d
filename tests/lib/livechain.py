# SPDX-License-Identifier: BSD-3-Clause
"""A served chain that changes while it is in use, operations on it, and how it is judged when they
are over. Operations raise QmpError when they are refused."""
import os

from chains import describe, make_chain
from cowtest import MIB, QmpError, identical, no_backing, qemu_img

IQN = "iqn.2026-11.com.example:"


class Disk:
    """A writable chain that is served, and what it was made of."""

    def __init__(self, j, d, name, depth=2, size=32 * MIB):
        self.j, self.d, self.name = j, d, name
        self.dir = j.path(d.name + "-" + name)
        self.layers = make_chain(j.rng, self.dir, depth, size=size, resized=False)
        self.base = j.path(f"{d.name}-{name}.base.raw")
        qemu_img("convert", "-O", "raw", "-f", self.layers[-1].fmt, self.layers[-1].path, self.base)
        self.iqn, self.size = IQN + name, size
        self.numbers, self.generation = {}, 0
        d.ctl("chain", "export", name, self.layers[-1].path, "--writable", "--target", self.iqn)
        j.say(f"{name}: {describe(self.layers)}")

    @property
    def url(self):
        return self.d.url(self.iqn, 0)

    def show(self):
        return self.d.execute("query-chains", name=self.name)[0]

    def files(self):
        """Base first; a layer that is not of this host has none."""
        return [l.get("filename") for l in self.show()["layers"]]

    def numbers_wrong(self):
        """LUN numbers are never given to another layer, the generation never goes back."""
        c, wrong = self.show(), []
        if c["state"] != "served":
            return [f"{self.name} is {c['state']}: {c.get('error')}"]
        if c["generation"] < self.generation:
            wrong.append(f"generation {c['generation']} after {self.generation}")
        self.generation = c["generation"]
        for l in c["layers"]:
            file = l.get("filename", "").removesuffix(".partial")  # as a raw pull is called at first
            if l.get("lun") and self.numbers.setdefault(l["lun"], file) != file:
                wrong.append(f"LUN {l['lun']} was {self.numbers[l['lun']]}, is {file}")
        return wrong

    def images_wrong(self, leaks=False):
        wrong = []
        for layer in self.show()["layers"]:
            if layer["format"] != "qcow2":
                continue
            p = qemu_img("check", "-U", no_backing(layer["filename"]), check=False)
            if p.returncode not in ((0, 3) if leaks else (0,)):
                wrong.append(f"{layer['filename']}: {p.stdout}{p.stderr}")
        return wrong


def snapshot_both(j, disk, other, n=[0]):
    n[0] += 1
    data = [{"type": "blockdev-snapshot-sync", "data": {
        "device": x.name, "snapshot-file": os.path.join(x.dir, f"both{n[0]}-{j.rng.randrange(1 << 40)}.qcow2")}}
        for x in (disk, other)]
    disk.d.execute("transaction", actions=data)


def resize(j, disk):
    size = disk.show()["virtual-size"]
    if size > disk.size and j.rng.random() < 0.4:  # the writer knows the disk's first size only
        smaller = disk.size + 512 * j.rng.randint(0, (size - disk.size) // 512 - 1)
        return disk.d.execute("block_resize", device=disk.name, size=smaller, shrink=True)
    disk.d.execute("block_resize", device=disk.name, size=size + 512 * j.rng.randint(1, 4096))


def rename_backing(j, disk):
    layers = disk.show()["layers"]
    candidates = [i for i in range(1, len(layers)) if layers[i]["format"] == "qcow2"]
    if not candidates:
        return
    i = j.rng.choice(candidates)
    below = layers[i - 1]["filename"]
    relative = os.path.relpath(below, os.path.dirname(layers[i]["filename"]))
    disk.d.execute("change-backing-file", device=disk.name, image_node_name=layers[i]["node-name"],
                   backing_file=j.rng.choice([below, relative]))


def judge_end(j, disk, writer):
    fine, said = writer.stop()
    j.check(fine, f"{disk.name}: the writer found nothing wrong: {said.strip().splitlines()[-1]}", said)
    expected = writer.expected(j.path(disk.d.name + disk.name + ".expected"))
    same, said = identical(disk.url, "raw", expected, "raw")
    j.check(same, f"{disk.name}: LUN 0 reads as it was written", said)
    return expected


def judge_files(j, disk, chain, expected, leaks=False):
    """The daemon is down: what QEMU makes of the images. @chain: as shown before."""
    top = chain["layers"][-1]
    wrong = [disk_said for l in chain["layers"] if l["format"] == "qcow2"
             for code, disk_said in [check(l["filename"])] if code not in ((0, 3) if leaks else (0,))]
    j.check(not wrong, f"{disk.name}: qemu-img check of all {len(chain['layers'])} layers"
            + (": leaks at most" if leaks else ""), "\n".join(wrong))
    same, said = identical(top["filename"], top["format"], expected, "raw")
    j.check(same, f"{disk.name}: qemu-img compare of the chain and what was written", said)


def check(path):
    p = qemu_img("check", no_backing(path), check=False)
    return p.returncode, f"{path}: {p.stdout}{p.stderr}"


def refused(j, what, cls, fn, words=()):
    try:
        fn()
    except QmpError as e:
        j.check(e.cls == cls and all(w in e.desc for w in words), f"{what}: {cls}", e)
        return
    j.not_ok(f"{what}: {cls}", "it was done")
