/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cowtgt's own settings in an image: a private header extension, which QEMU preserves
 * (docs/image-settings.md). Writing it lays out the extensions of the first cluster again.
 */
#include "lun-backends/qcow2-offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-first.h"
#include "lun-backends/qcow2-format.h"
#include "util/byteorder.h"
#include "util/size.h"

#define SETTINGS_VERSION 1
#define FIXED_BYTES      32

enum pos {
    POS_VERSION = 0,
    POS_LABEL_BYTES = 1,
    POS_SET = 2,
    POS_SWITCHES = 4,
    POS_MODE = 6,
    POS_DELAY = 8,
    POS_GRACE = 12,
    POS_MAX_RATE = 16,
    POS_CACHE = 24,
};

enum switches { SW_COPY_ON_READ = 1 << 0, SW_PREFETCH = 1 << 1 };

uint32_t qcow2_settings_encode(const struct qcow2_settings *s, uint8_t *buf)
{
    size_t label = s->set & QCOW2_SET_LABEL ? strnlen(s->label, QCOW2_LABEL_MAX) : 0;

    memset(buf, 0, QCOW2_SETTINGS_BYTES);
    buf[POS_VERSION] = SETTINGS_VERSION;
    buf[POS_LABEL_BYTES] = (uint8_t)label;
    put_be16(buf + POS_SET, (uint16_t)s->set);
    put_be16(buf + POS_SWITCHES,
             (s->copy_on_read ? SW_COPY_ON_READ : 0) | (s->prefetch ? SW_PREFETCH : 0));
    buf[POS_MODE] = (uint8_t)s->prefetch_mode;
    put_be32(buf + POS_DELAY, s->prefetch_delay_s);
    put_be32(buf + POS_GRACE, s->prefetch_grace_s);
    put_be64(buf + POS_MAX_RATE, s->max_rate);
    put_be64(buf + POS_CACHE, s->metadata_cache);
    memcpy(buf + FIXED_BYTES, s->label, label);
    return (uint32_t)(FIXED_BYTES + label);
}

int qcow2_settings_decode(const uint8_t *data, uint32_t len, struct qcow2_settings *s)
{
    *s = (struct qcow2_settings){0};
    if (!len)
        return -EINVAL;
    if (data[POS_VERSION] != SETTINGS_VERSION)
        return -ENOTSUP;
    if (len < FIXED_BYTES || data[POS_LABEL_BYTES] > QCOW2_LABEL_MAX ||
        len < FIXED_BYTES + (uint32_t)data[POS_LABEL_BYTES])
        return -EINVAL;
    s->set = get_be16(data + POS_SET) & QCOW2_SET_ALL;
    s->copy_on_read = get_be16(data + POS_SWITCHES) & SW_COPY_ON_READ;
    s->prefetch = get_be16(data + POS_SWITCHES) & SW_PREFETCH;
    if (data[POS_MODE] < PREFETCH_NR_MODES)
        s->prefetch_mode = (enum prefetch_mode)data[POS_MODE];
    else
        s->set &= ~(unsigned)QCOW2_SET_PREFETCH_MODE; /* a later version's */
    s->prefetch_delay_s = get_be32(data + POS_DELAY);
    s->prefetch_grace_s = get_be32(data + POS_GRACE);
    s->max_rate = get_be64(data + POS_MAX_RATE);
    s->metadata_cache = get_be64(data + POS_CACHE);
    memcpy(s->label, data + FIXED_BYTES, data[POS_LABEL_BYTES]);
    return 0;
}

/* ---- the first cluster ---------------------------------------------------------------------- */

struct first_cluster {
    struct qcow2_header h;
    size_t bytes, ext_end; /* extensions lie between the header and ext_end */
    uint8_t *data;
};

static int co_load(struct blk_node *file, struct first_cluster *f, struct error *err)
{
    uint8_t sector[QCOW2_SECTOR] = {0};
    size_t there = MIN_OF(file->size_bytes, sizeof(sector));
    int ret = there ? co_blk_read(file, 0, sector, there, 0) : 0;

    f->data = NULL;
    if (ret)
        return error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    ret = qcow2_header_decode(sector, there, &f->h, err);
    if (ret)
        return ret;
    f->bytes = (size_t)1 << f->h.cluster_bits;
    f->ext_end = f->h.backing_offset ? f->h.backing_offset : f->bytes;
    f->data = calloc(1, f->bytes);
    if (!f->data)
        return error_set(err, ENOMEM, "out of memory");
    ret = co_blk_read(file, 0, f->data, MIN_OF(f->bytes, file->size_bytes), 0);
    if (ret) {
        free(f->data);
        return error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    }
    return 0;
}

static int find_settings(const struct first_cluster *f, struct qcow2_settings *s, struct error *err)
{
    struct qcow2_ext_item item;
    size_t pos = 0;
    int ret;

    *s = (struct qcow2_settings){0};
    while ((ret = qcow2_ext_next(f->data + f->h.header_bytes, f->ext_end - f->h.header_bytes, &pos,
                                 &item)) == 1) {
        if (item.type != QCOW2_EXT_COWTGT)
            continue;
        ret = qcow2_settings_decode(item.data, item.len, s);
        break;
    }
    if (ret == -ENOTSUP)
        return error_set(err, ENOTSUP, "its cowtgt settings were written by a later version");
    return ret < 0 ? error_set(err, EINVAL, "bad header extensions") : 0;
}

int co_qcow2_get_settings(struct blk_node *file, struct qcow2_settings *s, struct error *err)
{
    struct first_cluster f;
    int ret = co_load(file, &f, err);

    if (ret)
        return ret;
    ret = find_settings(&f, s, err);
    free(f.data);
    return ret;
}

/* Lays the extensions out again in @fresh, ours last; their end, or 0. *@from: where that differs
 * from how they are. */
static size_t lay_out(const struct first_cluster *f, const struct qcow2_settings *s, uint8_t *fresh,
                      size_t *from)
{
    const uint8_t *list = f->data + f->h.header_bytes;
    size_t pos = 0, to, list_bytes = f->ext_end - f->h.header_bytes;
    uint8_t buf[QCOW2_SETTINGS_BYTES];
    struct qcow2_ext_item item;
    int ret;

    do
        *from = to = f->h.header_bytes + pos;
    while ((ret = qcow2_ext_next(list, list_bytes, &pos, &item)) == 1 &&
           item.type != QCOW2_EXT_COWTGT);
    while (ret == 1 && to && (ret = qcow2_ext_next(list, list_bytes, &pos, &item)) == 1) {
        if (item.type != QCOW2_EXT_COWTGT)
            to = qcow2_ext_put(fresh, to, f->bytes, item.type, item.data, item.len);
    }
    if (to && s->set)
        to = qcow2_ext_put(fresh, to, f->bytes, QCOW2_EXT_COWTGT, buf,
                           qcow2_settings_encode(s, buf));
    if (ret < 0 || !to)
        return 0;
    return qcow2_ext_put(fresh, to, f->bytes, QCOW2_EXT_END, NULL, 0);
}

/* The backing name behind the extensions; where it is, if it is not in their way. */
static bool place_name(const struct first_cluster *f, size_t ext_end, uint8_t *fresh)
{
    uint64_t at = round_up_pow2(ext_end, 8), from = f->h.backing_offset;
    uint32_t bytes = f->h.backing_bytes;

    if (!from || ext_end <= from)
        return true;
    if (at < from + bytes) /* until the header changes, the name in its old place is read */
        at = round_up_pow2(from + bytes, 8);
    if (at + bytes > f->bytes)
        return false;
    memcpy(fresh + at, f->data + from, bytes);
    put_be64(fresh + QCOW2_POS_BACKING_OFFSET, at);
    return true;
}

/* The new first cluster in *@fresh, to be freed; it differs from @from on. */
static int make_fresh(const struct first_cluster *f, const struct qcow2_settings *s,
                      uint8_t **fresh, size_t *from, struct error *err)
{
    size_t end;

    *fresh = malloc(f->bytes);
    if (!*fresh)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(*fresh, f->data, f->bytes);
    end = lay_out(f, s, *fresh, from);
    if (end && place_name(f, end, *fresh))
        return 0;
    free(*fresh);
    return error_set(err, ENOSPC, "no room for the settings in the image header");
}

/* @q: the image is open, header_lock held; NULL: nobody has it. */
static int co_store(struct blk_node *file, struct qcow2 *q, const struct qcow2_settings *s,
                    struct error *err)
{
    struct first_cluster f;
    struct qcow2_first first = {.file = file, .q = q};
    uint8_t *fresh;
    size_t from = 0;
    int ret = co_load(file, &f, err);

    if (ret)
        return ret;
    if (q)
        memcpy(f.data, q->header_sector, QCOW2_SECTOR);
    first.now = f.data;
    first.bytes = f.bytes;
    first.header_bytes = f.h.header_bytes;
    ret = make_fresh(&f, s, &fresh, &from, err);
    if (!ret) {
        ret = co_qcow2_first_set_list(&first, fresh, from);
        if (ret)
            error_set(err, -ret, "can't write the image header: %s", strerror(-ret));
        free(fresh);
    }
    free(f.data);
    return ret;
}

int co_qcow2_set_settings(struct blk_node *file, const struct qcow2_settings *s, struct error *err)
{
    return co_store(file, NULL, s, err);
}

/* ---- of an image in use --------------------------------------------------------------------- */

bool qcow2_node_settings(const struct blk_node *node, struct qcow2_settings *s)
{
    *s = (struct qcow2_settings){0};
    if (strcmp(node->drv->name, "qcow2"))
        return false;
    *s = container_of(node, struct qcow2, node)->settings;
    return true;
}

int co_qcow2_node_set_settings(struct blk_node *node, const struct qcow2_settings *s,
                               struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret;

    if (node->read_only)
        return error_set(err, EROFS, "%s is open read-only", qcow2_name(q));
    if (q->corrupt)
        return error_set(err, EIO, "%s is corrupt", qcow2_name(q));
    co_mutex_lock(&q->header_lock);
    ret = co_store(qcow2_file(q), q, s, err);
    if (!ret)
        q->settings = *s;
    q->h.backing_offset = get_be64(q->header_sector + QCOW2_POS_BACKING_OFFSET);
    co_mutex_unlock(&q->header_lock);
    return ret ? error_prefix(err, "%s", qcow2_name(q)) : 0;
}
