/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of the image header: backing reference, size, auto-clear bits.
 * Invariant: the step that changes what the image means is the write of one sector, after all it
 * refers to is durable. So a crash leaves the old meaning or the new one.
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

int co_qcow2_write_header_sector(struct qcow2 *q, const uint8_t patched[QCOW2_SECTOR])
{
    int ret = co_blk_write(qcow2_file(q), 0, patched, QCOW2_SECTOR, 0);

    if (!ret)
        ret = co_blk_flush(qcow2_file(q));
    if (!ret)
        memcpy(q->header_sector, patched, QCOW2_SECTOR);
    return ret;
}

/* "An implementation may only write to an image with unknown auto-clear features if it clears
 * the respective bits from this field first." We keep none of them up to date. */
int co_qcow2_clear_autoclear(struct qcow2 *q, struct error *err)
{
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    if (q->h.version < 3 || !q->h.autoclear)
        return 0;
    log_warn("%s: opened for writing: what depends on auto-clear features %#" PRIx64
             " (bit 0: persistent dirty bitmaps) becomes invalid",
             qcow2_name(q), q->h.autoclear);
    memcpy(sector, q->header_sector, QCOW2_SECTOR);
    put_be64(sector + QCOW2_POS_AUTOCLEAR, 0);
    ret = co_qcow2_write_header_sector(q, sector);
    if (ret)
        return error_set(err, -ret, "can't clear the auto-clear features");
    q->h.autoclear = 0;
    return 0;
}

/* ---- backing reference ---------------------------------------------------------------- */

/* The extension area with another backing format (NULL: none); its end, or 0 if it's too long
 * or malformed. */
static size_t rebuild_extensions(const struct qcow2_header *h, const uint8_t *old, size_t len,
                                 const char *format, uint8_t *out, size_t max)
{
    size_t pos = 0, to = h->header_bytes;
    struct qcow2_ext_item item;
    int ret;

    if (format)
        to =
            qcow2_ext_put(out, to, max, QCOW2_EXT_BACKING_FORMAT, format, (uint32_t)strlen(format));
    while ((ret = qcow2_ext_next(old + h->header_bytes, len - h->header_bytes, &pos, &item)) == 1)
        if (to && item.type != QCOW2_EXT_BACKING_FORMAT)
            to = qcow2_ext_put(out, to, max, item.type, item.data, item.len);
    if (ret < 0 || !to)
        return 0;
    return qcow2_ext_put(out, to, max, QCOW2_EXT_END, NULL, 0);
}

/* Where a new name of @bytes goes: behind the extensions, clear of the present name. */
static uint64_t place_name(const struct qcow2_header *h, uint64_t ext_end, size_t bytes)
{
    uint64_t at = round_up_pow2(ext_end, 8);

    if (h->backing_offset && at < h->backing_offset + h->backing_bytes &&
        h->backing_offset < at + bytes)
        at = round_up_pow2(h->backing_offset + h->backing_bytes, 8);
    return at;
}

/*
 * @cluster: the first cluster as on disk; @fresh: as it is to be. Whatever lies behind the first
 * sector and changes is written before it; the old header does not look there, unless the
 * extensions themselves reach past the first sector.
 */
static int co_write_first_cluster(struct qcow2 *q, const uint8_t *cluster, const uint8_t *fresh,
                                  size_t bytes)
{
    int ret = 0;

    if (bytes > QCOW2_SECTOR &&
        memcmp(cluster + QCOW2_SECTOR, fresh + QCOW2_SECTOR, bytes - QCOW2_SECTOR)) {
        ret = co_blk_write(qcow2_file(q), QCOW2_SECTOR, fresh + QCOW2_SECTOR, bytes - QCOW2_SECTOR,
                           0);
        if (!ret)
            ret = co_blk_flush(qcow2_file(q));
    }
    return ret ? ret : co_qcow2_write_header_sector(q, fresh);
}

/* Lays out the new first cluster in @fresh, a copy of @old. */
static int lay_out_backing(const struct qcow2 *q, const uint8_t *old, uint8_t *fresh, size_t bytes,
                           const char *name, const char *format, struct error *err)
{
    const struct qcow2_header *h = &q->h;
    size_t name_bytes = name ? strlen(name) : 0;
    size_t old_end = h->backing_offset ? h->backing_offset : bytes;
    size_t end = rebuild_extensions(h, old, old_end, name ? format : NULL, fresh, bytes);
    uint64_t at;

    if (!name) {
        /* Extensions longer than a sector stay as they are: a format without a name says
         * nothing, and the drop is one write. */
        if (!end || end > QCOW2_SECTOR)
            memcpy(fresh, old, bytes);
        put_be64(fresh + QCOW2_POS_BACKING_OFFSET, 0);
        put_be32(fresh + QCOW2_POS_BACKING_BYTES, 0);
        return 0;
    }
    at = place_name(h, end, name_bytes);
    if (!end || at + name_bytes > bytes)
        return error_set(err, ENOSPC, "no room for the backing file name in the image header");
    memcpy(fresh + at, name, name_bytes);
    put_be64(fresh + QCOW2_POS_BACKING_OFFSET, at);
    put_be32(fresh + QCOW2_POS_BACKING_BYTES, (uint32_t)name_bytes);
    return 0;
}

static int remember_backing(struct qcow2 *q, const char *name, const char *format)
{
    char *n = name ? strdup(name) : NULL, *f = name && format ? strdup(format) : NULL;

    if ((name && !n) || (name && format && !f)) {
        free(n);
        free(f);
        return -ENOMEM;
    }
    free(q->backing);
    free(q->backing_fmt);
    q->backing = n;
    q->backing_fmt = f;
    return 0;
}

static int co_rewrite_backing(struct qcow2 *q, const char *name, const char *format,
                              struct error *err)
{
    size_t bytes = qcow2_cluster_bytes(&q->g);
    uint8_t *old = calloc(1, bytes), *fresh = malloc(bytes);
    int ret;

    if (!old || !fresh) {
        ret = error_set(err, ENOMEM, "out of memory");
        goto out;
    }
    ret = co_blk_read(qcow2_file(q), 0, old, MIN_OF(bytes, qcow2_file(q)->size_bytes), 0);
    if (ret) {
        error_set(err, -ret, "can't read the image header");
        goto out;
    }
    memcpy(old, q->header_sector, QCOW2_SECTOR);
    memcpy(fresh, old, bytes);
    ret = lay_out_backing(q, old, fresh, bytes, name, format, err);
    if (ret)
        goto out;
    ret = co_write_first_cluster(q, old, fresh, bytes);
    if (ret)
        error_set(err, -ret, "can't write the image header");
    else
        ret = remember_backing(q, name, format);
    q->h.backing_offset = get_be64(q->header_sector + QCOW2_POS_BACKING_OFFSET);
    q->h.backing_bytes = get_be32(q->header_sector + QCOW2_POS_BACKING_BYTES);
out:
    free(old);
    free(fresh);
    return ret;
}

int co_qcow2_change_backing(struct blk_node *node, const char *name, const char *format,
                            struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret;

    if (node->read_only)
        return error_set(err, EROFS, "%s is open read-only", qcow2_name(q));
    if (name && strlen(name) > QCOW2_MAX_BACKING_NAME)
        return error_set(err, EINVAL, "the backing file name is longer than %u bytes",
                         QCOW2_MAX_BACKING_NAME);
    ret = co_qcow2_settle(q); /* what the new meaning rests on is durable first */
    if (ret)
        return error_set(err, -ret, "can't flush %s", qcow2_name(q));
    co_mutex_lock(&q->header_lock);
    ret = co_rewrite_backing(q, name, format, err);
    co_mutex_unlock(&q->header_lock);
    return ret;
}

/* ---- size ----------------------------------------------------------------------------- */

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
                           round_up_pow2(entries * 8, qcow2_cluster_bytes(&q->g)), 0);
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

/* header_lock not held. The new part is ready, durably, before the header gives the new size. */
static int co_grow(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t old_bytes = q->node.size_bytes;
    uint8_t sector[QCOW2_SECTOR];
    int ret = co_qcow2_settle(q);

    co_mutex_lock(&q->header_lock);
    if (!ret)
        ret = co_switch_l1(q, qcow2_l1_entries(&q->g, size_bytes));
    co_mutex_unlock(&q->header_lock);
    if (ret)
        return ret;
    q->node.size_bytes = size_bytes;
    ret = co_hide_backing(q, old_bytes);
    if (!ret)
        ret = co_qcow2_settle(q);
    if (!ret) {
        co_mutex_lock(&q->header_lock);
        memcpy(sector, q->header_sector, QCOW2_SECTOR);
        put_be64(sector + QCOW2_POS_SIZE, size_bytes);
        ret = co_qcow2_write_header_sector(q, sector);
        co_mutex_unlock(&q->header_lock);
    }
    if (ret)
        q->node.size_bytes = old_bytes;
    else
        q->h.size_bytes = size_bytes;
    return ret;
}

int co_qcow2_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret;

    if (node->read_only)
        return error_set(err, EROFS, "%s is open read-only", qcow2_name(q));
    if (size_bytes < q->h.size_bytes)
        return error_set(err, ENOTSUP, "shrinking a qcow2 image is not supported");
    if (size_bytes % QCOW2_SECTOR || size_bytes > INT64_MAX / 2)
        return error_set(err, EINVAL, "bad image size %" PRIu64, size_bytes);
    if (q->h.version < 3 && q->h.nr_snapshots)
        return error_set(err, ENOTSUP, "version 2 images with snapshots can't be resized");
    ret = co_grow(q, size_bytes);
    if (ret)
        return error_set(err, -ret, "can't resize %s: %s", qcow2_name(q), strerror(-ret));
    blk_node_notify(node, BLK_EV_RESIZED);
    return 0;
}
