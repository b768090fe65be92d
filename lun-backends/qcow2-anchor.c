/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Zeros that keep their place: WRITE_ZEROES with BLK_ANCHOR makes clusters that read zeros by a
 * flag, and have a host cluster whose room in the file is taken. Invariant: a later write to such
 * a cluster allocates nothing, neither in the image nor in the file system below it.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include "util/size.h"

/* Has it a host cluster that it may overwrite? */
static bool has_place(const struct qcow2_entry *e)
{
    return e->host && e->copied && !e->compressed;
}

static uint32_t all_subs(const struct qcow2 *q)
{
    return qcow2_sub_mask(0, q->g.subs - 1);
}

/* Clusters from c->pos to @end that are wholly in the range and have no place to keep. */
static int count_placeless(const struct qchange *c, uint64_t end, uint64_t *nr)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), pos, stop;
    struct qcow2_entry e;

    *nr = 0;
    for (pos = c->pos; pos < end; pos = stop, ++*nr) {
        stop = MIN_OF(end, round_down_pow2(pos, cluster) + cluster);
        if (!qcow2_get_entry(q, c->slice, pos, &e))
            return -EIO;
        if (has_place(&e) || qcow2_subs_between(q, pos, stop) != all_subs(q))
            break;
    }
    return 0;
}

/* Host clusters, with their room in the file. */
static int co_take_places(struct qcow2 *q, uint64_t want, uint64_t *host, uint64_t *got)
{
    bool fresh;
    int ret = co_qcow2_alloc(q, want, host, got, &fresh);

    if (ret)
        return ret;
    ret = co_blk_write_zeroes(qcow2_file(q), *host, *got << q->g.cluster_bits, 0);
    if (ret)
        co_qcow2_free_now(q, *host, *got);
    return ret;
}

static int co_anchor_clusters(struct qchange *c, uint64_t nr)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), host, got;
    struct qcow2_entry old;
    int ret = co_take_places(q, nr, &host, &got);

    for (; !ret && got; got--, host += cluster, c->pos += cluster) {
        struct qcow2_entry e = {.host = host, .copied = true, .zero = all_subs(q)};

        if (!qcow2_get_entry(q, c->slice, c->pos, &old))
            return -EIO;
        qchange_set_entry(c, c->pos, &e);
        qcow2_free_entry_later(q, &old);
    }
    c->pos = MIN_OF(c->pos, c->end);
    return ret;
}

/* What is left of a cluster: it has a place, or only a part of it is to become zero. */
static int co_anchor_part(struct qchange *c, uint64_t stop)
{
    struct qcow2 *q = c->q;
    uint64_t in_cluster = c->pos & (qcow2_cluster_bytes(&q->g) - 1), got;
    uint32_t mask = qcow2_subs_between(q, c->pos, stop);
    struct qcow2_entry e;
    int ret = 0;

    if (!qcow2_get_entry(q, c->slice, c->pos, &e))
        return -EIO;
    if (e.compressed || (e.host && !e.copied)) {
        c->need_wide = true; /* the rest of it has to move: written as data */
        return 0;
    }
    if (e.host && (e.zero & mask) == mask)
        ret = 0; /* it is anchored */
    else if (e.host)
        ret = co_blk_write_zeroes(qcow2_file(q), e.host + in_cluster, stop - c->pos, 0);
    else
        ret = co_take_places(q, 1, &e.host, &got);
    if (ret)
        return ret;
    e.copied = true;
    e.alloc &= ~mask;
    e.zero |= mask;
    qchange_set_entry(c, c->pos, &e);
    c->pos = stop;
    return 0;
}

/* The range up to c->end, or to c->pos where a cluster has to be written as data. */
static int co_anchor_change(struct qchange *c)
{
    uint64_t cluster = qcow2_cluster_bytes(&c->q->g), nr;
    int ret = 0;

    while (c->pos < c->end && !ret && !c->need_wide) {
        ret = count_placeless(c, c->end, &nr);
        if (!ret && nr)
            ret = co_anchor_clusters(c, nr);
        else if (!ret)
            ret = co_anchor_part(c, MIN_OF(c->end, round_down_pow2(c->pos, cluster) + cluster));
    }
    return ret;
}

int co_qcow2_anchor(struct qcow2 *q, uint64_t off, uint64_t end)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), stop;
    struct qchange c;
    int ret = 0;

    while (off < end && !ret) {
        ret = co_qchange_begin(&c, q, off, end, true);
        if (ret)
            break;
        c.need_wide = false;
        ret = co_anchor_change(&c);
        off = c.pos;
        stop = MIN_OF(c.end, round_down_pow2(off, cluster) + cluster);
        qchange_end(&c);
        if (c.need_wide && !ret) {
            ret = co_qcow2_write(q, off, stop - off, NULL, 0, off, 0);
            off = stop;
        }
        if (off < end)
            co_pause(); /* a large range must not hold up the loop */
    }
    return ret;
}
