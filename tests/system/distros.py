# SPDX-License-Identifier: BSD-3-Clause
"""Boot disks whose initramfs a distribution's own tools made, as contrib/boot tells: Debian's
initramfs-tools with open-iscsi. The tools are installed and run in a copy of this system,
an overlay of / that is gone with its processes; nothing is installed here."""
import hashlib
import os
import re
import subprocess

from bootdisk import APPEND, FAT_AT, LABEL, SYSLINUX, BootDisk
from cowtest import have, run
from guestimage import NoGuest, deb_of, kernel_package, unpack

SCRIPT = """set -e
work={work}
mount -t tmpfs tmpfs $work
mkdir $work/upper $work/work $work/root
mount -t overlay overlay -o lowerdir=/,upperdir=$work/upper,workdir=$work/work $work/root
for d in proc sys dev; do mount --rbind /$d $work/root/$d; done
mount -t tmpfs tmpfs $work/root/run
mkdir $work/root/run/lock $work/root/out
printf '#!/bin/sh\\nexit 101\\n' >$work/root/usr/sbin/policy-rc.d
chmod 755 $work/root/usr/sbin/policy-rc.d
dpkg-deb --fsys-tarfile {deb} | tar -x --keep-directory-symlink -C $work/root ./boot ./lib
cat >$work/root/out/make <<'END'
set -e
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export TMPDIR=/tmp
depmod {version} || true
{commands}
END
chroot $work/root sh /out/make
cp $work/root/out/initrd {initrd}
"""


class Distro:
    def __init__(self, name, commands, append):
        self.name, self.commands, self.append = name, commands, append


DISTROS = [
    Distro("initramfs-tools", """apt-get install -y -qq --no-install-recommends initramfs-tools open-iscsi busybox zstd
echo ISCSI_AUTO=true >/etc/iscsi/iscsi.initramfs
update-initramfs -c -k {version}
cp /boot/initrd.img-{version} /out/initrd
""", ""),
]


def impossible():
    """Why there can't be such a copy, or None."""
    if os.geteuid() != 0:
        return "an overlay of this system needs root"
    return next((f"{t} is not installed" for t in ("unshare", "apt-get", "dpkg-deb") if not have(t)), None)


class DistroDisk(BootDisk):
    """The boot disk, with the initramfs and the kernel's command line of a distribution."""

    def __init__(self, judge, distro):
        super().__init__()
        self.distro, self.work = distro, judge.path("disk-" + distro.name)
        self.initrd = os.path.join(self.image.cache, "initrd-" + distro.name)
        self.debs = os.path.join(self.image.cache, "debs")

    def make(self):
        super().make()
        os.makedirs(self.work)
        with self.image.locked():
            self.make_initrd()
        plain, self.raw = self.raw, os.path.join(self.work, "boot.raw")
        run("cp", "--sparse=always", plain, self.raw)
        self.replace()
        return self

    def make_initrd(self):
        """In the cache, as the kernel's package is; made once."""
        deb = deb_of(kernel_package(), self.debs)
        version = re.search(r"linux-image-(.*?)_", os.path.basename(deb)).group(1)
        commands, stamp = self.distro.commands.format(version=version), self.initrd + ".stamp"
        want = hashlib.sha256((SCRIPT + commands + os.path.basename(deb)).encode()).hexdigest()
        if os.path.exists(stamp) and open(stamp).read() == want:
            return
        overlay = os.path.join(self.work, "overlay")
        os.makedirs(overlay)
        script = SCRIPT.format(work=overlay, deb=deb, version=version, initrd=self.initrd, commands=commands)
        p = subprocess.run(["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", script],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
        if p.returncode != 0:
            raise NoGuest(f"{self.distro.name} can't be had in a copy of this system: {p.stdout.strip()[-600:]}")
        with open(stamp, "w") as f:
            f.write(want)

    def replace(self):
        tools, config = os.path.join(self.work, "tools"), os.path.join(self.work, "syslinux.cfg")
        unpack(deb_of("mtools", self.debs), tools)
        env = dict(os.environ, MTOOLS_SKIP_CHECK="1", PATH=os.path.join(tools, "usr/bin") + ":" + os.environ["PATH"])
        fat = f"{self.raw}@@{FAT_AT}"
        with open(config, "w") as f:
            f.write(SYSLINUX.replace(APPEND, f"{APPEND} root=LABEL={LABEL} rw init=/init {self.distro.append}".rstrip()))
        run("mdel", "-i", fat, "::initrd.gz", "::syslinux.cfg", env=env)
        run("mcopy", "-i", fat, self.initrd, "::initrd.gz", env=env)
        run("mcopy", "-i", fat, config, "::syslinux.cfg", env=env)
