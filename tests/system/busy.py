# SPDX-License-Identifier: BSD-3-Clause
"""A file system in a guest that is at work while its disk is tried: whatever happens below it, no
error may reach it, and what is read is what was written."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cowtest import Failed, poll

# Files with a checksum, written, read past the cache and compared; a line a round; any error ends it.
BUSY = """set -e
n=0
while [ ! -e /run/stop ]; do
    n=$((n + 1))
    dd if=/tmp/r of=/mnt/f$((n % 5)) bs=64k conv=fsync status=none
    echo 3 >/proc/sys/vm/drop_caches
    cmp /tmp/r /mnt/f$((n % 5))
    echo $n >/run/round
done
"""


class Busy:
    """The file system of a disk at work in the guest."""

    def __init__(self, g, disk, make=True):
        """@make: with a new ext4; else there is one."""
        self.g, self.disk = g, disk
        self.name = os.path.basename(g.out(f"readlink -f {disk}"))
        g.run(f"""set -e; rm -f /run/stop /run/round; dd if=/dev/urandom of=/tmp/r bs=1M count=3 status=none
            {f"mkfs.ext4 -q -F {disk}" if make else ""}
            mount {disk} /mnt; echo 0 >/run/round""")
        self.job = g.background(BUSY)
        self.goes_on(2)

    def round(self):
        return int(self.g.out("cat /run/round") or 0)

    def goes_on(self, more=2, seconds=60):
        begin = self.round()

        def further():
            if self.job.ended():
                raise Failed(f"the work ended: {self.job.output()}")
            return self.round() >= begin + more
        poll("the file system's work to go on", further, seconds, 0.2)

    def stop(self):
        self.g.run("touch /run/stop")
        done = self.job.wait(90)
        fsck = self.g.run(f"umount /mnt && e2fsck -fn {self.disk}", check=False)
        # a path of several may fail: then "dev sdX", while the disk is dm-N
        log = self.g.run(f"dmesg | grep -E 'I/O error, dev {self.name} |on dev {self.name}|EXT4-fs (error|warning)|"
                         "Aborting journal|Remounting'", check=False)
        return done.fine and fsck.fine and not log.fine, f"{done}\n{fsck}\n{log}"
