# SPDX-License-Identifier: BSD-3-Clause
"""A disk that a PC boots: MBR and FAT with syslinux, kernel and initramfs, and an ext4 root with
files whose sums are known; made without root, loop devices or mounts. Chain: the same disk over
layers, each holding what the lower ones have wrong. BootedGuest: a VM that boots from it, by
itself or over the network, and then obeys as any guest does."""
import hashlib
import os
import random
import re
import shutil
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import HOST, QEMU, Failed, Guest
from guestimage import HERE, Archive, Image, deb_of, download, unpack
from cowtest import KIB, MIB, TOP, poll, qemu_img, qemu_io, run

PACKAGES = ["syslinux", "syslinux-common", "mtools", "ipxe"]
SECTOR = 512
DISK, FAT_AT, FAT, ROOT_AT = 256 * MIB, 1 * MIB, 64 * MIB, 65 * MIB
PIECE, PIECES = 256 * KIB, 64
LABEL = "cowtgt-root"
# what the initramfs of a boot disk does without
LEFT_OUT = re.compile(r"usr/lib/modules/(xfs|target_core|iscsi_target|dm[-_])|usr/bin/(sg_|udevadm|tc$|multipath|"
                      r"e2fsck|mke2fs|resize2fs|tune2fs|dumpe2fs|lsblk|sfdisk|iscsiadm|iscsid$)|usr/lib/udev|"
                      r"usr/lib/multipath|init$|TRAILER")
APPEND = "console=ttyS0,115200 quiet panic=-1 mitigations=off tsc=reliable net.ifnames=0"
SYSLINUX = f"""SERIAL 0 115200
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL vmlinuz
 INITRD initrd.gz
 APPEND {APPEND}
"""


def entries(data):
    """(name, mode, content) of a cpio archive in the form that the kernel takes."""
    at = 0
    while at + 110 <= len(data) and data[at:at + 6] == b"070701":
        field = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110:at + 110 + field[11] - 1].decode()
        begin = (at + 110 + field[11] + 3) // 4 * 4
        yield name, field[1], data[begin:begin + field[6]]
        at = (begin + field[6] + 3) // 4 * 4


def partition(active, kind, at, size):
    chs = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", active, chs, kind, chs, at // SECTOR, size // SECTOR)


class BootDisk:
    """The disk as a raw file, made once beside the guest's image."""

    def __init__(self):
        self.image = Image().make()
        self.raw = os.path.join(self.image.cache, "boot.raw")
        self.lkrn = os.path.join(self.image.cache, "ipxe.lkrn")
        self.stamp = os.path.join(self.image.cache, "boot.stamp")

    def wanted_stamp(self):
        h = hashlib.sha256(self.image.wanted_stamp().encode())
        for name in ("bootdisk.py", "boot-init.sh"):
            with open(os.path.join(HERE, name), "rb") as f:
                h.update(f.read())
        return h.hexdigest()

    def make(self):
        with self.image.locked():
            try:
                with open(self.stamp) as f:
                    if f.read() == self.wanted_stamp():
                        return self
            except OSError:
                pass
            self.build()
            with open(self.stamp, "w") as f:
                f.write(self.wanted_stamp())
        return self

    def build(self):
        debs, work = os.path.join(self.image.cache, "debs"), os.path.join(self.image.cache, "boot-work")
        shutil.rmtree(work, ignore_errors=True)
        tools = os.path.join(work, "tools")
        download(PACKAGES, debs)
        for name in PACKAGES:
            unpack(deb_of(name, debs), tools)
        shutil.copy(os.path.join(tools, "boot/ipxe.lkrn"), self.lkrn)
        with open(self.image.initramfs, "rb") as f:
            files = list(entries(f.read()))
        with open(self.raw, "wb") as f:
            f.truncate(DISK)
            with open(os.path.join(tools, "usr/lib/syslinux/mbr/mbr.bin"), "rb") as mbr:
                f.write(mbr.read()[:440])
            f.seek(446)
            f.write(partition(0x80, 6, FAT_AT, FAT) + partition(0, 0x83, ROOT_AT, DISK - ROOT_AT) + bytes(32))
            f.write(b"\x55\xaa")
        self.put(self.fat(work, tools, files), FAT_AT)
        self.put(self.root(work, files), ROOT_AT)
        shutil.rmtree(work)

    def put(self, part, at):
        run("dd", f"if={part}", f"of={self.raw}", "bs=1M", f"seek={at // MIB}", "conv=notrunc,sparse")

    def fat(self, work, tools, files):
        archive = Archive()
        for name, mode, data in files:
            if not LEFT_OUT.match(name):
                archive.entry(name, mode, data)
        with open(os.path.join(HERE, "boot-init.sh"), "rb") as f:
            archive.file("init", f.read())
        initrd, config, fat = (os.path.join(work, n) for n in ("initrd", "syslinux.cfg", "fat"))
        with open(initrd, "wb") as f:
            f.write(archive.bytes())
        run("gzip", "-6", initrd)
        with open(config, "w") as f:
            f.write(SYSLINUX)
        with open(fat, "wb") as f:
            f.truncate(FAT)
        env = dict(os.environ, MTOOLS_SKIP_CHECK="1",
                   PATH=os.path.join(tools, "usr/bin") + ":" + os.environ["PATH"])
        run("mformat", "-i", fat, "-T", FAT // SECTOR, "-h", 16, "-s", 63, "-H", FAT_AT // SECTOR, "::", env=env)
        for path, name in ((self.image.kernel, "vmlinuz"), (initrd + ".gz", "initrd.gz"), (config, "syslinux.cfg")):
            run("mcopy", "-i", fat, path, "::" + name, env=env)
        run("syslinux", "-i", fat, env=env)
        return fat

    def root(self, work, files):
        """The guest's image as a root file system; /big in pieces with /sums, for reading."""
        tree, ext = os.path.join(work, "root"), os.path.join(work, "ext")
        for name, mode, data in files:
            path = os.path.join(tree, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if mode >> 12 == 4:
                os.makedirs(path, exist_ok=True)
            elif mode >> 12 == 10:
                os.symlink(data.decode(), path)
            elif name != "TRAILER!!!":
                with open(path, "wb") as f:
                    f.write(data)
                os.chmod(path, mode & 0o777)
        rng = random.Random(7)
        with open(os.path.join(tree, "big"), "wb") as big, open(os.path.join(tree, "sums"), "w") as sums:
            for _ in range(PIECES):
                piece = rng.randbytes(PIECE)
                big.write(piece)
                sums.write(hashlib.md5(piece).hexdigest() + "\n")
        with open(ext, "wb") as f:
            f.truncate(DISK - ROOT_AT)
        run("mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-E", "root_owner=0:0", "-d", tree, ext)
        return ext


def extents(path):
    """(offset, length) of what a sparse file holds, in whole pieces of 1 MiB."""
    found = []
    for line in run("qemu-img", "map", "-f", "raw", "--output=json", path).stdout.strip("[]\n ").split("},"):
        m = re.search(r'"start": (\d+), "length": (\d+).*"data": (true|false)', line)
        if m and m.group(3) == "true":
            first, last = int(m.group(1)) // MIB, (int(m.group(1)) + int(m.group(2)) - 1) // MIB
            found += range(first, last + 1)
    return sorted(set(found))


class Chain:
    """The boot disk over a raw base and two qcow2 layers: each MiB is right in one of them only,
    and wrong in those below, so that a boot needs all three. layers: base first."""

    def __init__(self, judge, disk, name="chain"):
        folder = judge.path(name)
        os.makedirs(folder)
        self.layers = [os.path.join(folder, n) for n in ("base.raw", "sn1.qcow2", "sn2.qcow2")]
        self.top = self.layers[-1]
        self.flat = disk.raw
        owner = {mib: judge.rng.randrange(3) for mib in extents(disk.raw)}
        run("cp", "--sparse=always", disk.raw, self.layers[0])
        with open(disk.raw, "rb") as right, open(self.layers[0], "r+b") as base:
            for mib in (m for m, layer in owner.items() if layer > 0):
                base.seek(mib * MIB)
                base.write(judge.rng.randbytes(MIB))
            for layer in (1, 2):
                self.add(judge, layer, right, {m: o for m, o in owner.items() if o >= layer})

    def add(self, judge, layer, right, owner):
        below, fmt = self.layers[layer - 1], "raw" if layer == 1 else "qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-b", os.path.basename(below), "-F", fmt, self.layers[layer])
        piece, commands = judge.path("piece"), []
        for mib, o in owner.items():
            path = f"{piece}{mib}"
            with open(path, "wb") as f:
                if o == layer:
                    right.seek(mib * MIB)
                    f.write(right.read(MIB))
                else:
                    f.write(judge.rng.randbytes(MIB))
            commands.append(f"write -s {path} {mib * MIB} {MIB}")
        qemu_io(self.layers[layer], commands)
        for mib in owner:
            os.unlink(f"{piece}{mib}")


class BootedGuest(Guest):
    """A VM that boots from a disk or the network; @how: QEMU's arguments for that."""

    def __init__(self, judge, disk, how, name="vm", prefix=(), network=True):
        super().__init__(judge, name, image=disk.image)
        self.how, self.prefix, self.network = list(how), list(prefix), network
        self.monitor = os.path.join(self.dir, "qmp")

    def command(self):
        net = ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="] if self.network else []
        return [*self.prefix, QEMU, "-M", "pc,graphics=off", "-accel",
                os.environ.get("COWTGT_ACCEL", "tcg,thread=multi"), "-cpu", "max", "-smp", "2", "-m", "512",
                "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
                "-serial", f"file:{self.console}",
                "-qmp", f"unix:{self.monitor},server=on,wait=off",
                "-chardev", f"socket,id=agent,path={self.socket_path},server=on,wait=off",
                "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=cowtgt.agent",
                "-device", "virtio-rng-pci", *net, *self.how]

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def start(self, seconds=240):
        """Boots and waits for the agent; a boot that fails is told at once."""
        self.launch()

        def up():
            self.check_alive()
            text = self.console_text()
            if m := re.search(r"No bootable device|sanboot failed.*|BOOT-FAILED.*|Kernel panic.*", text):
                raise Failed(f"{self.name} does not boot: {m.group()}; its console: {self.tail()}")
            return "BOOT-ROOT" in text
        poll(f"{self.name}'s root file system", up, seconds, 0.1)
        return self.greet(seconds)

    def console_text(self):
        return self.tail(nbytes=1 << 20)

    def root_data(self):
        """All pieces of /big, past the page cache: the number of those that are right."""
        return int(self.out("""echo 3 >/proc/sys/vm/drop_caches; n=0 right=0
            while read -r sum; do
                [ "$(dd if=/big bs=256k skip=$n count=1 status=none | md5sum | cut -d' ' -f1)" = $sum ] &&
                    right=$((right + 1))
                n=$((n + 1))
            done </sums; echo $right""", timeout=240))

    def start_ticks(self):
        """A program in the guest that reads and writes for ever and tells of each round: a piece of
        /big past the page cache, compared with its sum, and a line of /ticks, on disk when told."""
        self.run("""cat >/run/ticks.sh <<'END'
n=0
while [ ! -e /run/stop ]; do
    n=$((n + 1)) at=$((n * 37 % 64))
    echo 3 >/proc/sys/vm/drop_caches
    sum=$(dd if=/big bs=256k skip=$at count=1 status=none | md5sum | cut -d' ' -f1)
    echo $n >>/ticks || exit 1
    sync /ticks || exit 1
    [ "$(sed -n $((at + 1))p /sums)" = "$sum" ] && word=ok || word=BAD
    echo "TICK $n $word $(cut -d' ' -f1 /proc/uptime)" >/dev/console
    sleep 0.2
done
END
sh /run/ticks.sh &""")
        self.wait_ticks(1)
        return self

    def ticks(self):
        return [(int(n), word, float(at)) for n, word, at in
                re.findall(r"^TICK (\d+) (\w+) ([\d.]+)$", self.console_text(), re.M)]

    def last_tick(self):
        seen = self.ticks()
        return seen[-1][0] if seen else 0

    def wait_ticks(self, more, seconds=120):
        """Until it has ticked @more times from now."""
        goal = self.last_tick() + more

        def there():
            self.check_alive()
            return self.last_tick() >= goal
        poll(f"{more} ticks of the VM", there, seconds, 0.1)

    def judge_ticks(self, j, what):
        """Ends the ticking and judges it; the number of the last tick."""
        self.run("touch /run/stop")
        poll("the end of the ticking", lambda: not self.run("ps | grep -q '[t]icks.sh'", check=False).fine, 60, 0.2)
        seen = self.ticks()
        bad = [t for t in seen if t[1] != "ok"]
        numbers = [t[0] for t in seen]
        gap = max((b[2] - a[2] for a, b in zip(seen, seen[1:])), default=0)
        j.check(seen and not bad and numbers == list(range(1, len(seen) + 1)),
                f"{what}: {len(seen)} ticks, none missed, all data right (longest pause {gap:.1f} s)",
                bad or self.tail())
        return numbers[-1]


ROM = "/usr/lib/ipxe/qemu/efi-virtio.rom"  # QEMU's default; for BIOS and UEFI


def ipxe_script(j, name, port, iqn, **settings):
    """contrib/boot/sanboot.ipxe as a user would fill it in, in a folder of its own."""
    with open(os.path.join(TOP, "contrib", "boot", "sanboot.ipxe")) as f:
        lines = f.read().splitlines()
    for key, value in {"target-address": HOST, "target-port": port, "target-iqn": iqn, **settings}.items():
        at = [i for i, line in enumerate(lines) if line.startswith((f"set {key} ", f"#set {key} "))]
        if len(at) != 1:
            raise Failed(f"sanboot.ipxe: {len(at)} lines for {key}")
        lines[at[0]] = f"set {key} {value}"
    path = j.path(name, "sanboot.ipxe")
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")
    return path


def by_rom(script):
    return ["-netdev", f"user,id=net0,tftp={os.path.dirname(script)},bootfile=sanboot.ipxe",
            "-device", "virtio-net-pci,netdev=net0,bootindex=1"]


def judge_root(j, image, fmt, ticks, what):
    """The root file system in an image whose VM has gone: whole, and with every line that was told."""
    raw, root = j.path("after.raw"), j.path("after.ext4")
    qemu_img("convert", "-f", fmt, "-O", "raw", image, raw)
    run("dd", f"if={raw}", f"of={root}", "bs=1M", f"skip={ROOT_AT // MIB}", "conv=sparse")
    p = run("e2fsck", "-fy", root, check=False)  # plays the journal first, as a mount does
    p = run("e2fsck", "-fn", root, check=False)
    j.check(p.returncode == 0, f"{what}: e2fsck finds nothing wrong", p.stdout)
    lines = run("debugfs", "-R", "cat /ticks", root).stdout.split()
    j.check(lines == [str(n) for n in range(1, len(lines) + 1)] and len(lines) >= ticks,
            f"{what}: all {ticks} lines that the VM told of are there", lines[-5:])
    for path in (raw, root):
        os.unlink(path)
