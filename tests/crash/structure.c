/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counts the uses of each host cluster of a qcow2 image and compares with its refcounts.
 * All offsets are checked before they are followed. Section names are those of QEMU's
 * docs/interop/qcow2.txt.
 */
#include "tests/crash/structure.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/byteorder.h"

#define OFFSET_MASK     UINT64_C(0x00fffffffffffe00)
#define FLAG_COPIED     (UINT64_C(1) << 63)
#define FLAG_COMPRESSED (UINT64_C(1) << 62)
#define FLAG_ZERO       UINT64_C(1)
#define INCOMPAT_DATA   (UINT64_C(1) << 2)
#define INCOMPAT_L2_EXT (UINT64_C(1) << 4)
#define AUTOCLEAR_RAW   (UINT64_C(1) << 1)

struct image {
    const uint8_t *data;
    uint64_t bytes;
    struct structure *out;

    uint32_t version, cluster_bits, refcount_bits, l1_entries, rt_clusters;
    uint32_t nr_snapshots;
    uint64_t disk_bytes, l1_offset, rt_offset, snapshots_offset, cluster;
    bool extended;
    bool external, raw; /* data lies in another file, which is the disk */
    uint64_t nr_clusters;
    uint32_t *uses;
};

static bool __attribute__((format(printf, 2, 3))) wrong(struct image *im, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(im->out->text, sizeof(im->out->text), fmt, ap);
    va_end(ap);
    return false;
}

/* The file may end inside the last cluster, and reads zeros from there. */
static uint64_t be64_at(const struct image *im, uint64_t offset)
{
    return offset + 8 <= im->bytes ? get_be64(im->data + offset) : 0;
}

static bool use(struct image *im, uint64_t offset, const char *what)
{
    if (!offset || offset & (im->cluster - 1))
        return wrong(im, "%s at %#" PRIx64 " is not aligned", what, offset);
    if (offset >= im->bytes)
        return wrong(im, "%s at %#" PRIx64 " is outside the file", what, offset);
    im->uses[offset >> im->cluster_bits]++;
    return true;
}

static bool use_range(struct image *im, uint64_t offset, uint64_t clusters, const char *what)
{
    for (uint64_t i = 0; i < clusters; i++)
        if (!use(im, offset + i * im->cluster, what))
            return false;
    return true;
}

static bool read_header(struct image *im)
{
    const uint8_t *d = im->data;

    if (im->bytes < 104 || get_be32(d) != 0x514649fbu)
        return wrong(im, "no qcow2 header");
    im->version = get_be32(d + 4);
    im->cluster_bits = get_be32(d + 20);
    im->disk_bytes = get_be64(d + 24);
    im->l1_entries = get_be32(d + 36);
    im->l1_offset = get_be64(d + 40);
    im->rt_offset = get_be64(d + 48);
    im->rt_clusters = get_be32(d + 56);
    im->nr_snapshots = get_be32(d + 60);
    im->snapshots_offset = get_be64(d + 64);
    im->refcount_bits = 16;
    if (im->version == 3) {
        im->extended = get_be64(d + 72) & INCOMPAT_L2_EXT;
        im->external = get_be64(d + 72) & INCOMPAT_DATA;
        im->raw = im->external && get_be64(d + 88) & AUTOCLEAR_RAW;
        im->refcount_bits = get_be32(d + 96) <= 6 ? 1u << get_be32(d + 96) : 0;
    }
    if ((im->version != 2 && im->version != 3) || im->cluster_bits < 9 || im->cluster_bits > 21 ||
        !im->refcount_bits)
        return wrong(im, "header fields make no sense");
    im->cluster = UINT64_C(1) << im->cluster_bits;
    im->nr_clusters = (im->bytes + im->cluster - 1) >> im->cluster_bits;
    if (im->l1_entries > im->bytes / 8 || im->nr_snapshots > im->bytes / 40 ||
        im->rt_clusters > im->nr_clusters || !im->rt_clusters)
        return wrong(im, "tables are larger than the file");
    return true;
}

/* ---- refcounts ----------------------------------------------------------------------- */

static uint64_t refcount_in(const struct image *im, uint64_t block, uint64_t index)
{
    uint64_t bit = index * im->refcount_bits, value = 0;
    const uint8_t *p = im->data + block + bit / 8;

    if (block + bit / 8 + (im->refcount_bits + 7) / 8 > im->bytes)
        return 0;
    if (im->refcount_bits < 8)
        return *p >> bit % 8 & ((1u << im->refcount_bits) - 1);
    for (unsigned i = 0; i < im->refcount_bits / 8; i++)
        value = value << 8 | p[i];
    return value;
}

static uint64_t refcount(const struct image *im, uint64_t cluster)
{
    uint64_t per_block = im->cluster * 8 / im->refcount_bits, index = cluster / per_block;
    uint64_t block = 0;

    if (index < im->rt_clusters * im->cluster / 8)
        block = be64_at(im, im->rt_offset + index * 8);
    return block ? refcount_in(im, block, cluster % per_block) : 0;
}

static bool use_refcount_tables(struct image *im)
{
    if (!use_range(im, im->rt_offset, im->rt_clusters, "refcount table"))
        return false;
    for (uint64_t i = 0; i < im->rt_clusters * im->cluster / 8; i++) {
        uint64_t block = be64_at(im, im->rt_offset + i * 8);

        if (block && !use(im, block, "refcount block"))
            return false;
    }
    return true;
}

static bool compare_counts(struct image *im)
{
    for (uint64_t c = 0; c < im->nr_clusters; c++) {
        uint64_t refs = refcount(im, c);

        if (refs < im->uses[c])
            return wrong(im, "cluster %#" PRIx64 " is used %u times, counted %" PRIu64,
                         c << im->cluster_bits, im->uses[c], refs);
        im->out->leaked_clusters += refs > im->uses[c];
    }
    return true;
}

/* ---- mapping ------------------------------------------------------------------------- */

/* In tables of the disk itself; those of snapshots don't keep the flag. */
static bool check_copied(struct image *im, bool active, uint64_t entry, uint64_t host)
{
    uint64_t refs = refcount(im, host >> im->cluster_bits);

    if (active && !(entry & FLAG_COPIED) != (refs != 1))
        return wrong(im, "cluster %#" PRIx64 " is counted %" PRIu64 ", COPIED is %d", host, refs,
                     !!(entry & FLAG_COPIED));
    return true;
}

/* Compressed Clusters Descriptor: in sectors, not aligned, several in one cluster. */
static bool use_compressed(struct image *im, uint64_t entry)
{
    unsigned x = 62 - (im->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << x) - 1);
    uint64_t sectors = ((entry & (FLAG_COMPRESSED - 1)) >> x) + 1;
    uint64_t last = (offset & ~UINT64_C(511)) + sectors * 512 - 1;

    for (uint64_t c = offset >> im->cluster_bits; c <= last >> im->cluster_bits; c++)
        if (!use(im, c << im->cluster_bits, "compressed data"))
            return false;
    return true;
}

/* "the offset may be 0", nothing is counted, and nobody shares. */
static bool check_external(struct image *im, uint64_t at, uint64_t guest, uint64_t entry)
{
    uint64_t host = entry & OFFSET_MASK;

    if (!(entry & FLAG_COPIED))
        return host ? wrong(im, "L2 entry at %#" PRIx64 ": external and not COPIED", at) : true;
    if (host & (im->cluster - 1) || (im->raw && host != guest))
        return wrong(im, "L2 entry at %#" PRIx64 ": guest %#" PRIx64 " is at %#" PRIx64, at, guest,
                     host);
    return true;
}

static bool check_bitmap(struct image *im, uint64_t at, uint64_t entry, uint64_t bitmap)
{
    uint32_t alloc = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);

    if (alloc & zero)
        return wrong(im, "L2 entry at %#" PRIx64 ": subclusters are data and zeros", at);
    if (alloc && !(entry & (im->external ? FLAG_COPIED : OFFSET_MASK)))
        return wrong(im, "L2 entry at %#" PRIx64 ": subclusters have no cluster", at);
    return true;
}

static bool check_l2_entry(struct image *im, uint64_t at, uint64_t guest, bool active)
{
    uint64_t entry = be64_at(im, at), host = entry & OFFSET_MASK;

    if (entry & FLAG_COMPRESSED)
        return entry & FLAG_COPIED ? wrong(im, "L2 entry at %#" PRIx64 ": COPIED compressed", at)
                                   : use_compressed(im, entry);
    if (im->extended && !check_bitmap(im, at, entry, be64_at(im, at + 8)))
        return false;
    if (entry & FLAG_ZERO && (im->extended || im->version < 3))
        return wrong(im, "L2 entry at %#" PRIx64 " has the zero flag", at);
    if (entry & ~(FLAG_COPIED | OFFSET_MASK | FLAG_ZERO))
        return wrong(im, "L2 entry at %#" PRIx64 " has reserved bits set", at);
    if (im->external)
        return check_external(im, at, guest, entry);
    if (!host)
        return entry & FLAG_COPIED ? wrong(im, "L2 entry at %#" PRIx64 ": COPIED nothing", at)
                                   : true;
    return check_copied(im, active, entry, host) && use(im, host, "data");
}

static bool check_l1(struct image *im, uint64_t offset, uint64_t entries, bool active)
{
    uint32_t entry_bytes = im->extended ? 16 : 8;
    uint64_t clusters = (entries * 8 + im->cluster - 1) / im->cluster, guest = 0;

    if (entries > im->bytes / 8 || !use_range(im, offset, clusters, "L1 table"))
        return false;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t l1 = be64_at(im, offset + i * 8), table = l1 & OFFSET_MASK;

        if (l1 & ~(OFFSET_MASK | FLAG_COPIED) || (l1 && !table))
            return wrong(im, "L1 entry %" PRIu64 " is %#" PRIx64, i, l1);
        guest = i * (im->cluster / entry_bytes) * im->cluster;
        if (!l1)
            continue;
        if (!check_copied(im, active, l1, table) || !use(im, table, "L2 table"))
            return false;
        for (uint64_t at = table; at < table + im->cluster; at += entry_bytes, guest += im->cluster)
            if (!check_l2_entry(im, at, guest, active))
                return false;
    }
    return true;
}

static bool check_disk(struct image *im)
{
    uint64_t span = im->cluster / (im->extended ? 16 : 8) * im->cluster;

    if ((im->disk_bytes + span - 1) / span > im->l1_entries)
        return wrong(im, "the L1 table is too short for the disk");
    return check_l1(im, im->l1_offset, im->l1_entries, true);
}

static bool check_snapshots(struct image *im)
{
    uint64_t at = im->snapshots_offset, bytes;

    for (uint32_t i = 0; i < im->nr_snapshots; i++) {
        const uint8_t *d = im->data + at;

        if (at > im->bytes || im->bytes - at < 40)
            return wrong(im, "snapshot %" PRIu32 " is outside the file", i);
        if (!check_l1(im, get_be64(d), get_be32(d + 8), false))
            return false;
        bytes = 40 + (uint64_t)get_be32(d + 36) + get_be16(d + 12) + get_be16(d + 14);
        at += (bytes + 7) & ~UINT64_C(7);
    }
    return !im->nr_snapshots ||
           use_range(im, im->snapshots_offset,
                     (at - im->snapshots_offset + im->cluster - 1) / im->cluster, "snapshot table");
}

bool structure_check(const uint8_t *image, uint64_t bytes, struct structure *out)
{
    struct image im = {.data = image, .bytes = bytes, .out = out};
    bool ok;

    *out = (struct structure){0};
    if (!read_header(&im))
        return false;
    im.uses = calloc(im.nr_clusters, sizeof(*im.uses));
    if (!im.uses)
        return wrong(&im, "out of memory");
    im.uses[0] = 1;
    ok = use_refcount_tables(&im) && check_disk(&im) && check_snapshots(&im) && compare_counts(&im);
    free(im.uses);
    return ok;
}
