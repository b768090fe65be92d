/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A new, empty image: header, refcount table, refcount blocks, L1 table, in this order.
 * The header comes last, so that a crash leaves no image rather than half of one. Header and
 * extensions fit in the first sector, the backing name lies behind them: dropping the backing
 * later is the write of one sector.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/byteorder.h"
#include "util/size.h"

#define DEFAULT_CLUSTER_BYTES     65536u
#define DEFAULT_EXT_CLUSTER_BYTES 131072u
#define HEADER_BYTES_V3           112u

/* In clusters. */
struct layout {
    uint64_t cluster, rt, blocks, l1, total;
};

static int plan_layout(struct qcow2_header *h, struct layout *lo, struct error *err)
{
    struct qcow2_geometry g;
    uint64_t entries, per_block, before;

    qcow2_geometry_init(&g, h);
    lo->cluster = qcow2_cluster_bytes(&g);
    per_block = UINT64_C(1) << g.ref_block_bits;
    entries = MAX_OF(qcow2_l1_entries(&g, h->size_bytes), 1);
    if (entries * 8 > QCOW2_MAX_L1_BYTES)
        return error_set(err, EFBIG, "the disk is too large for clusters of %" PRIu64 " bytes",
                         lo->cluster);
    lo->l1 = (entries * 8 + lo->cluster - 1) / lo->cluster;
    lo->rt = lo->blocks = 1;
    do {
        before = lo->rt + lo->blocks;
        lo->total = 1 + lo->rt + lo->blocks + lo->l1;
        lo->blocks = (lo->total + per_block - 1) / per_block;
        lo->rt = (lo->blocks * 8 + lo->cluster - 1) / lo->cluster;
    } while (lo->rt + lo->blocks != before);
    h->l1_entries = (uint32_t)entries;
    h->rt_offset = lo->cluster;
    h->rt_clusters = (uint32_t)lo->rt;
    h->l1_offset = (1 + lo->rt + lo->blocks) * lo->cluster;
    return 0;
}

static int check_opts(const struct qcow2_create_opts *o, uint32_t cluster, struct error *err)
{
    uint32_t min = 1u << (o->extended_l2 ? QCOW2_EXT_MIN_BITS : QCOW2_MIN_CLUSTER_BITS);

    if (cluster & (cluster - 1) || cluster < min || cluster > 1u << QCOW2_MAX_CLUSTER_BITS)
        return error_set(err, EINVAL,
                         "bad cluster size %" PRIu32 " (a power of two, %" PRIu32 " to 2097152)",
                         cluster, min);
    if (o->extended_l2 && o->compat_v2)
        return error_set(err, EINVAL, "version 2 images have no extended L2 entries");
    if (o->refcount_bits > 64 || (o->refcount_bits & (o->refcount_bits - 1)))
        return error_set(err, EINVAL, "bad refcount width %" PRIu32 " (1, 2, 4, 8, 16, 32 or 64)",
                         o->refcount_bits);
    if (o->compat_v2 &&
        (o->lazy_refcounts || o->zstd || (o->refcount_bits && o->refcount_bits != 16)))
        return error_set(err, EINVAL, "version 2 images have none of the new features");
    if (o->size_bytes % QCOW2_SECTOR || o->size_bytes > INT64_MAX / 2)
        return error_set(err, EINVAL, "bad image size %" PRIu64, o->size_bytes);
    if (o->data_file && (o->compat_v2 || !*o->data_file))
        return error_set(err, EINVAL, "%s",
                         o->compat_v2 ? "version 2 images have no data file"
                                      : "the data file has no name");
    if (o->data_file_raw && (!o->data_file || o->backing))
        return error_set(err, EINVAL, "a raw data file needs %s",
                         o->data_file ? "an image without a backing file" : "a data file");
    if (o->backing && (!*o->backing || strlen(o->backing) > QCOW2_MAX_BACKING_NAME))
        return error_set(err, EINVAL, "the backing file name must be 1 to %u bytes long",
                         QCOW2_MAX_BACKING_NAME);
    return 0;
}

static void init_header(const struct qcow2_create_opts *o, uint32_t cluster, struct qcow2_header *h)
{
    *h = (struct qcow2_header){
        .version = o->compat_v2 ? 2 : 3,
        .cluster_bits = (uint32_t)__builtin_ctz(cluster),
        .size_bytes = o->size_bytes,
        .incompatible = (o->extended_l2 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0) |
                        (o->zstd ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                        (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0),
        .autoclear = o->data_file_raw ? QCOW2_AUTOCLEAR_RAW_DATA : 0,
        .compatible = o->lazy_refcounts,
        .compression = o->zstd,
        .refcount_order = o->refcount_bits ? (uint32_t)__builtin_ctz(o->refcount_bits) : 4,
        .header_bytes = o->compat_v2 ? QCOW2_V2_HEADER_BYTES : HEADER_BYTES_V3,
    };
}

/* The first cluster: header, extensions, backing name. */
static int build_first_cluster(const struct qcow2_create_opts *o, struct qcow2_header *h,
                               uint8_t *buf, size_t max, struct error *err)
{
    size_t end = h->header_bytes, name_bytes = o->backing ? strlen(o->backing) : 0;

    if (o->backing && o->backing_fmt)
        end = qcow2_ext_put(buf, end, MIN_OF(max, QCOW2_SECTOR), QCOW2_EXT_BACKING_FORMAT,
                            o->backing_fmt, (uint32_t)strlen(o->backing_fmt));
    if (end && o->data_file)
        end = qcow2_ext_put(buf, end, MIN_OF(max, QCOW2_SECTOR), QCOW2_EXT_DATA_FILE, o->data_file,
                            (uint32_t)strlen(o->data_file));
    if (end)
        end = qcow2_ext_put(buf, end, MIN_OF(max, QCOW2_SECTOR), QCOW2_EXT_END, NULL, 0);
    if (!end && o->data_file)
        return error_set(err, ENOSPC, "the name of the data file is too long for the header (%u)",
                         QCOW2_SECTOR);
    if (!end || name_bytes > max - end)
        return error_set(err, ENOSPC, "no room for the backing file name in a cluster of %zu bytes",
                         max);
    if (o->backing) {
        h->backing_offset = end;
        h->backing_bytes = (uint32_t)name_bytes;
        memcpy(buf + end, o->backing, name_bytes);
    }
    qcow2_header_encode(h, buf);
    return 0;
}

/* Refcount table and blocks as one piece of the file, from cluster 1 on. */
static uint8_t *build_refcounts(const struct layout *lo, const struct qcow2_header *h)
{
    uint8_t *buf = calloc(lo->rt + lo->blocks, lo->cluster);

    if (!buf)
        return NULL;
    for (uint64_t i = 0; i < lo->blocks; i++)
        put_be64(buf + i * 8, (1 + lo->rt + i) * lo->cluster);
    for (uint64_t i = 0; i < lo->total; i++)
        qcow2_refcount_set(buf + lo->rt * lo->cluster, h->refcount_order, (uint32_t)i, 1);
    return buf;
}

static int co_write_image(struct blk_node *file, const struct layout *lo,
                          const struct qcow2_header *h, const uint8_t *first, struct error *err)
{
    uint8_t *refs = build_refcounts(lo, h);
    int ret = refs ? 0 : -ENOMEM;

    if (!ret)
        ret = co_blk_write(file, lo->cluster, refs, (lo->rt + lo->blocks) * lo->cluster, 0);
    free(refs);
    if (!ret)
        ret = co_blk_write_zeroes(file, h->l1_offset, lo->l1 * lo->cluster, 0);
    if (!ret)
        ret = co_blk_flush(file);
    if (!ret)
        ret = co_blk_write(file, 0, first, lo->cluster, 0);
    if (!ret)
        ret = co_blk_flush(file);
    if (ret)
        return error_set(err, -ret, "can't write the new image: %s", strerror(-ret));
    return 0;
}

int co_qcow2_create(struct blk_node *file, const struct qcow2_create_opts *opts, struct error *err)
{
    uint32_t cluster = opts->cluster_bytes;
    struct qcow2_header h;
    struct layout lo = {0};
    uint8_t *first;
    int ret;

    if (!cluster)
        cluster = opts->extended_l2 ? DEFAULT_EXT_CLUSTER_BYTES : DEFAULT_CLUSTER_BYTES;
    ret = check_opts(opts, cluster, err);
    if (ret)
        return ret;
    init_header(opts, cluster, &h);
    ret = plan_layout(&h, &lo, err);
    if (ret)
        return ret;
    first = calloc(1, cluster);
    if (!first)
        return error_set(err, ENOMEM, "out of memory");
    ret = build_first_cluster(opts, &h, first, cluster, err);
    if (!ret)
        ret = co_write_image(file, &lo, &h, first, err);
    free(first);
    return ret;
}
