/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The flush cycle: makes the metadata in the caches durable in an order that is right at every
 * crash point, whatever the disk reorders between two flushes.
 *
 *   snapshot  of all dirty refcounts, L2 and L1 entries, at one moment
 *   1         refcounts; if the refcount table changes: flush, then its entries (or all of a new
 *             table, flush, and the header that points to it)
 *   2         flush: also covers guest data and the content of new tables, written before
 *   3         L2 and L1 entries of the snapshot, none that came later; flush
 *
 * One cycle runs at a time and serves all who waited when it began. A cycle that fails leaves
 * everything dirty. What was freed before the snapshot goes on to the reclaimer after it.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "util/bitmap.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define CYCLE_PERIOD_S   3.0
#define DIRTY_SOFT_BYTES (4u << 20)
#define DIRTY_HARD_BYTES (16u << 20)
#define WRITES_IN_FLIGHT 64u

struct qflush_waiter {
    struct list_head link;
    struct coroutine *co;
    int result;
};

/* A copy of what is to be written to one place. */
struct snap_item {
    uint64_t offset;
    uint32_t bytes;
    uint8_t *data;
    struct qslice *slice; /* NULL: L1 or refcount table */
    uint64_t granule;
};

struct snap_list {
    struct snap_item *item;
    size_t nr, max;
};

struct snapshot {
    struct snap_list refs, rt, l2, l1;
    bool rt_moved;
    uint64_t rt_offset;
    uint32_t rt_clusters;
};

/* ---- writing a list in parallel ------------------------------------------------------- */

struct batch {
    struct coroutine *co;
    unsigned pending;
    bool waiting;
    int result;
};

static void batch_child_done(struct blk_req *child)
{
    struct batch *b = child->opaque;

    if (child->result)
        b->result = child->result;
    blk_child_put(child);
    b->pending--;
    if (b->waiting) {
        b->waiting = false;
        co_enter(b->co);
    }
}

static void co_batch_wait(struct batch *b, unsigned at_most)
{
    while (b->pending > at_most) {
        b->waiting = true;
        co_yield ();
    }
}

static int co_write_list(struct qcow2 *q, const struct snap_list *l)
{
    struct batch b = {.co = co_self()};

    for (size_t i = 0; i < l->nr && !b.result; i++) {
        struct blk_req *child = blk_child_get();

        child->verb = BLK_WRITE;
        child->flags = BLK_META;
        child->offset_bytes = l->item[i].offset;
        child->length_bytes = l->item[i].bytes;
        child->small_iov = (struct iovec){l->item[i].data, l->item[i].bytes};
        child->iov = &child->small_iov;
        child->niov = 1;
        child->done = batch_child_done;
        child->opaque = &b;
        b.pending++;
        blk_submit(qcow2_file(q), child);
        co_batch_wait(&b, WRITES_IN_FLIGHT - 1);
    }
    co_batch_wait(&b, 0);
    return b.result;
}

/* ---- the snapshot --------------------------------------------------------------------- */

static struct snap_item *snap_add(struct snap_list *l, uint64_t offset, uint32_t bytes)
{
    struct snap_item *it;

    if (l->nr == l->max) {
        size_t max = l->max ? l->max * 2 : 32;

        it = realloc(l->item, max * sizeof(*it));
        if (!it)
            return NULL;
        l->item = it;
        l->max = max;
    }
    it = &l->item[l->nr];
    *it = (struct snap_item){.offset = offset, .bytes = bytes};
    it->data = aligned_alloc(QCOW2_SECTOR, bytes);
    if (!it->data)
        return NULL;
    l->nr++;
    return it;
}

static int snap_slices(struct qcow2 *q, struct qcache *c, struct snap_list *l)
{
    struct qslice *s, *tmp;

    list_for_each_entry_safe (s, tmp, &c->dirty, dirty_link) {
        struct snap_item *it;
        uint64_t offset;
        int ret = 0;

        if (c == &q->l2) {
            offset = qcow2_l2_slice_offset(q, s->index << q->g.slice_span_bits, &ret);
        } else {
            uint32_t bits = q->g.ref_block_bits - q->g.ref_slice_bits;

            offset = q->rt[s->index >> bits] +
                     (s->index & ((UINT64_C(1) << bits) - 1)) * q->g.slice_bytes;
        }
        it = ret || !offset ? NULL : snap_add(l, offset, c->slice_bytes);
        if (!it)
            return ret ? ret : offset ? -ENOMEM : -EIO;
        memcpy(it->data, s->data, c->slice_bytes);
        it->slice = s;
        s->pins++;
        qcache_mark_clean(c, s);
    }
    return 0;
}

/* 512-byte granules of a table of 64-bit entries. */
static int snap_granules(uint64_t *dirty, unsigned *nr_dirty, const uint64_t *table,
                         uint64_t entries, uint64_t offset, struct snap_list *l)
{
    uint64_t granules = (entries + 63) / 64, g = 0;

    for (; *nr_dirty && (g = bitmap_next_set(dirty, granules, g)) < granules; g++) {
        struct snap_item *it = snap_add(l, offset + g * QCOW2_SECTOR, QCOW2_SECTOR);

        if (!it)
            return -ENOMEM;
        it->granule = g;
        for (uint64_t i = 0; i < 64; i++)
            put_be64(it->data + i * 8, g * 64 + i < entries ? table[g * 64 + i] : 0);
        bitmap_clear(dirty, g);
        --*nr_dirty;
    }
    return 0;
}

static int snap_whole_table(struct qcow2 *q, struct snapshot *sn)
{
    uint64_t chunk = MIN_OF(q->rt_entries * 8, UINT64_C(65536));

    sn->rt_moved = true;
    sn->rt_offset = q->rt_new_offset;
    sn->rt_clusters = q->rt_new_clusters;
    for (uint64_t at = 0; at < q->rt_entries * 8; at += chunk) {
        uint64_t bytes = MIN_OF(chunk, q->rt_entries * 8 - at);
        struct snap_item *it = snap_add(&sn->rt, q->rt_new_offset + at, (uint32_t)bytes);

        if (!it)
            return -ENOMEM;
        for (uint64_t i = 0; i < bytes; i += 8)
            put_be64(it->data + i, q->rt[(at + i) / 8]);
    }
    memset(q->rt_dirty, 0, BITMAP_WORDS(q->rt_entries / 64 + 1) * 8);
    q->nr_rt_dirty = 0;
    return 0;
}

static int take_snapshot(struct qcow2 *q, struct snapshot *sn)
{
    int ret = snap_slices(q, &q->rc, &sn->refs);

    if (!ret && q->rt_moved)
        ret = snap_whole_table(q, sn);
    else if (!ret)
        ret = snap_granules(q->rt_dirty, &q->nr_rt_dirty, q->rt, q->rt_entries, q->h.rt_offset,
                            &sn->rt);
    if (!ret)
        ret = snap_slices(q, &q->l2, &sn->l2);
    if (!ret)
        ret = snap_granules(q->l1_dirty, &q->nr_l1_dirty, q->l1, q->h.l1_entries, q->h.l1_offset,
                            &sn->l1);
    qfree_move(&q->freed_in_cycle, &q->freed);
    return ret;
}

static void redirty_granules(const struct snap_list *l, uint64_t *dirty, unsigned *nr_dirty)
{
    for (size_t i = 0; i < l->nr; i++) {
        if (bitmap_test(dirty, l->item[i].granule))
            continue;
        bitmap_set(dirty, l->item[i].granule);
        ++*nr_dirty;
    }
}

static void drop_list(struct qcow2 *q, struct snap_list *l, struct qcache *c, bool failed)
{
    for (size_t i = 0; i < l->nr; i++) {
        if (l->item[i].slice) {
            if (failed)
                qcache_mark_dirty(q, c, l->item[i].slice);
            qcache_put(l->item[i].slice);
        }
        free(l->item[i].data);
    }
    free(l->item);
}

static void drop_snapshot(struct qcow2 *q, struct snapshot *sn, bool failed)
{
    if (failed) {
        redirty_granules(&sn->l1, q->l1_dirty, &q->nr_l1_dirty);
        if (!sn->rt_moved)
            redirty_granules(&sn->rt, q->rt_dirty, &q->nr_rt_dirty);
        qfree_move(&q->freed, &q->freed_in_cycle);
    } else {
        qfree_move(&q->freed_ready, &q->freed_in_cycle);
    }
    drop_list(q, &sn->refs, &q->rc, failed);
    drop_list(q, &sn->rt, NULL, failed);
    drop_list(q, &sn->l2, &q->l2, failed);
    drop_list(q, &sn->l1, NULL, failed);
}

/* ---- the cycle ------------------------------------------------------------------------ */

static int co_switch_table(struct qcow2 *q, const struct snapshot *sn)
{
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    co_mutex_lock(&q->header_lock);
    memcpy(sector, q->header_sector, QCOW2_SECTOR);
    put_be64(sector + QCOW2_POS_RT_OFFSET, sn->rt_offset);
    put_be32(sector + QCOW2_POS_RT_CLUSTERS, sn->rt_clusters);
    ret = co_qcow2_write_header_sector(q, sector);
    if (!ret) {
        q->h.rt_offset = sn->rt_offset;
        q->h.rt_clusters = sn->rt_clusters;
        if (q->rt_new_offset == sn->rt_offset)
            q->rt_moved = false;
    }
    co_mutex_unlock(&q->header_lock);
    return ret;
}

static int co_write_refcounts(struct qcow2 *q, const struct snapshot *sn)
{
    int ret = co_write_list(q, &sn->refs);

    if (ret || !sn->rt.nr)
        return ret;
    ret = co_blk_flush(qcow2_file(q));
    if (!ret)
        ret = co_write_list(q, &sn->rt);
    if (!ret && sn->rt_moved) {
        ret = co_blk_flush(qcow2_file(q));
        if (!ret)
            ret = co_switch_table(q, sn);
    }
    return ret;
}

static int co_write_mapping(struct qcow2 *q, const struct snapshot *sn)
{
    int ret;

    if (!sn->l2.nr && !sn->l1.nr)
        return 0;
    ret = co_write_list(q, &sn->l2);
    if (!ret)
        ret = co_write_list(q, &sn->l1);
    if (!ret)
        ret = co_blk_flush(qcow2_file(q));
    return ret;
}

static int co_run_cycle(struct qcow2 *q)
{
    struct snapshot sn = {0};
    int ret = q->header_unsure ? co_qcow2_settle_header(q) : 0;

    q->stats.cycles++;
    co_mutex_lock(&q->alloc_lock); /* no allocation half done */
    if (!ret)
        ret = take_snapshot(q, &sn);
    co_mutex_unlock(&q->alloc_lock);
    if (!ret)
        ret = co_write_refcounts(q, &sn);
    if (!ret)
        ret = co_qcow2_flush_files(q);
    if (!ret)
        ret = co_write_mapping(q, &sn);
    drop_snapshot(q, &sn, ret != 0);
    if (ret && ret != q->cycle_error)
        log_err("%s: metadata could not be flushed: %s", qcow2_name(q), strerror(-ret));
    else if (!ret && q->cycle_error)
        log_notice("%s: metadata is flushed again", qcow2_name(q));
    q->cycle_error = ret;
    return ret;
}

static void end_waiters(struct list_head *reqs, struct list_head *waiters, int result)
{
    while (!list_empty(reqs)) {
        struct blk_req *req = list_entry(reqs->next, struct blk_req, scratch.link);

        list_del(&req->scratch.link);
        blk_complete(req, result);
    }
    while (!list_empty(waiters)) {
        struct qflush_waiter *w = list_first_entry(waiters, struct qflush_waiter, link);

        list_del(&w->link);
        w->result = result;
        co_wake(w->co);
    }
}

static void cycles_co(void *arg)
{
    struct qcow2 *q = arg;
    int ret;

    do {
        struct list_head reqs = LIST_HEAD_INIT(reqs), waiters = LIST_HEAD_INIT(waiters);

        q->cycle_again = false;
        list_splice_tail(&reqs, &q->flush_reqs);
        list_splice_tail(&waiters, &q->flush_waiters);
        ret = co_run_cycle(q);
        end_waiters(&reqs, &waiters, ret);
        end_waiters(&reqs, &q->room_waiters, ret);
        qcow2_reclaim_kick(q);
    } while (q->cycle_again || !list_empty(&q->flush_reqs) || !list_empty(&q->flush_waiters));
    q->cycle_running = false;
    if (qcow2_is_dirty(q))
        qcow2_dirtied(q);
}

static void kick(struct qcow2 *q)
{
    if (q->cycle_running)
        return;
    q->cycle_running = true;
    ev_timer_stop(loop_ev(), &q->timer);
    co_spawn(cycles_co, q);
}

static size_t dirty_bytes(const struct qcow2 *q)
{
    return ((size_t)q->l2.nr_dirty + q->rc.nr_dirty) * q->g.slice_bytes;
}

bool qcow2_is_dirty(const struct qcow2 *q)
{
    return q->l2.nr_dirty || q->rc.nr_dirty || q->nr_l1_dirty || q->nr_rt_dirty || q->rt_moved ||
           q->freed.nr || q->header_unsure;
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct qcow2 *q = container_of(timer, struct qcow2, timer);

    (void)loop;
    (void)events;
    if (qcow2_is_dirty(q))
        kick(q);
}

void qcow2_flush_init(struct qcow2 *q)
{
    list_init(&q->flush_reqs);
    list_init(&q->flush_waiters);
    list_init(&q->room_waiters);
    ev_timer_init(&q->timer, on_timer, CYCLE_PERIOD_S, 0.);
}

/* The cycle starts from the loop, not from here: callers are in the middle of a change. */
void qcow2_dirtied(struct qcow2 *q)
{
    /* A cycle that would fail again is in no hurry. */
    bool much = dirty_bytes(q) >= DIRTY_SOFT_BYTES && !q->cycle_error;

    if (q->cycle_running) {
        return;
    } else if (!ev_is_active(&q->timer)) {
        ev_timer_set(&q->timer, much ? 0. : CYCLE_PERIOD_S, 0.);
        ev_timer_start(loop_ev(), &q->timer);
    } else if (much && !q->timer_soon) {
        ev_timer_stop(loop_ev(), &q->timer);
        ev_timer_set(&q->timer, 0., 0.);
        ev_timer_start(loop_ev(), &q->timer);
    }
    q->timer_soon = much;
}

static int co_wait_on(struct qcow2 *q, struct list_head *list)
{
    struct qflush_waiter w = {.co = co_self()};

    list_add_tail(list, &w.link);
    kick(q);
    co_yield ();
    return w.result;
}

int co_qcow2_wait_room(struct qcow2 *q)
{
    int ret = 0;

    while (!ret && dirty_bytes(q) >= DIRTY_HARD_BYTES) {
        q->cycle_again = true;
        ret = co_wait_on(q, &q->room_waiters);
    }
    return ret;
}

int co_qcow2_cycle(struct qcow2 *q)
{
    return co_wait_on(q, &q->flush_waiters);
}

int co_qcow2_settle(struct qcow2 *q)
{
    int ret = 0;

    do {
        ret = co_qcow2_cycle(q);
        while (q->reclaiming)
            co_sleep(UINT64_C(1000000));
    } while (!ret && qcow2_is_dirty(q));
    while (q->cycle_running)
        co_pause();
    return ret;
}

void qcow2_flush_join(struct qcow2 *q, struct blk_req *req)
{
    list_add_tail(&q->flush_reqs, &req->scratch.link);
    kick(q);
}

void qcow2_submit_flush(struct blk_node *node, struct blk_req *req)
{
    struct qcow2 *q = qcow2_of(node);

    if (node->read_only)
        blk_complete(req, 0);
    else if (!q->cycle_running && !qcow2_is_dirty(q) && !node->data.child)
        blk_forward(qcow2_file(q), req);
    else
        qcow2_flush_join(q, req);
}
