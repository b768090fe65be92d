# SPDX-License-Identifier: BSD-3-Clause
"""libvirt of its own, in a machine of namespaces: system mode as root, session mode as a user who is
nobody special; and VMs that it runs, from the examples in contrib/libvirt."""
import os
import shutil
import socket
import subprocess
import xml.etree.ElementTree as ET

from bootdisk import BootedGuest
from cowtest import TOP, Failed, have, poll, run

EXAMPLES = os.path.join(TOP, "contrib", "libvirt")
FOLDERS = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
POOLS = "/usr/lib/{}-linux-gnu/libvirt/storage-backend/libvirt_storage_backend_iscsi-direct.so".format(os.uname().machine)
NOBODY = 65534
# No security drivers, control groups nor namespaces of libvirt's: this is no host for strangers' VMs
SYSTEM_CONF = """user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
SESSION_CONF = """stdio_handler = "file"
"""


def missing():
    """What of libvirt is not installed here, or None."""
    for tool in ("libvirtd", "virsh", "virt-xml-validate", "xmllint", "qemu-system-x86_64"):
        if not have(tool):
            return f"{tool} is not installed"
    return None


def example(name):
    return os.path.join(EXAMPLES, name)


def furnish(machine):
    """What a page takes for granted: libvirt at work, and the examples in /srv/libvirt, but for KVM."""
    code, said = machine.run(f"""cat >/etc/libvirt/qemu.conf <<'END'
{SYSTEM_CONF}END
        mkdir -p /var/log/libvirt/qemu
        cp -r {EXAMPLES} /srv/libvirt
        sed -i "s/type='kvm'/type='qemu'/; s/host-passthrough/maximum/" /srv/libvirt/*.xml
        libvirtd -d
        until virsh version; do sleep 0.1; done""", programs=machine.path, timeout=60)
    if code != 0:
        raise Failed(f"no libvirt in {machine.name}: {said}")


class Libvirt:
    def __init__(self, judge, machine, session=False):
        self.judge, self.machine = judge, machine
        self.uri = "qemu:///session" if session else "qemu:///system"
        self.dir = judge.path("session" if session else "system")
        os.makedirs(self.dir)
        self.prefix = [*machine.enter, "env", "LIBVIRT_AUTOSTART=0", f"PATH={machine.path}", "LC_ALL=C", "HOME=" + self.dir]
        if session:
            self.be_nobody()
            self.configure(os.path.join(self.dir, "config", "libvirt"), SESSION_CONF)
        else:
            machine.run(f"cat >/etc/libvirt/qemu.conf <<'END'\n{SYSTEM_CONF}END")

    def configure(self, folder, text):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "qemu.conf"), "w") as f:
            f.write(text)
        for d, _, _ in os.walk(self.dir):
            os.chown(d, NOBODY, NOBODY)

    def be_nobody(self):
        os.chmod(self.judge.tmp, 0o711)
        for word, name in (("RUNTIME_DIR", "run"), ("CONFIG_HOME", "config"), ("CACHE_HOME", "cache"), ("DATA_HOME", "data")):
            path = os.path.join(self.dir, name)
            os.makedirs(path, 0o700)
            self.prefix.append(f"XDG_{word}={path}")
        self.prefix += ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]

    def start(self):
        with open(os.path.join(self.dir, "libvirtd.log"), "ab") as log:
            self.proc = self.judge.spawn(*self.prefix, "libvirtd", stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

        def up():
            if self.proc.poll() is not None:
                raise Failed(f"libvirtd ended with {self.proc.returncode}: {self.log_tail()}")
            return self.virsh("version", check=False).returncode == 0
        poll("libvirtd", up, 60, 0.1)
        return self

    def version(self):
        said = self.virsh("version").stdout
        return " with ".join(line.split(": ")[1] for line in said.splitlines() if line.startswith(("Using lib", "Running")))

    def log_tail(self):
        with open(os.path.join(self.dir, "libvirtd.log"), errors="replace") as f:
            return f.read()[-2000:]

    def virsh(self, *args, check=True, timeout=120, quiet=True):
        return run(*self.prefix, "virsh", *(["-q"] if quiet else []), "-c", self.uri, *args, check=check, timeout=timeout)

    def set_secret(self, value):
        """The secret of secret.xml, which is made when it is not there."""
        if "iqn." not in self.virsh("secret-list").stdout:
            self.virsh("secret-define", example("secret.xml"))
        uuid = next(line.split()[0] for line in self.virsh("secret-list").stdout.splitlines() if "iqn." in line)
        path = os.path.join(self.dir, "chap")
        with open(path, "w") as f:
            f.write(value)
        self.virsh("secret-set-value", uuid, "--file", path, "--plain")


def pointed(tree, port):
    """The example's targets are at @port of this host."""
    for host in tree.iter("host"):
        host.set("name", "127.0.0.1")
        host.set("port", str(port))
    return tree


def point_file(libvirt, name, port):
    """Path of an example that names the target at @port."""
    path = os.path.join(libvirt.dir, name)
    ET.ElementTree(pointed(ET.parse(example(name)).getroot(), port)).write(path)
    return path


class Domain(BootedGuest):
    """A VM of libvirt's: an example of contrib/libvirt, but for KVM, memory, addresses and consoles."""

    def __init__(self, judge, disk, libvirt, name, xml, port, edit=None):
        super().__init__(judge, disk, [], name)
        self.libvirt, self.xml = libvirt, os.path.join(self.dir, "domain.xml")
        root = pointed(ET.parse(example(xml)).getroot(), port)
        root.set("type", "qemu")
        root.find("name").text = name
        root.find("memory").set("unit", "MiB")
        root.find("memory").text = "512"
        root.find("cpu").set("mode", "maximum")
        devices = root.find("devices")
        devices.remove(devices.find("serial"))
        devices.append(ET.fromstring(f"<serial type='file'><source path='{self.console}'/></serial>"))
        devices.append(ET.fromstring(f"<channel type='unix'><source mode='bind' path='{self.socket_path}'/>"
                                     "<target type='virtio' name='cowtgt.agent'/></channel>"))
        if edit:
            edit(root)
        ET.ElementTree(root).write(self.xml)
        if libvirt.uri.endswith("session"):
            os.chown(self.dir, NOBODY, NOBODY)

    def state(self):
        return self.libvirt.virsh("domstate", self.name, check=False).stdout.strip() or "gone"

    def check_alive(self):
        if self.state() not in ("running", "paused"):
            raise Failed(f"{self.name} is {self.state()}: {self.tail()} {self.libvirt.log_tail()}")

    def launch(self):
        self.libvirt.virsh("create", self.xml)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.socket_path)

    def stop(self):
        self.sock.sendall(b"OFF\n")
        poll(f"the end of {self.name}", lambda: self.state() == "gone", 30, 0.2)

    def kill(self):
        self.libvirt.virsh("destroy", self.name)


def by_kernel(image, folder):
    """An edit of a domain: kernel and initramfs of the guest's image, copied to where nobody can read them."""
    paths = {"kernel": image.kernel, "initrd": image.initramfs}
    for name, path in paths.items():
        paths[name] = shutil.copy(path, os.path.join(folder, name))
        os.chmod(paths[name], 0o644)

    def edit(root):
        boot = root.find("os")
        boot.remove(boot.find("boot"))
        for name, path in paths.items():
            ET.SubElement(boot, name).text = path
        ET.SubElement(boot, "cmdline").text = "console=ttyS0,115200 quiet panic=-1 mitigations=off tsc=reliable"
    return edit


def valid(path):
    """virt-xml-validate: (valid?, what it said)."""
    p = run("virt-xml-validate", path, check=False)
    return p.returncode == 0, (p.stdout + p.stderr).strip()


def judge_examples(j):
    """Those that are documents are valid as they are; a disk is, inside a domain."""
    for name in sorted(n for n in os.listdir(EXAMPLES) if n.endswith(".xml")):
        path, root = example(name), ET.parse(example(name)).getroot()
        if root.tag == "disk":
            domain = ET.parse(example("network-disk.xml")).getroot()
            domain.find("devices").append(root)
            path = j.path(name)
            ET.ElementTree(domain).write(path)
        fine, said = valid(path)
        j.check(fine, f"contrib/libvirt/{name} is valid", said)


def judge_pool(j, libvirt, port, luns, size_mib):
    """An iscsi-direct pool: its volumes are the LUNs."""
    if not os.path.exists(POOLS):
        j.skip("no pool of type iscsi-direct: package libvirt-daemon-driver-storage-iscsi-direct is not installed")
        return
    libvirt.virsh("pool-define", point_file(libvirt, "pool-iscsi-direct.xml", port))
    libvirt.virsh("pool-start", "vm1-luns")
    listed = libvirt.virsh("vol-list", "vm1-luns").stdout.split()
    names = [f"unit:0:0:{n}" for n in range(luns)]
    j.check(listed[::2] == names and all(v.endswith(f"-lun-{n}") for n, v in enumerate(listed[1::2])),
            f"an iscsi-direct pool lists the {luns} LUNs", listed)
    infos = [libvirt.virsh("vol-info", n, "--pool", "vm1-luns").stdout for n in names]
    j.check(all(f"{size_mib}.00 MiB" in i for i in infos), "and knows their sizes", infos)
    libvirt.virsh("pool-refresh", "vm1-luns")
    libvirt.virsh("pool-destroy", "vm1-luns")
    libvirt.virsh("pool-undefine", "vm1-luns")
