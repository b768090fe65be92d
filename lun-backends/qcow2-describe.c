/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a qcow2 image says of itself: header, extensions, snapshot table, bitmap directory. Works
 * on images that can't be served too. Every length is bounded before memory is taken for it.
 */
#include "lun-backends/qcow2-offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-format.h"
#include "util/byteorder.h"
#include "util/size.h"

#define MAX_SNAPSHOTS      65536u
#define MAX_SNAPSHOT_TABLE (64u << 20)
#define SNAPSHOT_BYTES     40u
#define SNAPSHOT_MAX_BYTES (UINT64_C(40) + MAX_EXTRA + 2 * 65535 + 7)
#define MAX_EXTRA          1024u
#define MAX_BITMAPS        65535u
#define MAX_BITMAP_DIR     (64u << 20)
#define BITMAP_BYTES       24u
#define MAX_BITMAP_TABLE   (1u << 22) /* entries */
#define AUTOCLEAR_BITMAPS  (UINT64_C(1) << 0)
#define AUTOCLEAR_RAW_DATA (UINT64_C(1) << 1)
#define COMPAT_LAZY        (UINT64_C(1) << 0)

struct reading {
    struct blk_node *file;
    struct qcow2_header h;
    struct qcow2_description *d;
    struct error *err;
};

static char *text_of(const uint8_t *data, size_t len)
{
    return strndup((const char *)data, len);
}

/* ---- snapshots ------------------------------------------------------------------------------ */

/* One entry of the table at @raw, of @left bytes; its length, or 0 if it is bad. */
static size_t take_snapshot(const uint8_t *raw, size_t left, struct qcow2_snapshot_info *s,
                            uint64_t disk_bytes)
{
    size_t id_bytes, name_bytes, extra_bytes, end;
    const uint8_t *extra = raw + SNAPSHOT_BYTES;

    if (left < SNAPSHOT_BYTES)
        return 0;
    id_bytes = get_be16(raw + 12);
    name_bytes = get_be16(raw + 14);
    extra_bytes = get_be32(raw + 36);
    end = SNAPSHOT_BYTES + extra_bytes + id_bytes + name_bytes;
    if (extra_bytes > MAX_EXTRA || end > left)
        return 0;
    s->l1_offset = get_be64(raw);
    s->l1_entries = get_be32(raw + 8);
    s->date_sec = get_be32(raw + 16);
    s->date_nsec = get_be32(raw + 20);
    s->vm_clock_ns = get_be64(raw + 24);
    s->vm_state_bytes = extra_bytes >= 8 ? get_be64(extra) : get_be32(raw + 32);
    s->disk_bytes = extra_bytes >= 16 ? get_be64(extra + 8) : disk_bytes;
    s->icount = extra_bytes >= 24 ? get_be64(extra + 16) : UINT64_MAX;
    s->id = text_of(extra + extra_bytes, id_bytes);
    s->name = text_of(extra + extra_bytes + id_bytes, name_bytes);
    return s->id && s->name ? round_up_pow2(end, 8) : 0;
}

/* The table's length is known only at its end: reads all that it may be, in the file. */
static int co_read_snapshots(struct reading *r)
{
    uint64_t offset = r->h.snapshots_offset, file_bytes = r->file->size_bytes;
    struct qcow2_description *d = r->d;
    size_t bytes, at = 0, used;
    uint8_t *raw;
    int ret = 0;

    if (!r->h.nr_snapshots)
        return 0;
    if (r->h.nr_snapshots > MAX_SNAPSHOTS || offset >= file_bytes || offset % 8)
        return error_set(r->err, EINVAL, "the snapshot table is misplaced or too long");
    bytes = MIN_OF(file_bytes - offset,
                   MIN_OF((uint64_t)MAX_SNAPSHOT_TABLE, r->h.nr_snapshots * SNAPSHOT_MAX_BYTES));
    raw = malloc(bytes);
    d->snapshots = calloc(r->h.nr_snapshots, sizeof(*d->snapshots));
    if (!raw || !d->snapshots)
        ret = -ENOMEM;
    if (!ret)
        ret = co_blk_read(r->file, offset, raw, bytes, 0);
    if (ret)
        error_set(r->err, -ret, "can't read the snapshot table: %s", strerror(-ret));
    while (!ret && d->nr_snapshots < r->h.nr_snapshots) {
        used = at < bytes ? take_snapshot(raw + at, bytes - at, &d->snapshots[d->nr_snapshots],
                                          r->h.size_bytes)
                          : 0;
        d->nr_snapshots++;
        if (!used)
            ret = error_set(r->err, EINVAL, "snapshot %u of the snapshot table is bad",
                            d->nr_snapshots);
        at += used;
    }
    free(raw);
    d->snapshots_offset = offset;
    d->snapshots_bytes = at;
    return ret;
}

/* ---- bitmaps --------------------------------------------------------------------------------- */

static size_t take_bitmap(const uint8_t *raw, size_t left, struct qcow2_bitmap_info *b)
{
    size_t name_bytes, extra_bytes, end;

    if (left < BITMAP_BYTES)
        return 0;
    name_bytes = get_be16(raw + 18);
    extra_bytes = get_be32(raw + 20);
    end = BITMAP_BYTES + extra_bytes + name_bytes;
    if (extra_bytes > MAX_EXTRA || end > left || raw[17] > 31)
        return 0;
    b->table_offset = get_be64(raw);
    b->table_entries = get_be32(raw + 8);
    b->in_use = get_be32(raw + 12) & 1;
    b->autoload = get_be32(raw + 12) & 2;
    b->granularity_bytes = UINT64_C(1) << raw[17];
    b->name = text_of(raw + BITMAP_BYTES + extra_bytes, name_bytes);
    if (!b->name || b->table_entries > MAX_BITMAP_TABLE)
        return 0;
    return round_up_pow2(end, 8);
}

/* Bitmaps extension: number, reserved, directory size, directory offset. */
static int co_read_bitmaps(struct reading *r, const struct qcow2_ext_item *item)
{
    struct qcow2_description *d = r->d;
    uint64_t offset, bytes;
    unsigned nr;
    uint8_t *raw;
    size_t at = 0, used;
    int ret;

    if (!(r->h.autoclear & AUTOCLEAR_BITMAPS) || d->bitmaps)
        return 0;
    if (item->len != 24)
        return error_set(r->err, EINVAL, "the bitmaps extension has a bad length");
    nr = get_be32(item->data);
    bytes = get_be64(item->data + 8);
    offset = get_be64(item->data + 16);
    if (!nr || nr > MAX_BITMAPS || bytes > MAX_BITMAP_DIR || offset >= r->file->size_bytes ||
        bytes > r->file->size_bytes - offset)
        return error_set(r->err, EINVAL, "the bitmap directory is misplaced or too long");
    raw = malloc(MAX_OF(bytes, 1));
    d->bitmaps = calloc(nr, sizeof(*d->bitmaps));
    ret = raw && d->bitmaps ? 0 : -ENOMEM;
    if (!ret && bytes)
        ret = co_blk_read(r->file, offset, raw, bytes, 0);
    if (ret)
        error_set(r->err, -ret, "can't read the bitmap directory: %s", strerror(-ret));
    while (!ret && d->nr_bitmaps < nr) {
        used = at < bytes ? take_bitmap(raw + at, bytes - at, &d->bitmaps[d->nr_bitmaps]) : 0;
        d->nr_bitmaps++;
        if (!used)
            ret = error_set(r->err, EINVAL, "bitmap %u of the directory is bad", d->nr_bitmaps);
        at += used;
    }
    free(raw);
    d->bitmaps_offset = offset;
    d->bitmaps_bytes = bytes;
    return ret;
}

/* ---- header ------------------------------------------------------------------------------- */

static int co_take_extension(struct reading *r, const struct qcow2_ext_item *item)
{
    struct qcow2_description *d = r->d;
    char **text = NULL;

    if (item->type == QCOW2_EXT_BITMAPS)
        return co_read_bitmaps(r, item);
    if (item->type == QCOW2_EXT_BACKING_FORMAT && !d->backing_fmt)
        text = &d->backing_fmt;
    else if (item->type == QCOW2_EXT_DATA_FILE && !d->data_file)
        text = &d->data_file;
    if (!text || item->len > QCOW2_MAX_BACKING_NAME)
        return 0;
    *text = text_of(item->data, item->len);
    return *text ? 0 : error_set(r->err, ENOMEM, "out of memory");
}

static int co_take_first_cluster(struct reading *r, const uint8_t *first, size_t bytes)
{
    size_t end = r->h.backing_offset ? MIN_OF(r->h.backing_offset, bytes) : bytes, pos = 0;
    struct qcow2_ext_item item;
    int ret = 0, more = 0;

    if (r->h.header_bytes > end)
        return error_set(r->err, EINVAL, "the backing file name lies in the header");
    while (!ret && (more = qcow2_ext_next(first + r->h.header_bytes, end - r->h.header_bytes, &pos,
                                          &item)) == 1)
        ret = co_take_extension(r, &item);
    if (!ret && more < 0)
        ret = error_set(r->err, EINVAL, "a header extension is cut off");
    if (!ret && r->h.backing_offset && r->h.backing_bytes) {
        r->d->backing = text_of(first + r->h.backing_offset, r->h.backing_bytes);
        ret = r->d->backing ? 0 : error_set(r->err, ENOMEM, "out of memory");
    }
    return ret;
}

static void take_header(struct reading *r)
{
    struct qcow2_description *d = r->d;
    const struct qcow2_header *h = &r->h;

    d->version = h->version;
    d->cluster_bytes = UINT32_C(1) << h->cluster_bits;
    d->refcount_bits = 1u << h->refcount_order;
    d->size_bytes = h->size_bytes;
    d->dirty = h->incompatible & QCOW2_INCOMPAT_DIRTY;
    d->corrupt = h->incompatible & QCOW2_INCOMPAT_CORRUPT;
    d->extended_l2 = h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
    d->lazy_refcounts = h->compatible & COMPAT_LAZY;
    d->zstd = h->compression == 1;
    d->data_file_raw = h->autoclear & AUTOCLEAR_RAW_DATA;
    d->encryption = h->crypt_method == 0 ? NULL : h->crypt_method == 1 ? "aes" : "luks";
}

int co_qcow2_describe(struct blk_node *file, struct qcow2_description *d, struct error *err)
{
    uint8_t sector[QCOW2_SECTOR] = {0}, *first;
    struct reading r = {.file = file, .d = d, .err = err};
    size_t there = MIN_OF(file->size_bytes, sizeof(sector)), bytes;
    int ret;

    *d = (struct qcow2_description){0};
    ret = there ? co_blk_read(file, 0, sector, there, 0) : 0;
    if (ret)
        return error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    ret = qcow2_header_decode(sector, there, &r.h, err);
    if (ret)
        return ret;
    take_header(&r);
    bytes = d->cluster_bytes;
    first = calloc(1, bytes);
    if (!first)
        return error_set(err, ENOMEM, "out of memory");
    ret = co_blk_read(file, 0, first, MIN_OF(bytes, file->size_bytes), 0);
    if (ret)
        error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    else
        ret = co_take_first_cluster(&r, first, bytes);
    free(first);
    if (!ret)
        ret = co_read_snapshots(&r);
    if (ret)
        qcow2_description_release(d);
    return ret;
}

void qcow2_description_release(struct qcow2_description *d)
{
    for (unsigned i = 0; i < d->nr_snapshots; i++) {
        free(d->snapshots[i].id);
        free(d->snapshots[i].name);
    }
    for (unsigned i = 0; i < d->nr_bitmaps; i++)
        free(d->bitmaps[i].name);
    free(d->snapshots);
    free(d->bitmaps);
    free(d->backing);
    free(d->backing_fmt);
    free(d->data_file);
    *d = (struct qcow2_description){0};
}
