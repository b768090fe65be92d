# SPDX-License-Identifier: BSD-3-Clause
"""Chains of images made by qemu-img and qemu-io from a seed, as varied as the formats allow.

A layer is described by Layer; layers[0] is the base. The same seed gives the same chain.
"""
import os
from dataclasses import dataclass

from cowtest import KIB, MIB, qemu_img, qemu_io, no_backing

CLUSTERS = [512, 1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 64 * KIB, 256 * KIB, 2 * MIB]


@dataclass
class Layer:
    path: str
    fmt: str
    size: int
    what: str

    def alone(self):
        """Name and format that show this layer without what is below."""
        return (no_backing(self.path), None) if self.fmt == "qcow2" else (self.path, "raw")


def _sectors(rng, size, longest):
    """A random sector-aligned range inside the disk."""
    length = min(size, 512 * rng.randint(1, longest // 512))
    return 512 * rng.randint(0, (size - length) // 512), length


def _scatter(rng, layer, cluster, writes, compressed):
    """Random writes, zero writes and discards, whole clusters and odd sectors mixed."""
    cmds = []
    if compressed:  # first: QEMU compresses only into clusters that are not allocated yet
        whole = layer.size // cluster
        for i in sorted(rng.sample(range(whole), min(whole, rng.randint(2, 8)))):
            cmds.append(f"write -c -P {rng.randint(1, 255)} {i * cluster} {cluster}")
    for _ in range(writes):
        kind = rng.random()
        if kind < 0.25:  # whole clusters
            n = max(1, layer.size // cluster)
            first = rng.randrange(n)
            length = min(cluster * rng.randint(1, 4), layer.size - first * cluster)
            offset, length = first * cluster, length // 512 * 512
        else:
            offset, length = _sectors(rng, layer.size, 384 * KIB)
        if length < 512:
            continue
        what = rng.random()
        if what < 0.60:
            cmds.append(f"write -P {rng.randint(1, 255)} {offset} {length}")
        elif what < 0.72:
            cmds.append(f"write -z {offset} {length}")
        elif what < 0.84:
            cmds.append(f"write -z -u {offset} {length}")
        else:
            cmds.append(f"discard {offset} {length}")
    if cmds:
        qemu_io(layer.path, cmds, layer.fmt)


def _raw_base(rng, path, size):
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(12):
            offset, length = _sectors(rng, size, 2 * MIB)
            f.seek(offset)
            f.write(rng.randbytes(length))
    return Layer(path, "raw", size, "raw")


def _create(rng, path, size, below):
    v2 = rng.random() < 0.25
    extended = not v2 and rng.random() < 0.25
    cluster = rng.choice([16 * KIB, 64 * KIB, 128 * KIB] if extended else CLUSTERS)
    opts = [f"cluster_size={cluster}", "compat=" + ("0.10" if v2 else "1.1")]
    what = f"qcow2 v{2 if v2 else 3} {cluster}"
    if extended:
        opts.append("extended_l2=on")
        what += " extended"
    elif not v2 and rng.random() < 0.3:
        opts.append(f"refcount_bits={rng.choice([1, 8, 32, 64])}")
    zstd = not v2 and rng.random() < 0.5
    if zstd:
        opts.append("compression_type=zstd")
        what += " zstd"
    args = ["-q", "-f", "qcow2", "-o", ",".join(opts)]
    if below is not None:
        name = os.path.basename(below.path) if rng.random() < 0.5 else below.path
        args += ["-b", name, "-F", below.fmt]
    qemu_img("create", *args, path, size)
    return Layer(path, "qcow2", size, what), cluster


def _compressed_base(rng, path, size):
    raw = path + ".tmp"
    _raw_base(rng, raw, size)
    kind = rng.choice(["zlib", "zstd"])
    qemu_img("convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "-f", "raw", raw, path)
    os.unlink(raw)
    return Layer(path, "qcow2", size, f"qcow2 compressed {kind}")


def make_chain(rng, directory, depth, size=24 * MIB, resized=True):
    """@depth layers in @directory; returns them, base first."""
    os.makedirs(directory, exist_ok=True)
    layers = []
    kind = rng.choice(["raw", "qcow2", "compressed"])
    for i in range(depth):
        path = os.path.join(directory, f"layer{i}." + ("raw" if i == 0 and kind == "raw" else "qcow2"))
        if i == 0 and kind == "raw":
            layer, cluster, comp = _raw_base(rng, path, size), 64 * KIB, False
        elif i == 0 and kind == "compressed":
            layer, cluster, comp = _compressed_base(rng, path, size), 64 * KIB, False
        else:
            below = layers[-1] if layers else None
            this = below.size if below else size
            if resized and below and rng.random() < 0.35:
                this = max(4 * MIB, this + rng.choice([-1, 1, 1]) * 512 * rng.randint(1, 8192))
            layer, cluster = _create(rng, path, this, below)
            comp = rng.random() < 0.5
        # With 512-byte clusters every write touches many tables: fewer of them.
        _scatter(rng, layer, cluster, 8 if cluster < 4 * KIB else 24, comp)
        layers.append(layer)
    return layers


def describe(layers):
    return " <- ".join(f"{l.what} {l.size >> 10}K" for l in layers)
