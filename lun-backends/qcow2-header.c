/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of the image header: backing reference, auto-clear bits, the corrupt bit.
 * Invariant: the step that changes what the image means is the write of one sector, after all it
 * refers to is durable. So a crash leaves the old meaning or the new one.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-first.h"

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
    int ret = co_blk_write(qcow2_file(q), 0, patched, QCOW2_SECTOR, BLK_META);

    if (!ret)
        ret = co_blk_flush(qcow2_file(q));
    if (!ret)
        memcpy(q->header_sector, patched, QCOW2_SECTOR);
    q->header_unsure = ret != 0;
    return ret;
}

int co_qcow2_settle_header(struct qcow2 *q)
{
    uint8_t sector[QCOW2_SECTOR];
    int ret = 0;

    co_mutex_lock(&q->header_lock);
    if (q->header_unsure) {
        memcpy(sector, q->header_sector, QCOW2_SECTOR);
        ret = co_qcow2_write_header_sector(q, sector);
    }
    co_mutex_unlock(&q->header_lock);
    return ret;
}

/* ---- auto-clear features ---------------------------------------------------------------- */

static int co_write_autoclear(struct qcow2 *q, uint64_t bits)
{
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    memcpy(sector, q->header_sector, QCOW2_SECTOR);
    put_be64(sector + QCOW2_POS_AUTOCLEAR, bits);
    ret = co_qcow2_write_header_sector(q, sector);
    if (!ret)
        q->h.autoclear = bits;
    return ret;
}

/*
 * "An implementation may only write to an image with unknown auto-clear features if it clears
 * the respective bits from this field first." Two are known: a raw data file is kept as one, and
 * bitmaps are marked while their bit is cleared.
 */
int co_qcow2_clear_autoclear(struct qcow2 *q, struct error *err)
{
    const uint64_t bitmaps = QCOW2_AUTOCLEAR_BITMAPS;
    uint64_t was = q->h.version < 3 ? 0 : q->h.autoclear;
    uint64_t keep = was & (q->g.external ? QCOW2_AUTOCLEAR_RAW_DATA : 0);
    bool any = false;
    int ret;

    if ((was & bitmaps) && !co_qcow2_invalidate_bitmaps(q, true, &any) && !any)
        keep |= bitmaps; /* all marked before */
    if (was == keep)
        return 0;
    log_warn("%s: opened for writing: %s%s%s", qcow2_name(q),
             was & ~keep & bitmaps ? "its persistent dirty bitmaps are not kept up to date and "
                                     "become inconsistent"
                                   : "",
             was & ~keep & bitmaps && was & ~keep & ~bitmaps ? "; " : "",
             was & ~keep & ~bitmaps ? "what depends on unknown auto-clear features becomes invalid"
                                    : "");
    ret = co_write_autoclear(q, keep);
    if (!ret && (was & bitmaps) && !co_qcow2_invalidate_bitmaps(q, false, &any))
        ret = co_write_autoclear(q, keep | bitmaps);
    return ret ? error_set(err, -ret, "can't clear the auto-clear features") : 0;
}

/* ---- the corrupt bit ---------------------------------------------------------------------- */

static void mark_corrupt_co(void *arg)
{
    struct qcow2 *q = arg;
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    co_mutex_lock(&q->header_lock);
    q->h.incompatible |= QCOW2_INCOMPAT_CORRUPT;
    memcpy(sector, q->header_sector, QCOW2_SECTOR);
    put_be64(sector + QCOW2_POS_INCOMPATIBLE, q->h.incompatible);
    ret = co_qcow2_write_header_sector(q, sector);
    co_mutex_unlock(&q->header_lock);
    if (ret)
        log_err("%s: can't be marked corrupt: %s", qcow2_name(q), strerror(-ret));
    q->marking = false;
}

/* Version 2 has no such bit. What was finished before can still be flushed and read. */
void qcow2_mark_corrupt(struct qcow2 *q)
{
    q->corrupt = true;
    log_err("%s: takes no more writes%s; run qemu-img check -r all on it when it is closed",
            qcow2_name(q), q->h.version < 3 ? "" : " and is marked corrupt");
    if (q->h.version < 3)
        return;
    q->marking = true;
    co_spawn(mark_corrupt_co, q);
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
                           BLK_META);
        if (!ret)
            ret = co_blk_flush(qcow2_file(q));
    }
    return ret ? ret : co_qcow2_write_header_sector(q, fresh);
}

/* Lays out the new first cluster in @fresh, a copy of @old. *@ext_end: of its extensions. */
static int lay_out_backing(const struct qcow2 *q, const uint8_t *old, uint8_t *fresh, size_t bytes,
                           const char *name, const char *format, size_t *ext_end, struct error *err)
{
    const struct qcow2_header *h = &q->h;
    size_t name_bytes = name ? strlen(name) : 0;
    size_t old_end = h->backing_offset ? h->backing_offset : bytes;
    size_t end = rebuild_extensions(h, old, old_end, name ? format : NULL, fresh, bytes);
    uint64_t at;

    *ext_end = end;
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

/*
 * Where the extensions come to lie over what of the present name is behind the first sector, the
 * name goes out of their way first. @fresh, which fits, is laid out again in any case.
 */
static int co_make_way(struct qcow2 *q, uint8_t *old, const uint8_t *fresh, size_t bytes,
                       size_t ext_end, struct error *err)
{
    uint64_t name_end = q->h.backing_offset + q->h.backing_bytes;
    struct qcow2_first f = {qcow2_file(q), q, old, bytes, q->h.header_bytes};
    uint64_t at = get_be64(fresh + QCOW2_POS_BACKING_OFFSET);
    int ret;

    if (!at || !q->h.backing_offset || ext_end <= q->h.backing_offset || name_end <= QCOW2_SECTOR)
        return 0;
    at = round_up_pow2(MAX_OF(at + get_be32(fresh + QCOW2_POS_BACKING_BYTES), name_end), 8);
    ret = co_qcow2_first_move_name(&f, at);
    q->h.backing_offset = get_be64(q->header_sector + QCOW2_POS_BACKING_OFFSET);
    return ret ? error_set(err, -ret, "can't move the backing file name in the image header: %s",
                           strerror(-ret))
               : 0;
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
    size_t ext_end;
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
    ret = lay_out_backing(q, old, fresh, bytes, name, format, &ext_end, err);
    if (!ret)
        ret = co_make_way(q, old, fresh, bytes, ext_end, err);
    if (ret)
        goto out;
    memcpy(fresh, old, bytes);
    ret = lay_out_backing(q, old, fresh, bytes, name, format, &ext_end, err);
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
    if (name && qcow2_data_is_raw(q))
        return error_set(err, ENOTSUP,
                         "%s keeps its data in a raw data file and can't have a backing file",
                         qcow2_name(q));
    if (q->corrupt)
        return error_set(err, EIO, "%s is corrupt", qcow2_name(q));
    ret = co_qcow2_settle(q); /* what the new meaning rests on is durable first */
    if (ret)
        return error_set(err, -ret, "can't flush %s", qcow2_name(q));
    co_mutex_lock(&q->header_lock);
    ret = co_rewrite_backing(q, name, format, err);
    co_mutex_unlock(&q->header_lock);
    return ret;
}
