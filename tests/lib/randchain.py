# SPDX-License-Identifier: BSD-3-Clause
"""Random valid chains, made by qemu-img and qemu-io with every option they have.

Where chains.py makes a few chains with much in them, this makes many small ones, for comparing
two engines: odd sizes, all cluster sizes and refcount widths, snapshots, bitmaps, resizes. The
same random generator gives the same chain.
"""
import json
import os
import shutil
from dataclasses import dataclass, field

from cowtest import KIB, MIB, Failed, no_backing, qemu_img, qemu_io, run

CLUSTERS = [512, 1 * KIB, 2 * KIB, 4 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 64 * KIB, 128 * KIB,
            512 * KIB, 2 * MIB]
DEPTHS = [1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 10]


@dataclass
class Layer:
    path: str
    fmt: str
    size: int
    cluster: int
    what: str
    v2: bool = False
    refcount_bits: int = 16
    snapshots: list = field(default_factory=list)
    bitmaps: bool = False
    data_file: str = ""

    def alone(self):
        """Name and format that show this layer without what is below."""
        return (no_backing(self.path), None) if self.fmt == "qcow2" else (self.path, "raw")


def random_range(rng, size, cluster, align=512):
    """Whole clusters, or a piece that has nothing to do with them; aligned to @align."""
    if rng.random() < 0.4:
        first = rng.randrange(max(1, size // cluster)) * cluster
        length = cluster * rng.choice([1, 1, 2, 3])
    else:
        first = rng.randrange(size)
        length = rng.randint(1, rng.choice([600, 4 * KIB, 64 * KIB, 200 * KIB]))
    first = first // align * align
    length = min(max(align, length // align * align), size - first, 4 * MIB)
    return (first, length) if length else (0, min(align, size))


def _compressed(rng, layer):
    """First of all, and not where all is allocated: QEMU compresses into new clusters only."""
    if "preallocation" in layer.what or layer.data_file:
        return []
    whole = layer.size // layer.cluster
    return [f"write -c -P {rng.randint(1, 255)} {i * layer.cluster} {layer.cluster}"
            for i in sorted(rng.sample(range(whole), min(whole, rng.randint(1, 5))))]


def _changes(rng, layer, n):
    kinds = ["write -P %d"] * 6 + ["write -z", "write -z -u", "discard"]
    out = []
    for _ in range(n):
        kind = rng.choice(kinds)
        offset, length = random_range(rng, layer.size, layer.cluster)
        out.append(f"{kind % rng.randint(1, 255) if '%' in kind else kind} {offset} {length}")
    return out


def _raw_base(rng, path, size):
    """A sparse file, at times of a size that is no number of sectors."""
    odd = rng.randint(1, 511) if rng.random() < 0.2 else 0
    with open(path, "wb") as f:
        f.truncate(size + odd)
        for _ in range(rng.randint(0, 6)):
            offset, length = random_range(rng, size, 4 * KIB, 1)
            f.seek(offset)
            f.write(rng.randbytes(length))
    return Layer(path, "raw", (size + odd + 511) // 512 * 512, 4 * KIB, f"raw {size + odd}")


def _options(rng, path, base):
    """(options, cluster, v2, refcount bits, data file)"""
    v2 = rng.random() < 0.2
    cluster = rng.choice(CLUSTERS)
    extended = not v2 and cluster >= 16 * KIB and rng.random() < 0.4
    bits = 16 if v2 else rng.choice([1, 2, 4, 8, 16, 16, 16, 16, 32, 64])
    opts = [f"cluster_size={cluster}", "compat=" + ("0.10" if v2 else "1.1")]
    if not v2:
        opts += [f"refcount_bits={bits}", f"compression_type={rng.choice(['zlib', 'zstd'])}"]
        if extended:
            opts.append("extended_l2=on")
        elif rng.random() < 0.15:
            opts.append("lazy_refcounts=on")
    data_file = f"{path}.data" if not v2 and rng.random() < 0.1 else ""
    if data_file:
        opts.append(f"data_file={data_file}")
        if base and rng.random() < 0.5:
            opts.append("data_file_raw=on")
    elif base and rng.random() < 0.2:
        opts.append(f"preallocation={rng.choice(['metadata', 'falloc', 'full'])}")
    return opts, cluster, v2, bits, data_file


def _backing_name(rng, below):
    kind = rng.random()
    if kind < 0.10:
        return f"file:{below.path}"
    if kind < 0.20:
        return "json:" + json.dumps({"driver": below.fmt, "file": {"driver": "file", "filename": below.path}})
    return os.path.basename(below.path) if kind < 0.7 else below.path


def _resize(rng, layer):
    """Shorter or longer; QEMU refuses some (a v2 image with snapshots), then it stays."""
    size = max(512, layer.size + rng.choice([-1, 1, 1]) * 512 * rng.randint(1, 2048))
    p = qemu_img("resize", "-q", "--shrink", "-f", "qcow2", layer.path, size, check=False)
    if p.returncode == 0:
        layer.size = size
        layer.what += f" resized {size}"


def _snapshot(layer):
    """QEMU gives up, with leaks, where refcounts are too narrow for what is shared already."""
    name = f"s{len(layer.snapshots)}"
    if qemu_img("snapshot", "-c", name, layer.path, check=False).returncode:
        qemu_img("check", "-q", "-f", "qcow2", "-r", "leaks", layer.path)
        return
    layer.snapshots.append(name)
    layer.what += " snapshot"


def _leave_dirty(rng, layer):
    """Ends a writer without warning, its refcounts not written."""
    commands = _changes(rng, layer, 3) + ["flush"] + _changes(rng, layer, 2) + ["abort"]
    run("qemu-io", "-f", "qcow2", layer.path, input="\n".join(commands) + "\n", check=False)
    layer.what += " dirty"


def copy_image(layer, to):
    """A copy of one layer as the file @to, with a data file of its own if it has one."""
    shutil.copyfile(layer.path, to)
    if layer.data_file:
        shutil.copyfile(layer.data_file, f"{to}.data")
        qemu_img("amend", "-f", "qcow2", "-o", f"data_file={to}.data", to)


def _qcow2(rng, path, size, below):
    opts, cluster, v2, bits, data_file = _options(rng, path, below is None)
    backing = ["-b", _backing_name(rng, below), "-F", below.fmt] if below else []
    qemu_img("create", "-q", "-f", "qcow2", "-o", ",".join(opts), *backing, path, size)
    layer = Layer(path, "qcow2", size, cluster, f"qcow2 {','.join(opts)} {size}", v2, bits, data_file=data_file)
    few = 1 if cluster < 4 * KIB else 2  # with small clusters every write touches many tables
    compressed = _compressed(rng, layer) if rng.random() < 0.4 else []
    changes = compressed + _changes(rng, layer, rng.randint(0, 6 * few))
    if changes:
        qemu_io(path, changes)
    if rng.random() < 0.2 and bits > 1:
        _snapshot(layer)
    if rng.random() < 0.2:
        _resize(rng, layer)
    if rng.random() < 0.5 or layer.snapshots:
        qemu_io(path, _changes(rng, layer, rng.randint(1, 4 * few)))
    if rng.random() < 0.08 and not v2:
        qemu_img("bitmap", "--add", "-f", "qcow2", path, "b0")
        layer.bitmaps = True
        layer.what += " bitmap"
    if "lazy_refcounts=on" in opts and rng.random() < 0.5:
        _leave_dirty(rng, layer)
    return layer


def random_chain(rng, directory, depth):
    """@depth layers in @directory, base first; the top is qcow2 where depth allows."""
    os.makedirs(directory)
    size = 512 * rng.choice([rng.randint(1, 8), rng.randint(1, 4096), rng.randint(1, 12288), 4096])
    layers = []
    for i in range(depth):
        below = layers[-1] if layers else None
        path = os.path.join(directory, f"layer{i}." + ("qcow2" if i else "base"))
        if i and rng.random() < 0.3:
            size = max(512, below.size + rng.choice([-1, 1, 1]) * 512 * rng.randint(1, 2048))
        elif i:
            size = below.size
        if i == 0 and rng.random() < 0.35:
            layers.append(_raw_base(rng, path, size))
        else:
            layers.append(_qcow2(rng, path, size, below))
    return layers


def describe(layers):
    return "\n".join(f"{os.path.basename(l.path)}: {l.what}" for l in layers)


def read_raw(name, fmt, out, size, *args):
    """An image's or a LUN's content by qemu-img, @size bytes of it."""
    qemu_img("convert", *(["-f", fmt] if fmt else []), *args, "-O", "raw", name, out)
    with open(out, "rb") as f:
        data = f.read()
    os.unlink(out)
    if not size <= len(data) + 511 or len(data) > size + 511:
        raise Failed(f"{name}: {len(data)} bytes where {size} should be")
    return data[:size].ljust(size, b"\0")
