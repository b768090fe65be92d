# SPDX-License-Identifier: BSD-3-Clause
"""Mappings of a LUN and of an image, made comparable.

qemu-img map --output=json gives, of each extent, the depth of the layer that decides, zero, data
and present. What no layer has a say about has no depth on the wire; qemu-img names the base there
(present false, and not the end of a shorter parent).
"""
import json

from cowtest import program, qemu_img, run


def qemu_map(image, fmt):
    args = ["-f", fmt] if fmt else []
    return whole_sectors(json.loads(qemu_img("map", "--output=json", *args, image).stdout))


def whole_sectors(extents):
    """A raw file may end inside a sector, which a LUN can only show as a whole: it is what its
    first byte is."""
    out = []
    for e in extents:
        start, end = (-(-at // 512) * 512 for at in (e["start"], e["start"] + e["length"]))
        if start < end:
            out.append({**e, "start": start, "length": end - start})
    return out


def merge(extents):
    """Neighbours with the same answer joined: [(start, end, answer)]."""
    out = []
    for start, length, answer in extents:
        if out and out[-1][2] == answer and out[-1][1] == start:
            out[-1] = (out[-1][0], start + length, answer)
        else:
            out.append((start, start + length, answer))
    return out


def first_difference(ours, qemus):
    for a, b in zip(ours, qemus):
        if a != b:
            return f"ours {a}, qemu-img's {b}"
    if len(ours) != len(qemus):
        return f"{len(ours)} extents, qemu-img has {len(qemus)}; last {ours[-1]} {qemus[-1]}"
    return ""


def layer_view(extents, layers_below):
    """qemu-img's map in the words of GET LAYER STATUS."""
    out = []
    for e in extents:
        if e["data"]:
            answer = ("data", e["depth"])
        elif not e["present"] and e["depth"] == layers_below:
            answer = ("undecided", None)
        else:
            answer = ("zero", e["depth"])
        out.append((e["start"], e["length"], answer))
    return merge(out)


def lunmap(url, *args):
    return json.loads(run(program("lunmap"), *args, url).stdout)


def layer_status(url, *args):
    return merge((e["start"], e["length"],
                  ("data" if e["state"] == "compressed" else e["state"], e.get("depth")))
                 for e in lunmap(url, *args))


def lba_status(url, *args):
    return merge((e["start"], e["length"], e["state"]) for e in lunmap(url, "-l", *args))


def flat_view(extents):
    return merge((e["start"], e["length"], "mapped" if e["data"] else "deallocated") for e in extents)


def delta_view(extents):
    def state(e):
        return "mapped" if e["data"] else "anchored" if e["present"] else "deallocated"
    return merge((e["start"], e["length"], state(e)) for e in extents)
