# SPDX-License-Identifier: BSD-3-Clause
"""Makes the Linux guest of the system tests: Debian's cloud kernel and an initramfs with open-iscsi
and friends, out of .deb files that are fetched, never installed. Needs no root. Everything lies in
build-system/ (or COWTGT_GUEST_CACHE) and is made once; run as a program it makes it and says where.

The image's root file system is merged (/bin is /usr/bin); libraries are those that the programs
name, out of the same packages, so that the host's own versions don't matter."""
import contextlib
import fcntl
import glob
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cowtest import TOP, Failed

CACHE = os.environ.get("COWTGT_GUEST_CACHE") or os.path.join(TOP, "build-system")

# package: programs of it that go in
PROGRAMS = {
    "dash": ["dash"],
    "coreutils": ["dd", "fallocate", "shred", "stat", "timeout"],
    "util-linux": ["lsblk", "blkdiscard", "fstrim", "blockdev", "blkid", "wipefs", "findmnt",
                   "fallocate", "partx"],
    "mount": ["mount", "umount", "losetup"],
    "fdisk": ["sfdisk"],
    "e2fsprogs": ["mke2fs", "e2fsck", "resize2fs", "tune2fs", "dumpe2fs"],
    "open-iscsi": ["iscsid", "iscsiadm", "iscsistart"],
    "iproute2": ["ip", "tc"],
    "dmsetup": ["dmsetup"],
    "multipath-tools": ["multipath", "multipathd"],
    "udev": ["udevadm", "scsi_id"],
    "sg3-utils": ["sg_inq", "sg_vpd", "sg_readcap", "sg_get_lba_status", "sg_unmap", "sg_persist",
                  "sg_luns", "sg_turs", "sg_sync", "sg_write_same", "sg_compare_and_write",
                  "sg_reset", "sg_modes", "sg_opcodes", "sg_raw", "sg_dd", "sg_requests",
                  "sg_logs", "sg_start", "sg_verify", "sg_rtpg", "sg_xcopy", "sg_ident"],
    "kmod": ["kmod"],
}
# files and folders of a package that go in as they are
FILES = {
    "udev": ["lib/systemd/systemd-udevd", "lib/udev/rules.d/60-persistent-storage.rules",
             "lib/udev/rules.d/50-udev-default.rules", "lib/udev/scsi_id"],
    "dmsetup": ["lib/udev/rules.d"],
    "multipath-tools": ["lib/udev/rules.d", "lib/multipath"],
    "sg3-utils-udev": ["lib/udev/rules.d"],
}
LINKS = {
    "usr/bin/sh": "dash", "usr/bin/mkfs.ext4": "mke2fs", "usr/bin/systemd-udevd": "udevadm",
    "usr/lib/systemd/systemd-udevd": "../../bin/udevadm", "usr/lib/udev/scsi_id": "../../bin/scsi_id",
    "var/run": "../run", "var/lock": "../run/lock", "usr/bin/modprobe": "kmod",
    "bin": "usr/bin", "sbin": "usr/bin", "usr/sbin": "bin", "lib": "usr/lib", "lib64": "usr/lib",
    "usr/lib64": "lib", "etc/mtab": "../proc/self/mounts",
}
BUSYBOX = """ash awk base64 basename cat chmod chown chroot cmp comm cp cpio cttyhack cut date df diff dirname
    dmesg du echo egrep env expr false find free getty grep gunzip gzip halt head hexdump hostname id
    ifconfig insmod kill killall ln logger ls lsmod md5sum mkdir mkfifo mknod mktemp mv nc nproc od
    pidof ping pivot_root poweroff printf ps pwd readlink realpath reboot reset rm rmdir rmmod route
    sed seq setsid sha256sum sleep sort split stty switch_root sync sysctl tail tar tee telnet test
    tftp time top touch tr true truncate tty uname uniq uptime usleep vi watch wc wget which xargs
    yes zcat""".split()
MODULES = """virtio_pci virtio_net virtio_blk virtio_scsi virtio_rng virtio_console crc32c_generic
    crc32c_intel scsi_mod sd_mod sg ata_piix libiscsi iscsi_tcp iscsi_ibft ext4 xfs vfat nls_cp437
    nls_ascii nls_iso8859-1 loop dm-mod dm-multipath dm-round-robin dm-queue-length dm-service-time
    dm-snapshot configfs target_core_mod target_core_file target_core_iblock target_core_pscsi
    iscsi_target_mod qemu_fw_cfg sch_netem sch_tbf failover net_failover e1000 8021q""".split()
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "".join(f"{g}:x:{n}:\n" for n, g in enumerate(
        "root disk tty dialout kmem input video render cdrom tape audio lp sgx kvm".split())),
    "nsswitch.conf": "hosts: files\n",
    "hosts": "127.0.0.1 localhost\n",
    "iscsi/initiatorname.iscsi": "InitiatorName=iqn.2026-11.com.example:guest\n",
    "iscsi/iscsid.conf": """node.startup = manual
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 10
node.session.scan = auto
node.conn[0].tcp.window_size = 8388608
""",
}
DIRS = """proc sys dev run tmp mnt root etc/iscsi etc/multipath var/lib/iscsi var/log usr/lib/modules
    run/lock""".split()


class NoGuest(Failed):
    """The guest can't be made here: the reason is its text."""


def fetched(cmd, **kw):
    p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600, **kw)
    if p.returncode != 0:
        raise NoGuest(f"{' '.join(cmd[:3])}: {(p.stderr or p.stdout).strip()[-300:]}")
    return p.stdout


def depends(packages):
    """What @packages depend on, {package: [names]}; alternatives that are virtual left out."""
    found, of = {}, None
    for line in fetched(["apt-cache", "depends", *packages]).splitlines():
        if not line.startswith(" "):
            of = found.setdefault(line.strip(), [])
        elif m := re.match(r" [ |](Pre)?Depends: ([^<\s]+)$", line):
            of.append(m.group(2))
    return found


def kernel_package():
    for arch in ("cloud-amd64", "amd64"):
        for names in depends([f"linux-image-{arch}"]).values():
            for name in names:
                if name.startswith("linux-image-"):
                    return name
    raise NoGuest("no package linux-image-cloud-amd64 here: the guest is made of Debian's")


def wanted_packages():
    """The packages with programs, and the libraries that those need, however deep."""
    todo = sorted(set(PROGRAMS) | set(FILES))
    have = set(todo) | {"busybox-static"}
    while todo:
        new = {n for names in depends(todo).values() for n in names
               if n.startswith("lib") and n != "libc6" and n not in have}
        have |= new
        todo = sorted(new)
    return sorted(have | {"libc6", "libgcc-s1"})


def deb_of(package, debs):
    found = glob.glob(os.path.join(debs, package + "_*.deb"))
    return max(found, key=os.path.getmtime) if found else None


def download(packages, debs):
    os.makedirs(debs, exist_ok=True)
    missing = [p for p in packages if not deb_of(p, debs)]
    if missing:
        fetched(["apt-get", "download", "-q", "-o", f"APT::Sandbox::User={os.environ.get('USER', 'root')}",
                 *missing], cwd=debs)


def unpack(deb, into, *only):
    os.makedirs(into, exist_ok=True)
    tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    # not the devices nor owners of the archive: this runs without root
    done = subprocess.run(["tar", "-x", "--no-same-owner", "--exclude=./usr/share/doc", "--exclude=./usr/share/man",
                           "--exclude=./usr/share/locale", "-C", into, *only], stdin=tar.stdout)
    tar.stdout.close()
    if tar.wait() != 0 or done.returncode != 0:
        raise NoGuest(f"{deb} can't be unpacked")


class Archive:
    """A cpio archive in the form that the kernel takes ("newc")."""

    def __init__(self):
        self.parts, self.names = [], set()

    def entry(self, name, mode, data=b"", device=(0, 0)):
        name = name.strip("/")
        if name in self.names:
            return
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            self.directory(parent)
        self.names.add(name)
        number = len(self.names)
        raw = name.encode() + b"\0"
        head = b"070701" + b"".join(b"%08x" % n for n in (
            number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0))
        self.pad(head + raw)
        self.pad(data)

    def pad(self, data):
        self.parts.append(data + b"\0" * (-len(data) % 4))

    def directory(self, name):
        self.entry(name, stat.S_IFDIR | 0o755)

    def link(self, name, to):
        self.entry(name, stat.S_IFLNK | 0o777, to.encode())

    def file(self, name, data, mode=0o755):
        self.entry(name, stat.S_IFREG | mode, data if isinstance(data, bytes) else data.encode())

    def bytes(self):
        tail = Archive()
        tail.parts, tail.names = list(self.parts), set()
        tail.entry("TRAILER!!!", 0)
        data = b"".join(tail.parts)
        return data + b"\0" * (-len(data) % 512)


class Builder:
    def __init__(self, root, archive):
        self.root, self.archive = root, archive
        self.libs = [os.path.join(root, d) for d in (
            "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu/systemd",
            "usr/lib/x86_64-linux-gnu/systemd", "lib/systemd", "lib")]
        self.loader = glob.glob(os.path.join(root, "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"))[0]

    def read(self, path):
        with open(path, "rb") as f:
            return f.read()

    def find(self, name):
        for d in ("usr/bin", "bin", "usr/sbin", "sbin", "lib/udev", "usr/lib/udev", "lib/systemd"):
            path = os.path.join(self.root, d, name)
            if os.path.exists(path):
                return path
        return None

    def needs(self, path):
        """The libraries of a program, which go in under their names."""
        out = subprocess.run([self.loader, "--library-path", ":".join(self.libs), "--list", path],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout
        for name, lib in re.findall(r"^\s*(\S+) => (/\S+)", out, re.M):
            self.archive.file("usr/lib/x86_64-linux-gnu/" + os.path.basename(name), self.read(lib))
        self.archive.file("usr/lib/ld-linux-x86-64.so.2", self.read(self.loader))

    def program(self, path, name=None):
        self.archive.file(name or "usr/bin/" + os.path.basename(path), self.read(path))
        self.needs(path)

    def tree(self, rel):
        """A file or folder of the packages, at the same place."""
        top = os.path.join(self.root, rel)
        if not os.path.lexists(top) and not rel.startswith("usr/"):
            return self.tree("usr/" + rel) if os.path.lexists(os.path.join(self.root, "usr", rel)) else None
        paths = [top] if not os.path.isdir(top) else [
            os.path.join(d, f) for d, _, files in os.walk(top) for f in files]
        for path in sorted(paths):
            name = os.path.relpath(path, self.root)
            name = name if name.startswith("usr/") else "usr/" + name
            if os.path.islink(path):
                self.archive.link(name, os.readlink(path))
            else:
                self.archive.file(name, self.read(path))
                if ".so" in path or os.access(path, os.X_OK):
                    self.needs(path)
        return None


def module_bytes(path):
    with open(path, "rb") as f:
        data = f.read()
    return lzma.decompress(data) if path.endswith(".xz") else data


def module_order(top, wanted):
    """(name, bytes) of @wanted and what they depend on, in the order in which insmod takes them."""
    paths, done = {}, {}
    for d, _, files in os.walk(top):
        for f in files:
            if m := re.match(r"(.*)\.ko(\.xz)?$", f):
                paths[m.group(1).replace("-", "_")] = os.path.join(d, f)

    def add(name):
        name = name.replace("-", "_")
        if name not in paths or name in done:
            return
        data = module_bytes(paths[name])
        found = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in found.group(1).decode().split(",") if found and found.group(1) else []:
            add(other)
        done[name] = data
    for name in wanted:
        add(name)
    return list(done.items())


def fill(archive, root, kernel):
    b = Builder(root, archive)
    for name, to in LINKS.items():
        archive.link(name, to)
    for d in DIRS:
        archive.directory(d)
    archive.file("usr/bin/busybox", b.read(b.find("busybox")))
    for programs in PROGRAMS.values():
        for name in programs:
            if path := b.find(name):
                b.program(path)
    for rels in FILES.values():
        for rel in rels:
            b.tree(rel)
    for name in BUSYBOX:
        archive.link("usr/bin/" + name, "busybox")
    b.tree("lib/x86_64-linux-gnu/libgcc_s.so.1")
    for name, text in ETC.items():
        archive.file("etc/" + name, text, 0o600 if "iscsid" in name else 0o644)
    modules = module_order(glob.glob(os.path.join(kernel, "lib/modules/*"))[0], MODULES)
    for name, data in modules:
        archive.file(f"usr/lib/modules/{name}.ko", data, 0o644)
    archive.file("etc/modules", "".join(name + "\n" for name, _ in modules), 0o644)
    archive.file("init", b.read(os.path.join(HERE, "guest-init")))


class Image:
    def __init__(self, cache=CACHE):
        self.cache = cache
        self.kernel = os.path.join(cache, "vmlinuz")
        self.initramfs = os.path.join(cache, "initramfs.cpio")
        self.stamp = os.path.join(cache, "stamp")

    def wanted_stamp(self):
        h = hashlib.sha256()
        for name in ("guestimage.py", "guest-init"):
            with open(os.path.join(HERE, name), "rb") as f:
                h.update(f.read())
        return h.hexdigest()

    def made(self):
        try:
            with open(self.stamp) as f:
                return f.read() == self.wanted_stamp()
        except OSError:
            return False

    @contextlib.contextmanager
    def locked(self):
        """Two at once: one makes what is missing, the other waits."""
        os.makedirs(self.cache, exist_ok=True)
        with open(os.path.join(self.cache, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make(self):
        """Makes it unless it is there."""
        with self.locked():
            if not self.made():
                self.build()
        return self

    def fetch(self, debs):
        package, packages = kernel_package(), wanted_packages()
        download([package, *packages], debs)
        return package, packages

    def build(self):
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if not shutil.which(tool):
                raise NoGuest(f"no {tool} here: the guest is made of Debian's packages")
        debs, work = os.path.join(self.cache, "debs"), os.path.join(self.cache, "work")
        shutil.rmtree(work, ignore_errors=True)
        try:
            package, packages = self.fetch(debs)
        except NoGuest:  # package lists that are missing or old: names in them are gone by now
            if os.geteuid() != 0:
                raise
            fetched(["apt-get", "update", "-qq"])
            package, packages = self.fetch(debs)
        root, kernel = os.path.join(work, "root"), os.path.join(work, "kernel")
        for name in packages:
            unpack(deb_of(name, debs), root)
        unpack(deb_of(package, debs), kernel, "./boot", "./lib")
        archive = Archive()
        fill(archive, root, kernel)
        with open(self.initramfs, "wb") as f:
            f.write(archive.bytes())
        shutil.copy(glob.glob(os.path.join(kernel, "boot/vmlinuz-*"))[0], self.kernel)
        shutil.rmtree(work)
        with open(self.stamp, "w") as f:
            f.write(self.wanted_stamp())


if __name__ == "__main__":
    made = Image().make()
    print(made.kernel, made.initramfs)
