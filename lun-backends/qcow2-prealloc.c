/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clusters that have their place before anything is written to them. Invariant: the range reads
 * the same before and after, at every crash point: a place comes to be pointed to only when what
 * is there reads as zeros, or while no subcluster of it counts.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <string.h>
#include "lun-backends/qcow2-offline.h"
#include "util/size.h"

#define FILL_BYTES QCOW2_ZEROS_BYTES

struct prealloc {
    struct qcow2 *q;
    enum qcow2_prealloc how;
};

/* Are the zeros in such a cluster data? With extended L2 they need not be, as no subcluster counts
 * yet; but what is in a raw data file is the disk. */
static bool holds_data(const struct qcow2 *q)
{
    return q->g.subs == 1 || qcow2_data_is_raw(q);
}

/* As a hole, where writes would make the file grow by steps that take space. */
static int co_lengthen(struct blk_node *file, uint64_t end)
{
    struct error ignored = ERROR_INIT;

    if (end <= file->size_bytes || !file->drv->co_resize)
        return 0;
    return file->drv->co_resize(file, end, &ignored);
}

static int co_fill(const struct prealloc *p, uint64_t host, uint64_t bytes)
{
    struct blk_node *where = qcow2_host_node(p->q, &host);
    int ret = 0;

    if (p->how == QCOW2_PREALLOC_FALLOC)
        return co_blk_write_zeroes(where, host, bytes, 0);
    if (p->how == QCOW2_PREALLOC_METADATA) {
        ret = co_lengthen(where, host + bytes);
        return ret ? ret : co_blk_write_zeroes(where, host, bytes, BLK_MAY_UNMAP);
    }
    for (uint64_t n; bytes && !ret; host += n, bytes -= n) {
        n = MIN_OF(bytes, FILL_BYTES);
        ret = co_blk_write(where, host, qcow2_zeros, n, 0);
        co_pause();
    }
    return ret;
}

/* Clusters from c->pos on that have no place. */
static int count_homeless(struct qchange *c, uint64_t *nr)
{
    uint64_t cluster = qcow2_cluster_bytes(&c->q->g);
    struct qcow2_entry e;

    for (*nr = 0; c->pos + *nr * cluster < c->end; ++*nr) {
        if (!qcow2_get_entry(c->q, c->slice, c->pos + *nr * cluster, &e))
            return -EIO;
        if (e.host || e.compressed)
            break;
    }
    return 0;
}

/* What an external file has no room for is left to it: it ends with the disk. */
static uint64_t fill_bytes(const struct qchange *c, uint64_t nr)
{
    uint64_t bytes = nr << c->q->g.cluster_bits;

    return c->q->g.external ? MIN_OF(bytes, c->q->node.size_bytes - c->pos) : bytes;
}

static int co_settle_run(const struct prealloc *p, struct qchange *c, uint64_t nr)
{
    struct qcow2 *q = p->q;
    struct qcow2_entry e;
    uint64_t host, got;
    bool fresh;
    int ret = co_qcow2_alloc_data(q, c->pos, nr, &host, &got, &fresh);

    if (ret)
        return ret;
    ret = co_fill(p, host, fill_bytes(c, got));
    if (ret) {
        co_qcow2_free_data_now(q, host, got);
        return ret;
    }
    for (; got; got--, host += qcow2_cluster_bytes(&q->g), c->pos += qcow2_cluster_bytes(&q->g)) {
        if (!qcow2_get_entry(q, c->slice, c->pos, &e))
            return -EIO;
        e.host = host;
        e.copied = true;
        e.alloc = holds_data(q) ? qcow2_sub_mask(0, q->g.subs - 1) : 0;
        e.zero = holds_data(q) ? 0 : e.zero;
        qchange_set_entry(c, c->pos, &e);
    }
    return 0;
}

static int co_settle_slice(const struct prealloc *p, uint64_t *pos)
{
    struct qchange c;
    uint64_t nr;
    int ret = co_qchange_begin(&c, p->q, *pos, p->q->node.size_bytes, true);

    if (ret)
        return ret;
    while (c.pos < c.end && !ret) {
        ret = count_homeless(&c, &nr);
        if (!ret && nr)
            ret = co_settle_run(p, &c, nr);
        else
            c.pos += qcow2_cluster_bytes(&p->q->g);
    }
    *pos = c.end;
    qchange_end(&c);
    co_pause();
    return ret;
}

static int co_settle_range(const struct prealloc *p, uint64_t pos)
{
    int ret = 0;

    while (pos < p->q->node.size_bytes && !ret)
        ret = co_settle_slice(p, &pos);
    return ret;
}

int co_qcow2_map_raw_data(struct qcow2 *q, uint64_t from)
{
    const struct prealloc p = {q, QCOW2_PREALLOC_METADATA};

    if (!qcow2_data_is_raw(q))
        return 0;
    return co_settle_range(&p, round_down_pow2(from, qcow2_cluster_bytes(&q->g)));
}

int co_qcow2_preallocate(struct blk_node *node, uint64_t from, enum qcow2_prealloc how, bool below,
                         struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    struct prealloc p = {q, how};
    struct blk_node *data = node->data.child;
    int ret = 0;

    if (how == QCOW2_PREALLOC_OFF)
        return 0;
    if (below && q->g.subs == 1)
        return error_set(err, ENOTSUP,
                         "above a backing file only extended_l2=on can be preallocated");
    if (data && data->size_bytes < node->size_bytes)
        ret = data->drv->co_resize(data, node->size_bytes, err);
    if (ret)
        return ret;
    ret = co_settle_range(&p, round_up_pow2(from, qcow2_cluster_bytes(&q->g)));
    if (!ret)
        ret = co_lengthen(qcow2_file(q), q->end_cluster << q->g.cluster_bits);
    if (!ret)
        ret = co_qcow2_settle(q);
    return ret ? error_set(err, -ret, "preallocating %s: %s", qcow2_name(q), strerror(-ret)) : 0;
}
