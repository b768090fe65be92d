/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening, describing and closing a qcow2 node. Everything the header says is checked against
 * the file before memory is taken for it.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/qcow2-offline.h"
#include "util/bitmap.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define L2_CACHE_BYTES      (UINT64_C(32) << 20) /* by default, at most */
#define COVERED_CACHE_BYTES (UINT64_C(1) << 20)  /* at most, where a merged map answers */
#define REF_CACHE_BYTES     (UINT64_C(8) << 20)
#define MAX_FORMAT_NAME     64
#define MAX_DATA_FILE       1023

static void co_qcow2_close(struct blk_node *node)
{
    struct qcow2 *q = qcow2_of(node);

    if (q->opened && !node->read_only) {
        if (co_qcow2_settle(q))
            log_err("%s: closed with changes that could not be written", qcow2_name(q));
        ev_timer_stop(loop_ev(), &q->timer);
    }
    while (q->marking)
        co_pause();
    qcache_free(&q->l2);
    qcache_free(&q->rc);
    qcow2_unpack_free(q);
    free(q->l1);
    free(q->l1_dirty);
    free(q->rt);
    free(q->rt_dirty);
    free(q->freed.ext);
    free(q->freed_in_cycle.ext);
    free(q->freed_ready.ext);
    free(q->backing);
    free(q->backing_fmt);
    free(q->data_file);
}

static int co_qcow2_inactivate(struct blk_node *node)
{
    struct blk_node *data = node->data.child;
    int ret = node->read_only ? 0 : co_qcow2_settle(qcow2_of(node));

    if (!ret && data && data->drv->co_inactivate)
        ret = data->drv->co_inactivate(data);
    return ret;
}

static const struct blk_driver qcow2_driver = {
    .name = "qcow2",
    .instance_bytes = sizeof(struct qcow2),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = qcow2_submit_read,
            [BLK_WRITE] = qcow2_submit_write,
            [BLK_WRITE_ZEROES] = qcow2_submit_write_zeroes,
            [BLK_DISCARD] = qcow2_submit_discard,
            [BLK_FLUSH] = qcow2_submit_flush,
            [BLK_STATUS] = qcow2_submit_status,
        },
    .co_close = co_qcow2_close,
    .co_inactivate = co_qcow2_inactivate,
    .co_resize = co_qcow2_resize,
    .co_change_backing = co_qcow2_change_backing,
    .co_reopen = co_qcow2_reopen,
    .co_locate = co_qcow2_locate,
    .set_covered = qcow2_set_covered,
};

bool qcow2_probe(const void *buf, size_t len)
{
    return len >= 8 && get_be32(buf) == QCOW2_MAGIC && get_be32((const char *)buf + 4) >= 2;
}

static char *take_string(const uint8_t *data, size_t len)
{
    return memchr(data, '\0', len) ? NULL : strndup((const char *)data, len);
}

static int take_extension(struct qcow2 *q, const struct qcow2_ext_item *item, struct error *err)
{
    struct qcow2_settings s;

    switch (item->type) {
    case QCOW2_EXT_BACKING_FORMAT:
        if (q->backing_fmt)
            return 0;
        if (item->len > MAX_FORMAT_NAME || !(q->backing_fmt = take_string(item->data, item->len)))
            return error_set(err, EINVAL, "bad backing format in the header");
        return 0;
    case QCOW2_EXT_DATA_FILE:
        if (q->data_file)
            return 0;
        if (item->len > MAX_DATA_FILE || !(q->data_file = take_string(item->data, item->len)))
            return error_set(err, EINVAL, "bad name of the external data file in the header");
        return 0;
    case QCOW2_EXT_BITMAPS:
        if (item->len < 24)
            return 0; /* nothing to rely on: the bit stays cleared */
        q->bitmaps.nr = get_be32(item->data);
        q->bitmaps.dir_bytes = get_be64(item->data + 8);
        q->bitmaps.dir_offset = get_be64(item->data + 16);
        return 0;
    case QCOW2_EXT_COWTGT: /* one that is not understood is as good as none */
        if (qcow2_settings_decode(item->data, item->len, &s))
            return 0;
        q->settings = s;
        if (s.set & QCOW2_SET_METADATA_CACHE)
            q->cache_bytes_wanted = s.metadata_cache;
        return 0;
    default:
        return 0;
    }
}

static void forget_header(struct qcow2 *q)
{
    free(q->backing);
    free(q->backing_fmt);
    free(q->data_file);
    q->backing = q->backing_fmt = q->data_file = NULL;
}

/* Extensions and backing name of the first cluster. */
static int read_first_cluster(struct qcow2 *q, const uint8_t *first, size_t ext_end,
                              struct error *err)
{
    struct qcow2_ext_item item;
    size_t pos = 0;
    int ret;

    while ((ret = qcow2_ext_next(first + q->h.header_bytes, ext_end - q->h.header_bytes, &pos,
                                 &item)) == 1) {
        ret = take_extension(q, &item, err);
        if (ret)
            return ret;
    }
    if (ret < 0)
        return error_set(err, EINVAL, "a header extension is longer than the header cluster");
    if (q->h.backing_offset && q->h.backing_bytes) {
        q->backing = take_string(first + q->h.backing_offset, q->h.backing_bytes);
        if (!q->backing)
            return error_set(err, EINVAL, "bad backing file name in the header");
    }
    if (!q->backing) {
        free(q->backing_fmt);
        q->backing_fmt = NULL;
    }
    return 0;
}

static int check_first_cluster(struct qcow2 *q, const uint8_t *first, size_t cluster, bool writable,
                               struct error *err)
{
    size_t ext_end = q->h.backing_offset ? q->h.backing_offset : cluster;
    int ret;

    ret = qcow2_header_check_features(&q->h, writable, first + q->h.header_bytes,
                                      ext_end - q->h.header_bytes, err);
    return ret ? ret : read_first_cluster(q, first, ext_end, err);
}

static int co_read_header(struct qcow2 *q, bool writable, struct error *err)
{
    struct blk_node *file = qcow2_file(q);
    uint64_t file_bytes = file->size_bytes;
    size_t cluster;
    uint8_t *first;
    int ret;

    ret = co_blk_read(file, 0, q->header_sector, MIN_OF(file_bytes, QCOW2_SECTOR), 0);
    if (ret)
        return error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    ret = qcow2_header_decode(q->header_sector, MIN_OF(file_bytes, QCOW2_SECTOR), &q->h, err);
    if (ret)
        return ret;
    cluster = (size_t)1 << q->h.cluster_bits;
    first = calloc(1, cluster);
    if (!first)
        return error_set(err, ENOMEM, "out of memory");
    ret = co_blk_read(file, 0, first, MIN_OF(cluster, file_bytes), 0);
    if (ret)
        error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    else
        ret = check_first_cluster(q, first, cluster, writable, err);
    free(first);
    return ret ? ret : qcow2_header_check_file(&q->h, file_bytes, err);
}

static int co_load_l1(struct qcow2 *q, struct error *err)
{
    uint64_t entries = q->h.l1_entries, file_bytes = qcow2_file(q)->size_bytes;
    uint64_t bytes = entries * 8;
    uint8_t *raw = calloc(1, MAX_OF(bytes, 1));
    int ret = 0;

    q->l1 = calloc(MAX_OF(entries, 1), 8);
    q->l1_dirty = calloc(BITMAP_WORDS(entries / 64 + 1), 8);
    if (!raw || !q->l1 || !q->l1_dirty) {
        free(raw);
        return error_set(err, ENOMEM, "out of memory for the L1 table");
    }
    if (entries && q->h.l1_offset < file_bytes)
        ret = co_blk_read(qcow2_file(q), q->h.l1_offset, raw,
                          MIN_OF(bytes, file_bytes - q->h.l1_offset), 0);
    for (uint64_t i = 0; i < entries; i++)
        q->l1[i] = get_be64(raw + i * 8);
    free(raw);
    return ret ? error_set(err, -ret, "can't read the L1 table: %s", strerror(-ret)) : 0;
}

static void init_in_memory(struct qcow2 *q)
{
    co_mutex_init(&q->header_lock);
    co_mutex_init(&q->alloc_lock);
    co_mutex_init(&q->pack_lock);
    co_mutex_init(&q->table_lock);
    co_queue_init(&q->unpack_wait);
    list_init(&q->locks);
    list_init(&q->assigns);
    qcow2_flush_init(q);
}

/* What the whole disk's L2 tables need, if that is not much. */
static uint64_t cache_bytes(const struct qcow2 *q)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g);
    uint64_t entries = (q->h.size_bytes + cluster - 1) >> q->g.cluster_bits;

    uint64_t bound = q->covered ? COVERED_CACHE_BYTES : L2_CACHE_BYTES;

    if (q->cache_bytes_wanted)
        return MIN_OF(q->cache_bytes_wanted, q->covered ? bound : UINT64_MAX);
    return MIN_OF(bound, round_up_pow2(entries * q->g.entry_bytes, q->g.slice_bytes));
}

int qcow2_fit_cache(struct qcow2 *q)
{
    return qcache_set_max(&q->l2, cache_bytes(q));
}

/* Out of memory for a smaller table: it stays as it is. */
void qcow2_set_covered(struct blk_node *node, bool covered)
{
    struct qcow2 *q = qcow2_of(node);

    if (q->covered == covered)
        return;
    q->covered = covered;
    qcow2_fit_cache(q);
}

int qcow2_set_cache_bytes(struct blk_node *node, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(node);
    uint64_t before = q->cache_bytes_wanted;
    int ret;

    q->cache_bytes_wanted = bytes;
    ret = qcow2_fit_cache(q);
    if (ret)
        q->cache_bytes_wanted = before;
    return ret;
}

static void say_finding(void *opaque, const char *line)
{
    log_notice("%s: %s", qcow2_name(opaque), line);
}

/* Refcounts may be wrong after a crash of who kept them lazily. */
static int co_repair_dirty(struct qcow2 *q, struct error *err)
{
    struct qcow2_check_result res;
    int ret;

    log_warn("%s: marked dirty: it was not closed in order; repairing it", qcow2_name(q));
    ret = co_qcow2_check(qcow2_file(q), QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, say_finding, q, &res,
                         err);
    if (ret)
        return error_prefix(err, "repairing the dirty image");
    forget_header(q);
    ret = co_read_header(q, true, err);
    if (!ret && (q->h.incompatible & QCOW2_INCOMPAT_DIRTY))
        ret = error_set(err, EIO,
                        "the image is marked dirty and can't be repaired (%" PRIu64
                        " errors are left); run qemu-img check on it",
                        res.corruptions + res.check_errors);
    if (!ret)
        log_notice("%s: repaired: %" PRIu64 " errors, %" PRIu64 " leaked clusters", qcow2_name(q),
                   res.corruptions_fixed, res.leaks_fixed);
    return ret;
}

/* What a crash leaked is no reason not to serve the image. */
static void co_free_leaks(struct qcow2 *q)
{
    struct error err = ERROR_INIT;
    uint64_t freed;

    if (co_qcow2_fix_leaks(&q->node, &freed, &err))
        log_warn("%s: looking for leaked clusters: %s", qcow2_name(q), err.msg);
    else if (freed)
        log_notice("%s: freed %" PRIu64 " clusters that were leaked at an unclean end",
                   qcow2_name(q), freed);
}

static int co_open(struct qcow2 *q, const struct qcow2_open_opts *opts, struct error *err)
{
    bool writable = opts->writable;
    int ret = co_read_header(q, writable, err);

    if (!ret && writable && (q->h.incompatible & QCOW2_INCOMPAT_DIRTY))
        ret = co_repair_dirty(q, err);
    if (ret)
        return ret;
    qcow2_geometry_init(&q->g, &q->h);
    if (opts->snapshot)
        ret = co_qcow2_use_snapshot(q, opts->snapshot, err);
    if (ret)
        return ret;
    if (q->h.incompatible & QCOW2_INCOMPAT_CORRUPT)
        log_warn("%s: the image is marked corrupt; what it reads may be wrong", qcow2_name(q));
    if (opts->cache_bytes)
        q->cache_bytes_wanted = opts->cache_bytes;
    q->node.size_bytes = round_up_pow2(q->h.size_bytes, QCOW2_SECTOR);
    q->node.limits.align_bytes = QCOW2_SECTOR;
    q->node.limits.granularity_bytes = (uint32_t)qcow2_cluster_bytes(&q->g);
    q->node.limits.subunit_bytes = (uint32_t)qcow2_sub_bytes(&q->g);
    if (!(q->h.incompatible & QCOW2_INCOMPAT_DATA_FILE))
        q->node.limits.atomic_bytes =
            (uint32_t)MIN_OF(qcow2_cluster_bytes(&q->g), QCOW2_ATOMIC_MAX_BYTES);
    q->node.limits.can_anchor =
        q->h.version >= 3 && !(q->h.incompatible & QCOW2_INCOMPAT_DATA_FILE);
    if (qcache_init(&q->l2, q->g.slice_bytes, cache_bytes(q)) ||
        qcache_init(&q->rc, q->g.slice_bytes, REF_CACHE_BYTES))
        return error_set(err, ENOMEM, "out of memory");
    ret = co_load_l1(q, err);
    if (!ret && writable)
        ret = co_qcow2_alloc_open(q, err);
    if (!ret)
        ret = co_qcow2_open_data(q, opts, err);
    if (!ret && writable)
        ret = co_qcow2_clear_autoclear(q, err);
    q->opened = !ret;
    if (q->opened && writable && opts->fix_leaks)
        co_free_leaks(q);
    return ret;
}

int co_qcow2_open(struct blk_node *file, bool writable, struct blk_node **node, struct error *err)
{
    return co_qcow2_open_opts(file, &(struct qcow2_open_opts){.writable = writable}, node, err);
}

int co_qcow2_open_opts(struct blk_node *file, const struct qcow2_open_opts *opts,
                       struct blk_node **node, struct error *err)
{
    const char *name = file->filename ? file->filename : file->name;
    struct blk_node *n = blk_node_new(&qcow2_driver, NULL);
    int ret;

    if (!n)
        return error_set(err, ENOMEM, "%s: out of memory", name);
    n->read_only = !opts->writable;
    init_in_memory(qcow2_of(n));
    blk_set_file(n, file);
    n->filename = strdup(name);
    ret = co_open(qcow2_of(n), opts, err);
    if (ret) {
        error_prefix(err, "%s", name);
        co_blk_node_unref(n);
        return ret;
    }
    *node = n;
    return 0;
}

void qcow2_get_info(const struct blk_node *node, struct qcow2_info *info)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);

    *info = (struct qcow2_info){
        .version = q->h.version,
        .cluster_bytes = (uint32_t)qcow2_cluster_bytes(&q->g),
        .subcluster_bytes = (uint32_t)qcow2_sub_bytes(&q->g),
        .extended_l2 = q->g.subs > 1,
        .has_snapshots = q->h.nr_snapshots != 0,
        .refcount_bits = 1u << q->h.refcount_order,
        .zstd = q->h.compression == 1,
        .corrupt = q->h.incompatible & QCOW2_INCOMPAT_CORRUPT,
        .lazy_refcounts = q->h.compatible & 1,
        .data_file = q->data_file,
        .data_file_raw = qcow2_data_is_raw(q),
        .backing = q->backing,
        .backing_fmt = q->backing_fmt,
    };
}

void qcow2_get_stats(const struct blk_node *node, struct qcow2_stats *stats)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);

    *stats = q->stats;
    stats->cached_bytes = (uint64_t)q->l2.nr * q->l2.slice_bytes;
    stats->cache_bytes = (uint64_t)q->l2.max * q->l2.slice_bytes;
}
