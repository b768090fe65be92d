/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The size of the disk. Growing: all that the new part needs is durable before the header gives
 * the new size. Shrinking: the header comes first, then what lies behind the new end is freed; a
 * crash in between leaves it referred to, out of reach, and a later growth hides it.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/bitmap.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

/* ---- growing ---------------------------------------------------------------------------- */

/* Makes the L1 table large enough in memory; the place for it on disk in *host, 0: not needed. */
static int co_grow_l1(struct qcow2 *q, uint64_t entries, uint64_t *host, uint8_t **image)
{
    uint64_t clusters = ((entries * 8 - 1) >> q->g.cluster_bits) + 1;
    uint64_t bytes = clusters << q->g.cluster_bits;
    uint64_t *l1, *dirty;
    int ret;

    *host = 0;
    *image = NULL;
    if (entries <= q->h.l1_entries)
        return 0;
    if (entries * 8 > QCOW2_MAX_L1_BYTES)
        return -EFBIG;
    l1 = calloc(entries, 8);
    dirty = calloc(BITMAP_WORDS(entries / 64 + 1), 8);
    *image = aligned_alloc(QCOW2_SECTOR, bytes);
    ret = l1 && dirty && *image ? co_qcow2_alloc_at_end(q, clusters, host) : -ENOMEM;
    if (ret) {
        free(l1);
        free(dirty);
        free(*image);
        *image = NULL;
        return ret;
    }
    memset(*image, 0, bytes);
    memcpy(l1, q->l1, (uint64_t)q->h.l1_entries * 8);
    for (uint64_t i = 0; i < q->h.l1_entries; i++)
        put_be64(*image + i * 8, l1[i]);
    free(q->l1);
    free(q->l1_dirty);
    q->l1 = l1;
    q->l1_dirty = dirty;
    return 0;
}

/* Makes the image's L1 table @entries long: the new one durable, then the header that names it.
 * Nothing is dirty. */
static int co_switch_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t old_clusters = (((uint64_t)q->h.l1_entries * 8 - 1) >> q->g.cluster_bits) + 1, host;
    uint8_t sector[QCOW2_SECTOR], *image;
    int ret = co_grow_l1(q, entries, &host, &image);

    if (ret || !host)
        return ret;
    ret = co_qcow2_cycle(q); /* its refcounts */
    if (!ret)
        ret = co_blk_write(qcow2_file(q), host, image,
                           round_up_pow2(entries * 8, qcow2_cluster_bytes(&q->g)), BLK_META);
    if (!ret)
        ret = co_blk_flush(qcow2_file(q));
    free(image);
    if (ret) {
        co_qcow2_free_now(q, host, ((entries * 8 - 1) >> q->g.cluster_bits) + 1);
        return ret;
    }
    memcpy(sector, q->header_sector, QCOW2_SECTOR);
    put_be32(sector + QCOW2_POS_L1_ENTRIES, (uint32_t)entries);
    put_be64(sector + QCOW2_POS_L1_OFFSET, host);
    ret = co_qcow2_write_header_sector(q, sector);
    if (ret)
        return ret; /* the header may have got through: both tables stay as they are */
    if (q->h.l1_entries)
        qcow2_free_later(q, q->h.l1_offset, old_clusters);
    q->h.l1_entries = (uint32_t)entries;
    q->h.l1_offset = host;
    return 0;
}

/* What the backing has behind the old end must not show. */
static int co_hide_backing(struct qcow2 *q, uint64_t old_bytes)
{
    struct blk_node *backing = q->node.backing.child;
    uint64_t end;

    if (!backing || backing->size_bytes <= old_bytes)
        return 0;
    end = MIN_OF(backing->size_bytes, q->node.size_bytes);
    return end > old_bytes ? co_blk_write_zeroes(&q->node, old_bytes, end - old_bytes, 0) : 0;
}

/* Nor what tables behind the old end still map: the VM state of a snapshot that was applied, or
 * what a shrink left behind when it was cut off. */
static int co_hide_leftovers(struct qcow2 *q, uint64_t old_bytes)
{
    uint32_t span_bits = q->g.cluster_bits + q->g.l2_bits;
    uint64_t pos = old_bytes, size = q->node.size_bytes;
    struct qrun run;
    int ret = 0;

    while (pos < size && !ret) {
        if (pos >> span_bits >= q->h.l1_entries)
            break;
        ret = co_qcow2_map(q, pos, size - pos, &run);
        if (!ret && (run.kind == QRUN_DATA || run.kind == QRUN_COMPRESSED))
            ret = co_blk_write_zeroes(&q->node, pos, run.bytes, BLK_MAY_UNMAP);
        pos += run.bytes;
    }
    return ret;
}

/* A data file that is the disk has the disk's size. */
static int co_resize_raw_data(struct qcow2 *q, uint64_t size_bytes)
{
    struct blk_node *data = q->node.data.child;
    struct error ignored = ERROR_INIT;

    return qcow2_data_is_raw(q) ? data->drv->co_resize(data, size_bytes, &ignored) : 0;
}

static int co_write_size(struct qcow2 *q, uint64_t size_bytes)
{
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    co_mutex_lock(&q->header_lock);
    memcpy(sector, q->header_sector, QCOW2_SECTOR);
    put_be64(sector + QCOW2_POS_SIZE, size_bytes);
    ret = co_qcow2_write_header_sector(q, sector);
    if (!ret)
        q->h.size_bytes = size_bytes;
    co_mutex_unlock(&q->header_lock);
    return ret;
}

/* header_lock not held. */
static int co_grow(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t old_bytes = q->node.size_bytes;
    int ret = co_qcow2_settle(q);

    co_mutex_lock(&q->header_lock);
    if (!ret)
        ret = co_switch_l1(q, qcow2_l1_entries(&q->g, size_bytes));
    co_mutex_unlock(&q->header_lock);
    if (!ret)
        ret = co_resize_raw_data(q, size_bytes);
    if (ret)
        return ret;
    q->node.size_bytes = size_bytes;
    ret = co_hide_leftovers(q, old_bytes);
    if (!ret)
        ret = co_hide_backing(q, old_bytes);
    if (!ret)
        ret = co_qcow2_map_raw_data(q, old_bytes);
    if (!ret)
        ret = co_qcow2_settle(q);
    if (!ret)
        ret = co_write_size(q, size_bytes);
    if (ret)
        q->node.size_bytes = old_bytes;
    return ret;
}

static int check_size(struct qcow2 *q, uint64_t size_bytes, struct error *err)
{
    if (q->node.read_only)
        return error_set(err, EROFS, "%s is open read-only", qcow2_name(q));
    if (q->corrupt)
        return error_set(err, EIO, "%s is corrupt", qcow2_name(q));
    if (size_bytes % QCOW2_SECTOR || size_bytes > INT64_MAX / 2)
        return error_set(err, EINVAL, "bad image size %" PRIu64, size_bytes);
    if (q->h.version < 3 && q->h.nr_snapshots)
        return error_set(err, ENOTSUP, "version 2 images with snapshots can't be resized");
    return 0;
}

static int say_end(struct qcow2 *q, int ret, struct error *err)
{
    if (ret)
        return error_set(err, -ret, "can't resize %s: %s", qcow2_name(q), strerror(-ret));
    if (qcow2_fit_cache(q))
        log_warn("%s: out of memory, the metadata cache keeps its size", qcow2_name(q));
    blk_node_notify(&q->node, BLK_EV_RESIZED);
    return 0;
}

int co_qcow2_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret = check_size(q, size_bytes, err);

    if (ret)
        return ret;
    if (size_bytes < q->h.size_bytes)
        return error_set(err, ENOTSUP, "%s would lose data: it can't be shrunk while in use",
                         qcow2_name(q));
    return say_end(q, co_grow(q, size_bytes), err);
}

/* ---- shrinking --------------------------------------------------------------------------- */

/* All entries in [pos, end), whole clusters, come to say nothing; their clusters are freed. */
static int co_drop_entries(struct qcow2 *q, uint64_t pos, uint64_t end)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g);
    uint32_t span_bits = q->g.cluster_bits + q->g.l2_bits;
    const struct qcow2_entry nothing = {0};
    struct qcow2_entry e;
    struct qchange c;
    int ret = 0;

    while (pos < end && !ret) {
        if (!(q->l1[pos >> span_bits] & QCOW2_OFFSET_MASK)) {
            pos = ((pos >> span_bits) + 1) << span_bits;
            continue;
        }
        ret = co_qchange_begin(&c, q, pos, end, true);
        for (; !ret && c.pos < c.end; c.pos += cluster) {
            if (!qcow2_get_entry(q, c.slice, c.pos, &e)) {
                qchange_end(&c);
                return -EIO;
            }
            qcow2_free_entry_later(q, &e);
            qchange_set_entry(&c, c.pos, &nothing);
        }
        if (!ret) {
            pos = c.end;
            qchange_end(&c);
        }
        co_pause();
    }
    return ret;
}

/* Also from the cache: a new table of that place has entries of its own. */
void qcow2_drop_table(struct qcow2 *q, uint64_t index)
{
    uint32_t bits = q->g.cluster_bits + q->g.l2_bits - q->g.slice_span_bits;

    for (uint64_t s = index << bits; s < (index + 1) << bits; s++)
        qcache_forget(&q->l2, s);
    qcow2_free_later(q, q->l1[index] & QCOW2_OFFSET_MASK, 1);
    qcow2_set_l1(q, index, 0);
}

/* The tables of L1 entries from @first on, which map nothing any more, durably. */
static void drop_tables(struct qcow2 *q, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++)
        if (q->l1[i] & QCOW2_OFFSET_MASK)
            qcow2_drop_table(q, i);
}

/* The file ends with the last cluster in use. */
static int co_cut_file(struct qcow2 *q)
{
    struct blk_node *file = qcow2_file(q);
    struct error ignored = ERROR_INIT;
    uint64_t end;
    int ret = co_qcow2_find_end(q);

    end = q->end_cluster << q->g.cluster_bits;
    if (ret || !file->drv->co_resize || end >= file->size_bytes)
        return ret;
    ret = file->drv->co_resize(file, end, &ignored);
    q->fresh_cluster = ret ? q->fresh_cluster : q->end_cluster;
    return ret == -ENOTSUP ? 0 : ret;
}

static int co_shrink(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t old_end = round_up_pow2(q->node.size_bytes, qcow2_cluster_bytes(&q->g));
    uint64_t first = round_up_pow2(size_bytes, qcow2_cluster_bytes(&q->g));
    uint64_t entries = qcow2_l1_entries(&q->g, size_bytes);
    uint64_t tail = MIN_OF(first, q->node.size_bytes) - size_bytes;
    int ret = co_qcow2_settle(q);

    if (!ret)
        ret = co_write_size(q, size_bytes);
    if (ret)
        return ret;
    if (tail) /* of the last cluster that stays: zeros when the disk grows again */
        ret = co_blk_write_zeroes(&q->node, size_bytes, tail, 0);
    q->node.size_bytes = round_up_pow2(size_bytes, QCOW2_SECTOR);
    if (!ret)
        ret = co_drop_entries(q, first, old_end);
    if (!ret)
        ret = co_qcow2_settle(q);
    if (!ret)
        drop_tables(q, entries,
                    (old_end - 1) / (UINT64_C(1) << (q->g.cluster_bits + q->g.l2_bits)) + 1);
    if (!ret)
        ret = co_qcow2_settle(q);
    if (!ret && q->g.external && !qcow2_data_is_raw(q))
        co_blk_discard(q->node.data.child, first, old_end - first);
    if (!ret)
        ret = co_resize_raw_data(q, size_bytes);
    return ret ? ret : co_cut_file(q);
}

int co_qcow2_shrink(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret = check_size(q, size_bytes, err);

    if (ret)
        return ret;
    if (size_bytes >= node->size_bytes)
        return size_bytes == node->size_bytes ? 0 : co_qcow2_resize(node, size_bytes, err);
    return say_end(q, co_shrink(q, size_bytes), err);
}
