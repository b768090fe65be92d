/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes. Data that has a host cluster of its own is overwritten in place, straight from submit.
 * Everything else is a change of the mapping, in a coroutine, under a range lock: read what must
 * be copied, allocate, write the data, and only then set the L2 entries (in the cache). A change
 * that fails before that point leaves no trace but the data of what it did not own.
 *
 * An atomic write lies in one cluster and never overwrites: the cluster moves, and its one L2
 * entry, which no crash tears, tells the old data from the new.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/size.h"

#define OVERWRITE_MAX_RUNS 64
#define COPY_CHUNK_BYTES   65536u
#define SEGMENT_MAX_BYTES  (UINT64_C(1) << 20)

/* ---- in place ------------------------------------------------------------------------ */

struct write_op {
    uint32_t pending;
    int result;
    unsigned epoch;
};

static struct write_op *op_of(struct blk_req *req)
{
    return (struct write_op *)&req->scratch;
}

/* A write that is to be stable ends with a flush cycle. */
void qcow2_finish_change(struct qcow2 *q, struct blk_req *req, int result)
{
    if (!result && (req->flags & BLK_FUA))
        qcow2_flush_join(q, req);
    else
        blk_complete(req, result);
}

static void op_put(struct blk_req *req)
{
    struct qcow2 *q = qcow2_of(req->node);
    struct write_op *op = op_of(req);

    if (--op->pending)
        return;
    qcow2_io_end(q, op->epoch);
    qcow2_finish_change(q, req, op->result);
}

static void child_done(struct blk_req *child)
{
    struct blk_req *req = child->opaque;

    if (child->result)
        op_of(req)->result = child->result;
    blk_part_put(child, req);
    op_put(req);
}

/* Number of runs if all of them can be overwritten in place and are known, else 0. */
static unsigned overwrite_runs(struct qcow2 *q, struct blk_req *req, struct qrun *first)
{
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes;
    struct qrun run;
    unsigned n = 0;

    while (pos < end) {
        if (n == OVERWRITE_MAX_RUNS || qcow2_map(q, pos, end - pos, &run))
            return 0;
        if (run.kind != QRUN_DATA || !run.copied || qcow2_hits_metadata(q, run.host, run.bytes))
            return 0;
        if (!n++)
            *first = run;
        pos += run.bytes;
    }
    return n;
}

static void overwrite(struct qcow2 *q, struct blk_req *req, struct qrun run)
{
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes;
    struct write_op *op = op_of(req);
    struct blk_req *child;

    *op = (struct write_op){.pending = 1};
    op->epoch = qcow2_io_begin(q);
    for (;;) {
        child = blk_part_get(req, pos - req->offset_bytes, run.bytes);
        if (!child) {
            op->result = -ENOMEM;
            break;
        }
        child->offset_bytes = run.host;
        child->done = child_done;
        op->pending++;
        blk_submit(qcow2_host_node(q, &child->offset_bytes), child);
        pos += run.bytes;
        if (pos >= end)
            break;
        op->result = qcow2_map(q, pos, end - pos, &run);
        if (op->result)
            break;
    }
    op_put(req);
}

static void write_co(void *arg)
{
    struct blk_req *req = arg;
    struct qcow2 *q = qcow2_of(req->node);
    unsigned epoch = qcow2_io_begin(q);
    int ret;

    ret = co_qcow2_write(q, req->offset_bytes, req->length_bytes, req->iov, req->niov,
                         req->offset_bytes, req->flags);
    qcow2_io_end(q, epoch);
    qcow2_finish_change(q, req, ret);
}

void qcow2_submit_write(struct blk_node *node, struct blk_req *req)
{
    struct qcow2 *q = qcow2_of(node);
    struct qrun first;

    if (q->corrupt)
        blk_complete(req, -EIO);
    else if (!(req->flags & (BLK_IF_UNALLOCATED | BLK_ATOMIC)) && overwrite_runs(q, req, &first))
        overwrite(q, req, first);
    else
        co_spawn(write_co, req);
}

/* ---- L2 tables that may be changed --------------------------------------------------- */

static int co_copy_table(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g);
    size_t chunk = MIN_OF(cluster, COPY_CHUNK_BYTES);
    uint8_t *buf = aligned_alloc(QCOW2_SECTOR, chunk);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < cluster && !ret; at += chunk) {
        ret = co_blk_read(qcow2_file(q), from + at, buf, chunk, BLK_META);
        if (!ret)
            ret = co_blk_write(qcow2_file(q), to + at, buf, chunk, BLK_META);
    }
    free(buf);
    return ret;
}

void qcow2_set_l1(struct qcow2 *q, uint64_t index, uint64_t value)
{
    uint64_t granule = index / (QCOW2_SECTOR / 8);

    q->l1[index] = value;
    if (!(q->l1_dirty[granule / 64] >> (granule % 64) & 1)) {
        q->l1_dirty[granule / 64] |= UINT64_C(1) << (granule % 64);
        q->nr_l1_dirty++;
    }
    qcow2_dirtied(q);
}

/*
 * Gives L1 entry @index a table of its own: zeros, or a copy where a snapshot shares it. Its
 * content is written before the entry is set, so that the cycle's first flush covers it.
 */
static int co_own_table(struct qcow2 *q, uint64_t index)
{
    uint64_t old, host, got;
    bool fresh;
    int ret = 0;

    co_mutex_lock(&q->table_lock);
    old = q->l1[index];
    if (old & QCOW2_COPIED)
        goto out; /* someone was faster */
    ret = co_qcow2_alloc(q, 1, &host, &got, &fresh);
    if (ret)
        goto out;
    if (old & QCOW2_OFFSET_MASK)
        ret = co_copy_table(q, old & QCOW2_OFFSET_MASK, host);
    else
        ret = co_blk_write_zeroes(qcow2_file(q), host, qcow2_cluster_bytes(&q->g), BLK_META);
    if (ret) {
        co_qcow2_free_now(q, host, 1);
        goto out;
    }
    qcow2_set_l1(q, index, host | QCOW2_COPIED);
    if (old & QCOW2_OFFSET_MASK)
        qcow2_free_later(q, old & QCOW2_OFFSET_MASK, 1);
out:
    co_mutex_unlock(&q->table_lock);
    return ret;
}

static int co_pin_slice(struct qcow2 *q, uint64_t off, struct qslice **out)
{
    uint64_t index = off >> (q->g.cluster_bits + q->g.l2_bits), where;
    int ret = 0;

    if (!(q->l1[index] & QCOW2_COPIED)) {
        qcow2_l2_slice_offset(q, off, &ret);
        if (!ret)
            ret = co_own_table(q, index);
        if (ret)
            return ret;
    }
    where = qcow2_l2_slice_offset(q, off, &ret);
    if (!ret && (!where || qcow2_hits_metadata(q, where, q->g.slice_bytes)))
        ret = qcow2_corrupt(q, "L1 entry %" PRIu64 " points into other metadata", index);
    if (ret)
        return ret;
    return co_qcache_get(q, &q->l2, off >> q->g.slice_span_bits, where, out);
}

int co_qchange_begin(struct qchange *c, struct qcow2 *q, uint64_t pos, uint64_t end, bool wide)
{
    uint64_t unit = wide ? qcow2_cluster_bytes(&q->g) : qcow2_sub_bytes(&q->g);
    int ret = q->corrupt ? -EIO : co_qcow2_wait_room(q);

    if (ret)
        return ret;
    *c = (struct qchange){.q = q, .pos = pos, .end = MIN_OF(end, qcow2_slice_end(q, pos))};
    c->wide = wide || q->g.subs == 1;
    co_qlock(q, &c->lock, round_down_pow2(pos, unit), round_up_pow2(c->end, unit));
    ret = co_pin_slice(q, pos, &c->slice);
    if (ret)
        qunlock(&c->lock);
    return ret;
}

void qchange_end(struct qchange *c)
{
    qcache_put(c->slice);
    qunlock(&c->lock);
}

void qchange_set_entry(struct qchange *c, uint64_t off, const struct qcow2_entry *e)
{
    qcow2_entry_encode(&c->q->g, qcow2_slice_entry(c->q, c->slice, off), e);
    qcache_mark_dirty(c->q, &c->q->l2, c->slice);
}

/* ---- a segment: clusters whose host clusters are contiguous --------------------------- */

struct segment {
    uint64_t start, end; /* guest range of the data */
    uint64_t host;       /* of @start */
    bool fresh;          /* the host clusters read as zeros */
    struct qassign *assign;
    uint64_t allocated; /* host clusters that go back on failure */
    struct qpad head, tail;
};

static int add_pad_iov(struct iovec *iov, const struct qpad *p)
{
    size_t left = p->bytes;
    int n = 0;

    if (p->buf) {
        iov[0] = (struct iovec){p->buf, p->bytes};
        return 1;
    }
    for (; left; n++) {
        iov[n] = (struct iovec){(void *)qcow2_zeros, MIN_OF(left, QCOW2_ZEROS_BYTES)};
        left -= iov[n].iov_len;
    }
    return n;
}

/* Zero pads need not be written where zeros are already. */
static void drop_zero_pads(struct segment *s)
{
    if (!s->fresh)
        return;
    if (!s->head.buf)
        s->head.bytes = 0;
    if (!s->tail.buf)
        s->tail.bytes = 0;
}

static int co_write_segment(struct qchange *c, struct segment *s, const struct iovec *iov, int niov,
                            uint64_t data_off)
{
    struct qpad body = {.off = s->start, .bytes = s->end - s->start};
    size_t max = (size_t)niov + 2 + 3 +
                 (s->head.bytes + s->tail.bytes + (iov ? 0 : body.bytes)) / QCOW2_ZEROS_BYTES;
    struct iovec *all = malloc(max * sizeof(*all));
    struct blk_node *where;
    uint64_t host;
    int n, ret;

    if (!all)
        return -ENOMEM;
    drop_zero_pads(s);
    host = s->host - s->head.bytes;
    n = add_pad_iov(all, &s->head);
    if (iov) {
        ret = iov_slice(iov, niov, s->start - data_off, body.bytes, all + n, (int)max - n);
        n += ret;
    } else {
        ret = add_pad_iov(all + n, &body);
        n += ret;
    }
    if (ret >= 0) {
        n += add_pad_iov(all + n, &s->tail);
        where = qcow2_host_node(c->q, &host);
        ret = co_blk_rw(where, BLK_WRITE, host, all, n, 0);
    }
    free(all);
    return ret;
}

/* The entries come to point to the data: what this all is about. */
static int commit_segment(struct qchange *c, const struct segment *s)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), pos = s->start, last, host;
    struct qcow2_entry e;
    uint32_t mask;

    while (pos < s->end) {
        last = MIN_OF(s->end, round_down_pow2(pos, cluster) + cluster) - 1;
        host = round_down_pow2(s->host + (pos - s->start), cluster);
        if (!qcow2_get_entry(q, c->slice, pos, &e))
            return -EIO;
        mask = qcow2_sub_mask((unsigned)((pos & (cluster - 1)) >> q->g.sub_bits),
                              (unsigned)((last & (cluster - 1)) >> q->g.sub_bits));
        if (e.host != host || (e.alloc & mask) != mask) {
            e.host = host;
            e.copied = true;
            e.alloc |= mask;
            e.zero &= ~mask;
            qchange_set_entry(c, pos, &e);
        }
        pos = last + 1;
    }
    return 0;
}

/* Entries from @off on that go on like the first: contiguous host clusters, or none. */
static int extend_segment(struct qchange *c, const struct qcow2_entry *first, uint64_t off,
                          uint64_t *end)
{
    uint64_t cluster = qcow2_cluster_bytes(&c->q->g);
    uint64_t base = round_down_pow2(off, cluster), pos = base + cluster;
    struct qcow2_entry e;

    for (; pos < *end; pos += cluster) {
        if (!qcow2_get_entry(c->q, c->slice, pos, &e))
            return -EIO;
        if (e.compressed || e.host != (first->host ? first->host + (pos - base) : 0) ||
            (e.host && !e.copied))
            break;
    }
    *end = MIN_OF(*end, pos);
    return 0;
}

/* Host clusters for a segment that has none. Writers that hold only part of a cluster share. */
static int co_give_hosts(struct qchange *c, struct segment *s)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), base = round_down_pow2(s->start, cluster);
    uint64_t want, got;
    int ret;

    if (!c->wide && (s->start != base || s->end < base + cluster)) {
        s->end = MIN_OF(s->end, base + cluster);
        ret = co_qassign_get(q, base >> q->g.cluster_bits, &s->assign);
        if (ret)
            return ret;
        s->fresh = s->assign->fresh;
        s->host = s->assign->host + (s->start - base);
        return 0;
    }
    want = (s->end - base + cluster - 1) >> q->g.cluster_bits;
    if (!c->wide && s->end < base + (want << q->g.cluster_bits))
        want--; /* the last one is only partly ours */
    ret = co_qcow2_alloc_data(q, base, want, &s->host, &got, &s->fresh);
    if (ret)
        return ret;
    s->allocated = got;
    s->end = MIN_OF(s->end, base + (got << q->g.cluster_bits));
    s->host += s->start - base;
    return 0;
}

static void co_drop_segment(struct qchange *c, struct segment *s, bool committed)
{
    if (s->assign) {
        s->assign->used |= committed;
        s->assign->fresh &= committed;
        co_qassign_put(c->q, s->assign);
    } else if (s->allocated && !committed) {
        co_qcow2_free_data_now(c->q, round_down_pow2(s->host, qcow2_cluster_bytes(&c->q->g)),
                               s->allocated);
    }
    qpads_free(&s->head, &s->tail);
}

/* The segment at c->pos: as much as goes in one write. The copies come first: if they can't be
 * read now, nothing has been changed. */
static int co_segment(struct qchange *c, uint64_t end, const struct iovec *iov, int niov,
                      uint64_t data_off, uint32_t flags)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), asked;
    struct segment s = {.start = c->pos};
    struct qcow2_entry e;
    int ret;

    s.end = MIN_OF(end, round_down_pow2(c->pos, cluster) + MAX_OF(cluster, SEGMENT_MAX_BYTES));
    ret = co_qpads_fill(c, s.start, s.end, &s.head, &s.tail, flags);
    if (!ret && !qcow2_get_entry(q, c->slice, c->pos, &e))
        ret = -EIO;
    asked = s.end;
    if (!ret)
        ret = extend_segment(c, &e, c->pos, &s.end);
    if (!ret && e.host) {
        s.host = e.host + (c->pos & (cluster - 1));
        if (qcow2_hits_metadata(q, s.host, s.end - s.start) ||
            (e.alloc && !q->g.external && e.host >= qcow2_file(q)->size_bytes))
            ret = qcow2_corrupt(q, "L2 entry points to %#" PRIx64, e.host);
    } else if (!ret) {
        ret = co_give_hosts(c, &s);
    }
    if (s.end != asked)
        s.tail.bytes = 0;
    if (!ret)
        ret = co_write_segment(c, &s, iov, niov, data_off);
    if (!ret)
        ret = commit_segment(c, &s);
    co_drop_segment(c, &s, !ret);
    if (!ret)
        c->pos = s.end;
    return ret;
}

/* Writes [c->pos, end), all of it inside the change. */
static int co_write_piece(struct qchange *c, uint64_t end, const struct iovec *iov, int niov,
                          uint64_t data_off, uint32_t flags)
{
    uint64_t cluster = qcow2_cluster_bytes(&c->q->g), bytes;
    struct qcow2_entry e;
    int ret = 0;

    while (c->pos < end && !ret) {
        if (!qcow2_get_entry(c->q, c->slice, c->pos, &e))
            return -EIO;
        if (!e.compressed && (!e.host || (e.copied && !(flags & BLK_ATOMIC)))) {
            ret = co_segment(c, end, iov, niov, data_off, flags);
            continue;
        }
        if (!c->wide) {
            c->need_wide = true;
            return 0;
        }
        bytes = MIN_OF(end, round_down_pow2(c->pos, cluster) + cluster) - c->pos;
        ret = co_qcow2_move_cluster(c, c->pos, bytes, iov, niov, data_off, flags);
        c->pos += ret ? 0 : bytes;
    }
    return ret;
}

static int co_write_unallocated(struct qchange *c, const struct iovec *iov, int niov,
                                uint64_t data_off, uint32_t flags)
{
    struct qrun run;
    int ret = 0;

    while (c->pos < c->end && !ret && !c->need_wide) {
        ret = co_qcow2_map(c->q, c->pos, c->end - c->pos, &run);
        if (ret)
            break;
        if (run.kind == QRUN_UNALLOCATED)
            ret = co_write_piece(c, c->pos + run.bytes, iov, niov, data_off, flags);
        else
            c->pos += run.bytes;
    }
    return ret;
}

int co_qcow2_write(struct qcow2 *q, uint64_t off, uint64_t bytes, const struct iovec *iov, int niov,
                   uint64_t data_off, uint32_t flags)
{
    uint64_t end = off + bytes;
    bool wide = flags & BLK_ATOMIC;
    struct qchange c;
    int ret = 0;

    while (off < end && !ret) {
        ret = co_qchange_begin(&c, q, off, end, wide);
        if (ret)
            break;
        if (flags & BLK_IF_UNALLOCATED)
            ret = co_write_unallocated(&c, iov, niov, data_off, flags);
        else
            ret = co_write_piece(&c, c.end, iov, niov, data_off, flags);
        wide = c.need_wide;
        off = c.pos;
        qchange_end(&c);
    }
    return ret;
}
