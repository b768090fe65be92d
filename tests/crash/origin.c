/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The images that lives begin with. Ours are empty, over a raw backing or none; those of
 * qemu-img have what we never make: compressed clusters, internal snapshots, refcounts of other
 * widths.
 */
#include "tests/crash/origin.h"

#include <errno.h>
#include <stdlib.h>
#include "lun-backends/formats.h"
#include "lun-backends/qcow2.h"
#include "tests/crash/qemu.h"
#include "util/byteorder.h"
#include "util/size.h"

#define SECTOR RECORD_SECTOR
#define KIB    UINT64_C(1024)

static const struct world_config configs[] = {
    {.name = "v3, 64K clusters", .cluster_bytes = 65536, .disk_bytes = 2048 * KIB},
    {.name = "v3, 4K clusters", .cluster_bytes = 4096, .disk_bytes = 1024 * KIB + 512},
    {.name = "v3, 512 byte clusters", .cluster_bytes = 512, .disk_bytes = 512 * KIB},
    {.name = "full refcount table",
     .cluster_bytes = 512,
     .disk_bytes = 512 * KIB,
     .full_table = true},
    {.name = "v3, 2M clusters", .cluster_bytes = 2048 * KIB, .disk_bytes = 5000 * KIB},
    {.name = "v2, 64K clusters",
     .cluster_bytes = 65536,
     .disk_bytes = 1024 * KIB + 1536,
     .compat_v2 = true},
    {.name = "v2, 1K clusters", .cluster_bytes = 1024, .disk_bytes = 512 * KIB, .compat_v2 = true},
    {.name = "extended L2, 16K clusters",
     .cluster_bytes = 16384,
     .disk_bytes = 1024 * KIB,
     .extended_l2 = true},
    {.name = "extended L2, 64K clusters",
     .cluster_bytes = 65536,
     .disk_bytes = 2048 * KIB + 2560,
     .extended_l2 = true},
    {.name = "extended L2, 128K clusters",
     .cluster_bytes = 131072,
     .disk_bytes = 3072 * KIB,
     .extended_l2 = true},
    {.name = "compressed",
     .cluster_bytes = 4096,
     .disk_bytes = 1024 * KIB,
     .qemu_options = "-c -o cluster_size=4k"},
    {.name = "compressed, extended L2",
     .cluster_bytes = 16384,
     .disk_bytes = 1024 * KIB,
     .extended_l2 = true,
     .qemu_options = "-c -o cluster_size=16k,extended_l2=on"},
    {.name = "compressed with zstd, 64 bit refcounts, snapshot",
     .cluster_bytes = 65536,
     .disk_bytes = 2048 * KIB,
     .qemu_options = "-c -o compression_type=zstd,refcount_bits=64",
     .snapshot = true},
    {.name = "1 bit refcounts",
     .cluster_bytes = 512,
     .disk_bytes = 256 * KIB,
     .qemu_options = "-o cluster_size=512,refcount_bits=1"},
    {.name = "snapshot, 2 bit refcounts",
     .cluster_bytes = 4096,
     .disk_bytes = 1024 * KIB,
     .qemu_options = "-o cluster_size=4k,refcount_bits=2",
     .snapshot = true},
    {.name = "snapshot, extended L2",
     .cluster_bytes = 32768,
     .disk_bytes = 1024 * KIB,
     .extended_l2 = true,
     .qemu_options = "-o cluster_size=32k,extended_l2=on",
     .snapshot = true},
    {.name = "snapshot, 512 byte clusters",
     .cluster_bytes = 512,
     .disk_bytes = 256 * KIB,
     .qemu_options = "-o cluster_size=512",
     .snapshot = true},
};

static const struct world_config *config_of(uint64_t seed)
{
    return &configs[seed % ARRAY_LEN(configs)];
}

bool world_possible(uint64_t seed)
{
    return qemu_dir() || !config_of(seed)->qemu_options;
}

uint64_t world_max_disk(void)
{
    uint64_t max = 0;

    for (size_t i = 0; i < ARRAY_LEN(configs); i++)
        max = MAX_OF(max, configs[i].disk_bytes * 2);
    return max;
}

/* ---- ours ------------------------------------------------------------------------------ */

/* All clusters that the refcount table can count, but a few, are in use (leaked). */
static void fill_refcounts(struct record_node *rec)
{
    uint64_t cluster = UINT64_C(1) << get_be32(rec->data + 20), rt = get_be64(rec->data + 48);
    uint64_t per_block = cluster / 2, blocks = cluster / 8, limit = blocks * per_block - 40;
    uint64_t next = rec->node.size_bytes / cluster, block;

    record_extend(rec, limit * cluster);
    for (uint64_t i = 0; i < blocks; i++)
        if (!get_be64(rec->data + rt + i * 8))
            put_be64(rec->data + rt + i * 8, next++ * cluster);
    for (uint64_t c = 0; c < limit; c++) {
        block = get_be64(rec->data + rt + c / per_block * 8);
        put_be16(rec->data + block + c % per_block * 2, 1);
    }
}

/* Half of it data, in pieces. */
static void make_base(struct world *w, uint64_t bytes)
{
    uint64_t sectors = bytes / SECTOR, n;

    w->base_bytes = bytes;
    w->base = calloc(1, bytes);
    for (uint64_t s = 0; w->base && s < sectors; s += n) {
        n = 1 + rnd_below(&w->rnd, 200);
        n = MIN_OF(n, sectors - s);
        if (rnd_one_in(&w->rnd, 2))
            version_fill(w->base + s * SECTOR, VERSION_BASE, s, n);
    }
}

static int co_make_backing(struct world *w, struct error *err)
{
    uint64_t disk = w->cfg->disk_bytes, part = rnd_below(&w->rnd, 3);
    struct record_node *file;
    int ret;

    make_base(w, part == 0 ? disk : part == 1 ? disk / 3 / SECTOR * SECTOR : disk * 3 / 2);
    if (!w->base)
        return error_set(err, ENOMEM, "out of memory");
    file = record_node_new(w->base, w->base_bytes);
    ret = co_raw_open(&file->node, false, &w->backing, err);
    co_blk_node_unref(&file->node);
    return ret;
}

static int co_make_ours(struct world *w, struct error *err)
{
    struct qcow2_create_opts opts = {
        .size_bytes = w->cfg->disk_bytes,
        .cluster_bytes = w->cfg->cluster_bytes,
        .extended_l2 = w->cfg->extended_l2,
        .compat_v2 = w->cfg->compat_v2,
    };
    int ret = 0;

    if (!rnd_one_in(&w->rnd, 3))
        ret = co_make_backing(w, err);
    if (w->backing) {
        opts.backing = BACKING_NAME;
        opts.backing_fmt = "raw";
    }
    w->rec = record_node_new(NULL, 0);
    if (!ret)
        ret = co_qcow2_create(&w->rec->node, &opts, err);
    if (!ret && w->cfg->full_table)
        fill_refcounts(w->rec);
    return ret;
}

/* ---- qemu-img's ---------------------------------------------------------------------------- */

/* The base content is in the image itself. */
static int make_qemus(struct world *w, struct error *err)
{
    uint64_t bytes;
    uint8_t *image;

    make_base(w, w->cfg->disk_bytes);
    if (!w->base)
        return error_set(err, ENOMEM, "out of memory");
    if (!qemu_save(SNAPSHOT_NAME, w->base, w->base_bytes) ||
        qemu_sh("qemu-img convert -f raw -O qcow2 %s " SNAPSHOT_NAME " image",
                w->cfg->qemu_options) ||
        (w->cfg->snapshot && qemu_sh("qemu-img snapshot -c " SNAPSHOT_NAME " image")))
        return error_set(err, EIO, "qemu-img failed, see %s/log", qemu_dir());
    image = qemu_load("image", &bytes);
    w->rec = record_node_new(image, bytes);
    free(image);
    return bytes ? 0 : error_set(err, EIO, "can't load qemu-img's image");
}

int co_make_world(struct world *w, uint64_t seed, struct error *err)
{
    int ret;

    *w = (struct world){.rnd = {seed * 1000003}, .cfg = config_of(seed)};
    ret = w->cfg->qemu_options ? make_qemus(w, err) : co_make_ours(w, err);
    versions_init(&w->ver, w->cfg->disk_bytes * 2 / SECTOR);
    for (uint64_t s = 0; s < MIN_OF(w->base_bytes, w->cfg->disk_bytes) / SECTOR; s++)
        w->ver.sector[s].initial = version_of(w->base + s * SECTOR, s);
    return ret;
}

void co_free_world(struct world *w)
{
    versions_free(&w->ver);
    if (w->rec)
        co_blk_node_unref(&w->rec->node);
    co_blk_node_unref(w->backing);
    free(w->base);
}
