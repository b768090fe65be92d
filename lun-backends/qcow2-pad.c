/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ends of a write that starts or stops inside a subcluster which has no data yet: what is to
 * stand there is read from below, so that the subcluster is written whole. Invariant: a pad lies in
 * one subcluster, and is read while its range is locked. Pads that are zeros have no buffer.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>
#include "util/size.h"

/* More than this is not read for nothing to save a request. */
#define TOGETHER_MAX_BYTES (UINT64_C(128) << 10)

/* Does the subcluster at @off have content of its own in an entry's host cluster? */
static bool has_data_at(const struct qcow2 *q, const struct qcow2_entry *e, uint64_t off)
{
    unsigned sub = (unsigned)((off & (qcow2_cluster_bytes(&q->g) - 1)) >> q->g.sub_bits);

    return e->alloc >> sub & 1;
}

/* The extent of the pad [off, end); *read: its content is to be read. */
static int co_plan(struct qchange *c, struct qpad *p, uint64_t off, uint64_t end, bool *read)
{
    struct qcow2 *q = c->q;
    struct qcow2_entry e;
    struct qrun run;
    int ret;

    *p = (struct qpad){.off = off};
    *read = false;
    if (off == end)
        return 0;
    if (!qcow2_get_entry(q, c->slice, off, &e))
        return -EIO;
    if (has_data_at(q, &e, off))
        return 0;
    if (qcow2_data_is_raw(q)) /* it is the disk, and ends with it */
        end = MIN_OF(end, MAX_OF(off, q->node.size_bytes));
    p->bytes = end - off;
    if (off >= q->node.size_bytes)
        return 0;
    ret = co_qcow2_map(q, off, 1, &run);
    *read = !ret && run.kind != QRUN_ZERO && q->node.backing.child;
    return ret;
}

static int co_read(struct qcow2 *q, struct qpad *p, uint64_t bytes, uint32_t flags)
{
    p->buf = aligned_alloc(QCOW2_SECTOR, round_up_pow2(bytes, QCOW2_SECTOR));
    return p->buf ? co_qcow2_read_old(q, p->off, p->buf, bytes, flags) : -ENOMEM;
}

static void drop_if_zero(struct qpad *p)
{
    if (!p->buf || !buf_is_zero(p->buf, p->bytes))
        return;
    if (!p->shared)
        free(p->buf);
    p->buf = NULL;
}

/* Both pads and what is between them come from below: one read of it all. */
static int co_read_together(struct qcow2 *q, struct qpad *head, struct qpad *tail, uint32_t flags)
{
    uint64_t all = tail->off + tail->bytes - head->off;
    int ret = co_read(q, head, all, flags);

    if (ret) {
        free(head->buf);
        head->buf = NULL;
        return ret;
    }
    tail->buf = head->buf + (tail->off - head->off);
    tail->shared = true;
    drop_if_zero(tail);
    if (!tail->buf)
        drop_if_zero(head);
    return 0;
}

static int co_are_together(struct qcow2 *q, const struct qpad *head, const struct qpad *tail)
{
    uint64_t all = tail->off + tail->bytes - head->off;
    struct qrun run;
    int ret;

    if (all > TOGETHER_MAX_BYTES)
        return 0;
    ret = co_qcow2_map(q, head->off, all, &run);
    return ret ? ret : run.kind == QRUN_UNALLOCATED && run.bytes >= all;
}

int co_qpads_fill(struct qchange *c, uint64_t start, uint64_t end, struct qpad *head,
                  struct qpad *tail, uint32_t flags)
{
    uint64_t sub = qcow2_sub_bytes(&c->q->g);
    bool read_head, read_tail;
    int ret = co_plan(c, head, round_down_pow2(start, sub), start, &read_head);

    *tail = (struct qpad){.off = end};
    if (!ret)
        ret = co_plan(c, tail, end, round_up_pow2(end, sub), &read_tail);
    if (!ret && read_head && read_tail) {
        ret = co_are_together(c->q, head, tail);
        if (ret > 0) {
            ret = co_read_together(c->q, head, tail, flags);
            if (ret != -EIO)
                return ret;
            ret = 0; /* what is between may be unreadable, and is not needed */
        }
    }
    if (!ret && read_head)
        ret = co_read(c->q, head, head->bytes, flags);
    if (!ret && read_tail)
        ret = co_read(c->q, tail, tail->bytes, flags);
    if (!ret) {
        drop_if_zero(head);
        drop_if_zero(tail);
    }
    return ret;
}

void qpads_free(struct qpad *head, struct qpad *tail)
{
    if (!tail->shared)
        free(tail->buf);
    free(head->buf);
}
