/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copy-on-read: a filter that keeps in the overlay what readers got from below it.
 *
 * The reader comes first: what is to be kept is copied into a buffer of our own budget, the
 * reader's request completes, and only then the write starts, with BLK_IF_UNALLOCATED, so that a
 * guest's write always wins. Keeping is a courtesy: without a buffer, at an error or when a drain
 * is on, it is left out. Nothing of ours ever waits in the queue of a drained head, so this node
 * can be closed inside a drain.
 */
#define LOG_AREA "copy-on-read"
#include "lun-backends/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/store.h"
#include "util/bufpool.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define BUDGET_BYTES (16u << 20)
#define PIECE_BYTES  (1u << 20)
#define MAX_KEEPS    512 /* waiting and under way */
#define MAX_RUNNING  8

/* A range to be kept: data in hand, or (a reader had only a part of the unit) still to be read. */
struct keep {
    struct list_head link;
    struct cor *cor;
    uint64_t offset, bytes;
    bool have_data;
    struct store_buf buf;
};

struct cor {
    struct blk_node node;
    struct blk_head head; /* on the overlay: a drain waits for our writes */
    bool enabled, error_logged;
    unsigned layers; /* below the overlay, whose say is kept; 0: all */
    struct bufpool *pool;
    struct list_head waiting, running; /* of struct keep */
    unsigned nr_keeps, nr_running;
    struct deferred start;
    struct co_queue idle; /* co_close, until nothing runs */
    struct copy_on_read_stats stats;
};

static struct cor *to_cor(struct blk_node *node)
{
    return container_of(node, struct cor, node);
}

static void keep_free(struct keep *k)
{
    store_buf_put(&k->buf, k->cor->pool);
    list_del(&k->link);
    k->cor->nr_keeps--;
    free(k);
}

/* ---- storing ----------------------------------------------------------------------- */

/* The rest of a unit of which a reader had a part. -EEXIST: it is local meanwhile. */
static int co_fetch(struct cor *cor, struct keep *k)
{
    uint32_t got = 0;
    int ret;

    if (!store_buf_get(&k->buf, cor->pool, k->bytes))
        return -ENOMEM;
    ret = co_head_rw(&cor->head, BLK_READ, k->offset, k->bytes, k->buf.iov, (int)k->buf.niov, 0,
                     &got);
    if (ret == 0 && !(got & BLK_R_FROM_BACKING))
        ret = -EEXIST;
    return ret;
}

/* With layers that stay below: only units in which the ones above them have a say. */
static int co_store_kept(struct cor *cor, const struct keep *k, uint64_t *data, uint64_t *zeroes)
{
    const struct blk_node *overlay = blk_head_node(&cor->head), *backing = overlay->backing.child;
    uint32_t unit = store_unit_bytes(overlay);
    struct store_how how = {.keep_out = true, .data_bytes = data, .zero_bytes = zeroes};
    struct blk_extent ext;
    int ret = 0;

    if (!cor->layers)
        return co_store_data(&cor->head, k->offset, &k->buf, 0, k->bytes, &how);
    for (uint64_t at = k->offset, end = at + k->bytes, next; at < end && !ret; at = next) {
        next = end;
        ext.state = BLK_ST_ZERO;
        if (at < backing->size_bytes) {
            ret =
                co_blk_job_status_walk(overlay->backing.child, at,
                                       MIN_OF(end, backing->size_bytes) - at, cor->layers, &ext, 1);
            if (ret < 0)
                return ret;
            next = at + ext.length_bytes;
        }
        ret = 0;
        if (!overlay->backing.child || cor->head.drain_count)
            return -EBUSY;
        next = ext.state == BLK_ST_UNALLOCATED && next < end
                   ? round_down_pow2(next, unit)
                   : MIN_OF(end, round_up_pow2(next, unit));
        if (next <= at)
            next = MIN_OF(end, round_down_pow2(at, unit) + unit); /* shared: it has a say */
        else if (ext.state == BLK_ST_UNALLOCATED)
            continue;
        ret = co_store_data(&cor->head, k->offset, &k->buf, at - k->offset, next - at, &how);
    }
    return ret;
}

static int co_keep_data(struct cor *cor, struct keep *k)
{
    uint64_t data = 0, zeroes = 0;
    int ret;

    if (!blk_head_node(&cor->head)->backing.child)
        return -EEXIST;
    if (cor->head.drain_count)
        return -EBUSY;
    ret = k->have_data ? 0 : co_fetch(cor, k);
    if (ret == 0)
        ret = co_store_kept(cor, k, &data, &zeroes);
    cor->stats.kept_bytes += data + zeroes;
    if (ret && ret != -EEXIST)
        cor->stats.skipped_bytes += k->bytes - data - zeroes;
    return ret;
}

static void co_keep(void *arg)
{
    struct keep *k = arg;
    struct cor *cor = k->cor;
    int ret = co_keep_data(cor, k);
    bool harmless =
        ret == 0 || ret == -EEXIST || ret == -EBUSY || ret == -EHOSTDOWN || ret == -ENOMEM;

    if (!harmless && !cor->error_logged) {
        cor->error_logged = true;
        log_warn("%s: can't keep what was read at byte %" PRIu64 ": %s (said once)", cor->node.name,
                 k->offset, strerror(-ret));
    }
    keep_free(k);
    cor->nr_running--;
    if (!list_empty(&cor->waiting))
        loop_defer(&cor->start, LOOP_NOW);
    if (cor->nr_running == 0)
        co_queue_wake_all(&cor->idle);
}

static void start_keeping(struct deferred *d)
{
    struct cor *cor = container_of(d, struct cor, start);

    while (!list_empty(&cor->waiting) && cor->nr_running < MAX_RUNNING) {
        struct keep *k = list_first_entry(&cor->waiting, struct keep, link);

        list_del(&k->link);
        list_add_tail(&cor->running, &k->link);
        cor->nr_running++;
        co_spawn(co_keep, k);
    }
}

/* ---- what a reader got ------------------------------------------------------------- */

static bool covered(const struct list_head *keeps, uint64_t start, uint64_t end)
{
    const struct keep *k;

    list_for_each_entry (k, keeps, link) {
        if (k->offset <= start && end <= k->offset + k->bytes)
            return true;
    }
    return false;
}

/* Queues [start, end), with its data from @iov at @from unless @iov is NULL. */
static void keep_range(struct cor *cor, uint64_t start, uint64_t end, const struct iovec *iov,
                       int niov, size_t from)
{
    struct keep *k;

    if (covered(&cor->waiting, start, end) || covered(&cor->running, start, end))
        return;
    k = cor->nr_keeps < MAX_KEEPS ? calloc(1, sizeof(*k)) : NULL;
    if (k && iov && !store_buf_get(&k->buf, cor->pool, end - start)) {
        free(k);
        k = NULL;
    }
    if (!k) {
        cor->stats.skipped_bytes += end - start;
        return;
    }
    k->cor = cor;
    k->offset = start;
    k->bytes = end - start;
    k->have_data = iov != NULL;
    for (unsigned i = 0; i < k->buf.niov; i++) {
        iov_to_buf(iov, niov, from, k->buf.iov[i].iov_base, k->buf.iov[i].iov_len);
        from += k->buf.iov[i].iov_len;
    }
    cor->nr_keeps++;
    list_add_tail(&cor->waiting, &k->link);
    loop_defer(&cor->start, LOOP_NOW);
}

/* Whole units straight from the reader's buffer; a unit it had only a part of is read again. */
static void keep_what_was_read(struct cor *cor, const struct blk_req *req)
{
    const struct blk_node *overlay = cor->node.file.child;
    uint32_t unit = store_unit_bytes(overlay);
    uint64_t start = req->offset_bytes, end = start + req->length_bytes;
    uint64_t disk_end = overlay->size_bytes;
    uint64_t first = round_up_pow2(start, unit);
    uint64_t last = end == disk_end ? end : round_down_pow2(end, unit);
    uint64_t piece = MAX_OF((uint64_t)unit, PIECE_BYTES);

    if (start < first)
        keep_range(cor, first - unit, MIN_OF(first, disk_end), NULL, 0, 0);
    for (uint64_t at = first; at < last;) {
        uint64_t next = MIN_OF(round_down_pow2(at, piece) + piece, last);

        keep_range(cor, at, next, req->iov, req->niov, at - start);
        at = next;
    }
    if (last < end && last >= first)
        keep_range(cor, last, MIN_OF(last + unit, disk_end), NULL, 0, 0);
}

static bool may_keep(const struct cor *cor)
{
    const struct blk_node *overlay = cor->node.file.child;
    uint32_t unit = store_unit_bytes(overlay);

    return cor->enabled && overlay->backing.child && !overlay->read_only && unit &&
           unit <= STORE_MAX_BYTES;
}

static void cor_read_done(struct blk_req *child)
{
    struct blk_req *req = child->opaque;
    struct cor *cor = to_cor(req->scratch.ptr[0]);
    int result = child->result;

    req->result_flags = child->result_flags;
    blk_child_put(child);
    if (result == 0 && (req->result_flags & BLK_R_FROM_BACKING) && may_keep(cor))
        keep_what_was_read(cor, req); /* copies; the writes start after the reader's completion */
    blk_complete(req, result);
}

/* ---- the node ---------------------------------------------------------------------- */

static void cor_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

static void cor_read(struct blk_node *node, struct blk_req *req)
{
    if (!may_keep(to_cor(node)) || req->flags & BLK_LOCAL_ONLY) {
        cor_forward(node, req);
        return;
    }
    req->scratch.ptr[0] = node;
    blk_submit_copy(node->file.child, req, cor_read_done);
}

static void drop_waiting(struct cor *cor)
{
    while (!list_empty(&cor->waiting))
        keep_free(list_first_entry(&cor->waiting, struct keep, link));
    loop_undefer(&cor->start);
}

static void cor_close(struct blk_node *node)
{
    struct cor *cor = to_cor(node);

    cor->enabled = false;
    drop_waiting(cor);
    while (cor->nr_running)
        co_queue_wait(&cor->idle);
    co_blk_head_fini(&cor->head);
    bufpool_free(cor->pool);
}

static int cor_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct blk_node *overlay = node->file.child;
    int ret;

    if (!overlay->drv->co_resize)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s images can't be resized",
                               overlay->drv->name);
    ret = overlay->drv->co_resize(overlay, size_bytes, err);
    node->size_bytes = overlay->size_bytes;
    return ret;
}

static const struct blk_driver cor_driver = {
    .name = "copy-on-read",
    .instance_bytes = sizeof(struct cor),
    .is_filter = true,
    .submit =
        {
            [BLK_READ] = cor_read,
            [BLK_WRITE] = cor_forward,
            [BLK_WRITE_ZEROES] = cor_forward,
            [BLK_DISCARD] = cor_forward,
            [BLK_FLUSH] = cor_forward,
            [BLK_STATUS] = cor_forward,
        },
    .co_close = cor_close,
    .co_resize = cor_resize,
};

struct blk_node *copy_on_read_new(struct blk_node *overlay)
{
    struct bufpool *pool = bufpool_new(BUDGET_BYTES);
    struct blk_node *node = pool ? blk_node_new(&cor_driver, NULL) : NULL;
    struct cor *cor;

    if (!node) {
        if (pool)
            bufpool_free(pool);
        return NULL;
    }
    cor = to_cor(node);
    node->size_bytes = overlay->size_bytes;
    node->limits = overlay->limits;
    node->read_only = overlay->read_only;
    cor->pool = pool;
    cor->enabled = true;
    cor->start.fn = start_keeping;
    list_init(&cor->waiting);
    list_init(&cor->running);
    co_queue_init(&cor->idle);
    blk_set_file(node, overlay);
    blk_head_init(&cor->head, "copy-on-read", overlay, !overlay->read_only);
    return node;
}

void copy_on_read_enable(struct blk_node *node, bool on)
{
    struct cor *cor = to_cor(node);

    cor->enabled = on;
    if (!on)
        drop_waiting(cor);
}

void copy_on_read_set_layers(struct blk_node *node, unsigned layers)
{
    to_cor(node)->layers = layers;
}

void copy_on_read_get_stats(const struct blk_node *node, struct copy_on_read_stats *st)
{
    *st = container_of(node, const struct cor, node)->stats;
}
