/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 checker: repair of refcounts. In place where the refcount blocks are all there; where
 * not, a whole new refcount structure behind the end of the file, durable before the header
 * points to it. Counts that are too low are raised before anything relies on them. Where a file
 * was cut off, what is lost keeps its place: else new clusters would be data of two owners.
 */
#include "lun-backends/qcow2-check-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/size.h"

static uint64_t max_refcount(const struct qcheck *c)
{
    return c->g.refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << c->g.refcount_order)) - 1;
}

static int co_write_header(struct qcheck *c)
{
    int ret = co_blk_write(c->file, 0, c->sector, sizeof(c->sector), 0);

    return ret ? ret : co_blk_flush(c->file);
}

/* ---- in place -------------------------------------------------------------------------------- */

static bool fix_one(struct qcheck *c, uint64_t cluster, uint32_t index)
{
    uint64_t disk = qcow2_refcount_get(c->block, c->g.refcount_order, index);
    uint64_t counted = qcheck_refs(c, cluster);

    if (disk == counted || counted > max_refcount(c) || qcheck_is_lost(c, cluster))
        return false;
    if (disk > counted && !(c->fix & QCOW2_FIX_LEAKS))
        return false;
    if (disk < counted && !(c->fix & QCOW2_FIX_ERRORS))
        return false;
    if (disk < counted) {
        c->res->corruptions--;
        c->res->corruptions_fixed++;
    } else {
        c->res->leaks -= cluster < c->clusters;
        c->res->leaks_fixed++;
    }
    qcow2_refcount_set(c->block, c->g.refcount_order, index, counted);
    return true;
}

static int co_fix_block(struct qcheck *c, uint64_t block)
{
    uint32_t count = UINT32_C(1) << c->g.ref_block_bits;
    bool changed = false;
    int ret = co_qcheck_load_block(c, block);

    if (ret)
        return ret;
    for (uint32_t i = 0; i < count; i++)
        changed |= fix_one(c, (block << c->g.ref_block_bits) + i, i);
    if (!changed)
        return 0;
    return co_blk_write(c->file, c->rt[block], c->block, qcow2_cluster_bytes(&c->g), 0);
}

static int co_fix_in_place(struct qcheck *c)
{
    int ret = 0;

    for (uint64_t i = 0; i < c->rt_entries && !ret; i++)
        if (c->rt[i])
            ret = co_fix_block(c, i);
    return ret ? ret : co_blk_flush(c->file);
}

/* A cluster in use that no refcount block counts. */
static bool blocks_are_missing(const struct qcheck *c)
{
    for (uint64_t i = 0; i <= (c->clusters - 1) >> c->g.ref_block_bits; i++) {
        uint64_t first = i << c->g.ref_block_bits;
        uint64_t end = MIN_OF(first + (UINT64_C(1) << c->g.ref_block_bits), c->clusters);

        if (i < c->rt_entries && c->rt[i])
            continue;
        for (uint64_t j = first; j < end; j++)
            if (qcheck_refs(c, j))
                return true;
    }
    return false;
}

/* ---- from new -------------------------------------------------------------------------------- */

struct rebuilt {
    uint64_t first;               /* cluster; behind the file and all that is lost of it */
    uint64_t blocks, rt_clusters; /* in this order, from there on */
    uint64_t total;               /* clusters of the file then */
};

static void plan(const struct qcheck *c, struct rebuilt *r)
{
    uint64_t per_block = UINT64_C(1) << c->g.ref_block_bits;
    uint64_t cluster = qcow2_cluster_bytes(&c->g), before;

    r->first = MAX_OF(c->clusters, c->lost_end);
    r->blocks = r->rt_clusters = 1;
    do {
        before = r->blocks + r->rt_clusters;
        r->total = r->first + before;
        r->blocks = (r->total + per_block - 1) / per_block;
        r->rt_clusters = (r->blocks * 8 + cluster - 1) / cluster;
    } while (r->blocks + r->rt_clusters != before);
}

static uint64_t rebuilt_ref(const struct qcheck *c, const struct rebuilt *r, uint64_t cluster)
{
    if (cluster < c->clusters)
        return qcheck_refs(c, cluster);
    return cluster >= r->first || qcheck_is_lost(c, cluster);
}

static int co_write_blocks(struct qcheck *c, const struct rebuilt *r)
{
    uint32_t per_block = UINT32_C(1) << c->g.ref_block_bits;
    int ret = 0;

    c->block_index = UINT64_MAX;
    for (uint64_t b = 0; b < r->blocks && !ret; b++) {
        memset(c->block, 0, qcow2_cluster_bytes(&c->g));
        for (uint32_t i = 0; i < per_block && b * per_block + i < r->total; i++) {
            uint64_t refs = rebuilt_ref(c, r, b * per_block + i), max = max_refcount(c);

            c->res->corruptions += refs > max; /* still */
            qcow2_refcount_set(c->block, c->g.refcount_order, i, MIN_OF(refs, max));
        }
        ret = co_blk_write(c->file, (r->first + b) << c->g.cluster_bits, c->block,
                           qcow2_cluster_bytes(&c->g), 0);
    }
    return ret;
}

static int co_write_table(struct qcheck *c, const struct rebuilt *r)
{
    uint64_t bytes = r->rt_clusters << c->g.cluster_bits;
    uint64_t *rt = calloc(bytes / 8, 8);
    uint8_t *raw = calloc(1, bytes);
    int ret = -ENOMEM;

    if (rt && raw) {
        for (uint64_t b = 0; b < r->blocks; b++) {
            rt[b] = (r->first + b) << c->g.cluster_bits;
            put_be64(raw + b * 8, rt[b]);
        }
        ret = co_blk_write(c->file, (r->first + r->blocks) << c->g.cluster_bits, raw, bytes, 0);
    }
    free(raw);
    if (ret) {
        free(rt);
        return ret;
    }
    free(c->rt);
    c->rt = rt;
    c->rt_entries = bytes / 8;
    return 0;
}

static int co_switch(struct qcheck *c, const struct rebuilt *r)
{
    uint64_t offset = (r->first + r->blocks) << c->g.cluster_bits;
    int ret;

    put_be64(c->sector + QCOW2_POS_RT_OFFSET, offset);
    put_be32(c->sector + QCOW2_POS_RT_CLUSTERS, (uint32_t)r->rt_clusters);
    ret = co_write_header(c);
    if (ret)
        return ret;
    c->h.rt_offset = offset;
    c->h.rt_clusters = (uint32_t)r->rt_clusters;
    c->clusters = r->total;
    c->file_bytes = c->file->size_bytes;
    return 0;
}

static bool too_large(const struct qcheck *c, const struct rebuilt *r)
{
    return r->rt_clusters << c->g.cluster_bits >
           MAX_OF(QCOW2_MAX_RT_BYTES, qcow2_cluster_bytes(&c->g));
}

/* What was counted as wrong in refcounts and their structures is right after it; the rest, which
 * the new counting finds again, is not. */
static int co_rebuild(struct qcheck *c, struct error *err)
{
    struct qcow2_check_result before = *c->res;
    struct rebuilt r;
    int ret;

    qcheck_say(c, "Rebuilding the refcount structure");
    qcheck_forget(c);
    *c->res = (struct qcow2_check_result){
        .total_clusters = before.total_clusters,
        .corruptions_fixed = before.corruptions_fixed,
    };
    c->say = NULL; /* all has been said */
    ret = co_qcheck_count_all(c, false);
    if (!ret && c->res->check_errors)
        ret = -EIO;
    plan(c, &r);
    if (!ret && too_large(c, &r))
        return error_set(err, EFBIG, "the file is too large for a refcount table");
    if (!ret && c->lost_end == c->clusters + QCHECK_LOST_CLUSTERS)
        return error_set(err, EFBIG,
                         "the file ends at %" PRIu64
                         " bytes, too much of it is missing: take a whole copy",
                         c->file_bytes);
    c->res->image_end_bytes = r.total << c->g.cluster_bits;
    if (!ret)
        ret = co_write_blocks(c, &r);
    if (!ret)
        ret = co_write_table(c, &r);
    if (!ret)
        ret = co_blk_flush(c->file);
    if (!ret)
        ret = co_switch(c, &r);
    if (ret)
        return error_set(err, -ret, "rebuilding the refcounts: %s", strerror(-ret));
    c->res->corruptions_fixed +=
        before.corruptions - MIN_OF(before.corruptions, c->res->corruptions);
    c->res->leaks_fixed += before.leaks;
    return 0;
}

int co_qcheck_fix_refcounts(struct qcheck *c, struct error *err)
{
    qcow2_say_fn *say = c->say;
    int ret;

    if ((c->fix & QCOW2_FIX_ERRORS) && (c->rebuild || (c->low && blocks_are_missing(c)))) {
        ret = co_rebuild(c, err);
        c->say = say;
        return ret;
    }
    if (c->rebuild) /* a block that is also something else must not be written to */
        return 0;
    ret = co_fix_in_place(c);
    return ret ? error_set(err, -ret, "repairing refcounts: %s", strerror(-ret)) : 0;
}

int co_qcheck_raw_bit(struct qcheck *c, struct error *err)
{
    int ret;

    if (!(c->h.autoclear & QCOW2_AUTOCLEAR_RAW_DATA) || c->g.external)
        return 0;
    if (!(c->fix & QCOW2_FIX_ERRORS)) {
        qcheck_corrupt(c, "the header speaks of a raw data file, and there is none");
        return 0;
    }
    put_be64(c->sector + QCOW2_POS_AUTOCLEAR, c->h.autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_RAW_DATA);
    ret = co_write_header(c);
    c->res->corruptions_fixed += !ret;
    return ret ? error_set(err, -ret, "repairing the header: %s", strerror(-ret)) : 0;
}

int co_qcheck_mark_clean(struct qcheck *c, struct error *err)
{
    const uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
    int ret;

    if (c->h.version < 3 || !(c->h.incompatible & marks))
        return 0;
    ret = co_blk_flush(c->file);
    put_be64(c->sector + 72, c->h.incompatible & ~marks);
    if (!ret)
        ret = co_write_header(c);
    return ret ? error_set(err, -ret, "marking the image clean: %s", strerror(-ret)) : 0;
}
