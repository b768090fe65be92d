/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The way of a freed cluster back to the allocator: freed in memory; the change that freed it
 * durable (a flush cycle); all requests that began before have ended, so that nobody reads or
 * writes it any more; hole punched; refcount lowered. Only then may it be given out.
 *
 * Requests are counted in one of two epochs. The reclaimer turns new ones to the other epoch and
 * waits until the old one is empty.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "util/log.h"

int qfree_add(struct qfree_list *l, uint64_t first, uint64_t count)
{
    struct qfree_extent *last = l->nr ? &l->ext[l->nr - 1] : NULL;

    if (last && last->first + last->count == first) {
        last->count += count;
        return 0;
    }
    if (l->nr == l->max) {
        size_t max = l->max ? l->max * 2 : 64;
        struct qfree_extent *ext = realloc(l->ext, max * sizeof(*ext));

        if (!ext)
            return -ENOMEM;
        l->ext = ext;
        l->max = max;
    }
    l->ext[l->nr++] = (struct qfree_extent){first, count};
    return 0;
}

void qfree_move(struct qfree_list *to, struct qfree_list *from)
{
    if (!to->nr) {
        struct qfree_list tmp = *to;

        *to = *from;
        *from = tmp;
        return;
    }
    for (size_t i = 0; i < from->nr; i++)
        if (qfree_add(to, from->ext[i].first, from->ext[i].count))
            log_warn("out of memory, %" PRIu64 " freed clusters are leaked", from->ext[i].count);
    from->nr = 0;
}

void qcow2_io_end(struct qcow2 *q, unsigned epoch)
{
    if (--q->io[epoch] == 0 && q->grace_co && epoch != q->epoch) {
        struct coroutine *co = q->grace_co;

        q->grace_co = NULL;
        co_wake(co);
    }
}

static void co_wait_old_io(struct qcow2 *q)
{
    q->epoch ^= 1;
    if (!q->io[q->epoch ^ 1])
        return;
    q->grace_co = co_self();
    co_yield ();
}

/* Lowers refcounts; what would become free is punched first, in runs as long as possible. */
static int co_release(struct qcow2 *q, const struct qfree_extent *e)
{
    uint64_t done = 0, run, refs, left;
    int ret = 0;

    while (done < e->count && !ret) {
        for (run = 0; done + run < e->count; run++) {
            ret = co_qcow2_refcount(q, e->first + done + run, &refs);
            if (ret || refs != 1)
                break;
        }
        if (ret)
            break;
        if (run)
            co_blk_discard(qcow2_file(q), (e->first + done) << q->g.cluster_bits,
                           run << q->g.cluster_bits);
        run += !run;
        co_mutex_lock(&q->alloc_lock);
        for (uint64_t i = 0; i < run && !ret; i++) {
            ret = co_qcow2_unref(q, e->first + done + i, &left);
            q->stats.freed_clusters += !ret && !left;
        }
        co_mutex_unlock(&q->alloc_lock);
        done += run;
    }
    return ret;
}

static void reclaim_co(void *arg)
{
    struct qcow2 *q = arg;

    while (q->freed_ready.nr) {
        struct qfree_list batch = q->freed_ready;

        q->freed_ready = (struct qfree_list){0};
        co_wait_old_io(q);
        qcow2_unpack_forget(q);
        for (size_t i = 0; i < batch.nr; i++)
            if (co_release(q, &batch.ext[i]))
                log_warn("%s: %" PRIu64 " clusters at %#" PRIx64 " could not be freed and leak",
                         qcow2_name(q), batch.ext[i].count,
                         batch.ext[i].first << q->g.cluster_bits);
        free(batch.ext);
    }
    q->reclaiming = false;
}

void qcow2_reclaim_kick(struct qcow2 *q)
{
    if (q->reclaiming || !q->freed_ready.nr)
        return;
    q->reclaiming = true;
    co_spawn(reclaim_co, q);
}
