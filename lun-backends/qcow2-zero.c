/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * WRITE_ZEROES and DISCARD as changes of L2 entries alone, where the format can say it.
 * Invariant: above a backing nothing becomes unallocated, or the backing's old data would come
 * back. What has to become zero and can't be said (version 2, parts of subclusters) is written.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include "util/size.h"

/* May entries say "zeros" without data: by a flag, or because unallocated reads zeros. */
static bool can_say_zero(const struct qcow2 *q)
{
    return q->g.version >= 3 || !qcow2_has_backing(q);
}

static uint32_t all_subs(const struct qcow2 *q)
{
    return qcow2_sub_mask(0, q->g.subs - 1);
}

/* Subclusters of @mask come to read zeros; @unmap: a whole cluster is given back. */
static void zero_subs(struct qchange *c, uint64_t off, const struct qcow2_entry *old, uint32_t mask,
                      bool unmap)
{
    struct qcow2 *q = c->q;
    bool whole = mask == all_subs(q);
    struct qcow2_entry e = *old;

    if (whole && (unmap || e.compressed || (e.host && !e.copied) || q->g.version < 3)) {
        e = (struct qcow2_entry){0};
        qcow2_free_entry_later(q, old);
    }
    e.alloc &= ~mask;
    e.zero |= q->g.version >= 3 ? mask : 0;
    qchange_set_entry(c, off, &e);
}

/* One cluster's part of a change; @mask: subclusters that lie wholly in the range. */
static int zero_cluster(struct qchange *c, uint64_t off, uint32_t mask, uint32_t flags)
{
    struct qcow2 *q = c->q;
    struct qcow2_entry e;
    bool whole = mask == all_subs(q);

    if (!qcow2_get_entry(q, c->slice, off, &e))
        return -EIO;
    if (flags & BLK_IF_UNALLOCATED)
        mask = e.compressed ? 0 : mask & ~(e.alloc | e.zero);
    if (!mask)
        return 0;
    if (!e.compressed && !e.host && (e.zero & mask) == mask)
        return 0; /* said already */
    if (!e.compressed && !(e.alloc & mask) && !qcow2_has_backing(q) &&
        !(whole && e.host && (flags & BLK_MAY_UNMAP)))
        return 0; /* reads zeros as it is */
    if (e.compressed && !whole) {
        c->need_wide = true; /* its other subclusters have to be unpacked: written as data */
        return 0;
    }
    zero_subs(c, off, &e, mask, flags & BLK_MAY_UNMAP);
    return 0;
}

static uint64_t table_end(const struct qcow2 *q, uint64_t off)
{
    uint32_t bits = q->g.cluster_bits + q->g.l2_bits;

    return ((off >> bits) + 1) << bits;
}

uint32_t qcow2_subs_between(const struct qcow2 *q, uint64_t pos, uint64_t stop)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g);

    if (stop == q->node.size_bytes)
        stop = round_up_pow2(stop, cluster);
    return qcow2_sub_mask((unsigned)((pos & (cluster - 1)) >> q->g.sub_bits),
                          (unsigned)(((stop - 1) & (cluster - 1)) >> q->g.sub_bits));
}

/* Whole clusters of the change that was made from @from on, whose old data nobody reads any more.
 * They are not used for anything else in between, so it can be done before it is durable. */
static void co_punch_data_file(struct qchange *c, uint64_t from)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), first = round_up_pow2(from, cluster);
    uint64_t end = c->pos == q->node.size_bytes ? c->pos : round_down_pow2(c->pos, cluster);

    if (first < end)
        co_blk_discard(q->node.data.child, first, end - first);
}

/* [off, end) is aligned to subclusters, but may stop at the end of the disk. */
static int co_zero_range(struct qcow2 *q, uint64_t off, uint64_t end, uint32_t flags)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), stop;
    struct qchange c;
    int ret = 0;

    while (off < end && !ret) {
        if (!qcow2_has_backing(q) &&
            !(q->l1[off >> (q->g.cluster_bits + q->g.l2_bits)] & QCOW2_OFFSET_MASK)) {
            off = MIN_OF(end, table_end(q, off));
            continue;
        }
        ret = co_qchange_begin(&c, q, off, end, false);
        if (ret)
            break;
        while (c.pos < c.end && !ret && !c.need_wide) {
            stop = MIN_OF(c.end, round_down_pow2(c.pos, cluster) + cluster);
            ret = zero_cluster(&c, c.pos, qcow2_subs_between(q, c.pos, stop), flags);
            if (!c.need_wide)
                c.pos = stop;
        }
        if (q->g.external && (flags & (BLK_MAY_UNMAP | BLK_IF_UNALLOCATED)) == BLK_MAY_UNMAP)
            co_punch_data_file(&c, off);
        off = c.pos;
        stop = MIN_OF(c.end, round_down_pow2(c.pos, cluster) + cluster);
        qchange_end(&c);
        if (c.need_wide && !ret) {
            ret = co_qcow2_write(q, off, stop - off, NULL, 0, off,
                                 flags & (BLK_IF_UNALLOCATED | BLK_BULK));
            off = stop;
        }
        if (off < end)
            co_pause(); /* a large range must not hold up the loop */
    }
    return ret;
}

/* Zeros as data, unless they are there already. */
static int co_write_zero_data(struct qcow2 *q, uint64_t off, uint64_t end, uint32_t flags)
{
    struct qrun run;
    int ret = 0;

    while (off < end && !ret) {
        ret = co_qcow2_map(q, off, end - off, &run);
        if (ret)
            break;
        if (run.kind != QRUN_ZERO && !(run.kind == QRUN_UNALLOCATED && !qcow2_has_backing(q)))
            ret = co_qcow2_write(q, off, run.bytes, NULL, 0, off,
                                 flags & (BLK_IF_UNALLOCATED | BLK_BULK));
        off += run.bytes;
    }
    return ret;
}

static int co_write_if_any(struct qcow2 *q, uint64_t off, uint64_t end)
{
    return off < end ? co_qcow2_write(q, off, end - off, NULL, 0, off, 0) : 0;
}

/* What sticks out of whole subclusters is written, which takes room as well. */
static int co_write_anchored(struct qcow2 *q, uint64_t off, uint64_t first, uint64_t last,
                             uint64_t end)
{
    int ret;

    if (first >= last)
        return co_write_if_any(q, off, end);
    ret = co_write_if_any(q, off, first);
    if (!ret)
        ret = co_qcow2_anchor(q, first, last);
    return ret ? ret : co_write_if_any(q, last, end);
}

static int co_write_zeroes(struct qcow2 *q, uint64_t off, uint64_t end, uint32_t flags)
{
    uint64_t sub = qcow2_sub_bytes(&q->g);
    uint64_t first = round_up_pow2(off, sub);
    uint64_t last = end == q->node.size_bytes ? end : round_down_pow2(end, sub);
    int ret;

    if (flags & BLK_ANCHOR)
        return co_write_anchored(q, off, first, last, end);
    if (qcow2_data_is_raw(q))
        return co_qcow2_zero_raw_data(q, off, end, flags);
    if (!can_say_zero(q) || first >= last)
        return co_write_zero_data(q, off, end, flags);
    ret = co_write_zero_data(q, off, first, flags);
    if (!ret)
        ret = co_zero_range(q, first, last, flags);
    if (!ret)
        ret = co_write_zero_data(q, last, end, flags);
    return ret;
}

static void write_zeroes_co(void *arg)
{
    struct blk_req *req = arg;
    struct qcow2 *q = qcow2_of(req->node);
    unsigned epoch = qcow2_io_begin(q);
    int ret =
        co_write_zeroes(q, req->offset_bytes, req->offset_bytes + req->length_bytes, req->flags);

    qcow2_io_end(q, epoch);
    qcow2_finish_change(q, req, ret);
}

void qcow2_submit_write_zeroes(struct blk_node *node, struct blk_req *req)
{
    if (qcow2_of(node)->corrupt)
        blk_complete(req, -EIO);
    else
        co_spawn(write_zeroes_co, req);
}

/* Whole clusters only. */
static void discard_co(void *arg)
{
    struct blk_req *req = arg;
    struct qcow2 *q = qcow2_of(req->node);
    uint64_t cluster = qcow2_cluster_bytes(&q->g), end = req->offset_bytes + req->length_bytes;
    uint64_t first = round_up_pow2(req->offset_bytes, cluster);
    uint64_t last = end == q->node.size_bytes ? end : round_down_pow2(end, cluster);
    unsigned epoch = qcow2_io_begin(q);
    int ret = 0;

    if (qcow2_data_is_raw(q))
        ret = co_qcow2_zero_raw_data(q, req->offset_bytes, end, BLK_MAY_UNMAP);
    else if (can_say_zero(q) && first < last)
        ret = co_zero_range(q, first, last, BLK_MAY_UNMAP);
    qcow2_io_end(q, epoch);
    blk_complete(req, ret);
}

void qcow2_submit_discard(struct blk_node *node, struct blk_req *req)
{
    if (qcow2_of(node)->corrupt)
        blk_complete(req, -EIO);
    else
        co_spawn(discard_co, req);
}
