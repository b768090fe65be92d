/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who changes the mapping where. Operations that change L2 entries hold a lock on their guest
 * range, whole subclusters; two such ranges never overlap. Writers to different subclusters of
 * one new cluster share its host cluster through an assignment, so that they need not wait for
 * each other's data. Overwriting allocated data takes no lock: it changes no entry, and a host
 * cluster that loses its entry meanwhile is not reused before that write has ended.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>

static struct qlock *find_conflict(struct qcow2 *q, const struct qlock *l)
{
    struct qlock *other;

    list_for_each_entry (other, &q->locks, link)
        if (other->start < l->end && l->start < other->end)
            return other;
    return NULL;
}

void co_qlock(struct qcow2 *q, struct qlock *l, uint64_t start, uint64_t end)
{
    struct qlock *other;

    l->start = start;
    l->end = end;
    co_queue_init(&l->waiters);
    while ((other = find_conflict(q, l)))
        co_queue_wait(&other->waiters);
    list_add_tail(&q->locks, &l->link);
}

void qunlock(struct qlock *l)
{
    list_del(&l->link);
    co_queue_wake_all(&l->waiters);
}

static struct qassign *find_assign(struct qcow2 *q, uint64_t guest_cluster)
{
    struct qassign *a;

    list_for_each_entry (a, &q->assigns, link)
        if (a->guest_cluster == guest_cluster)
            return a;
    return NULL;
}

int co_qassign_get(struct qcow2 *q, uint64_t guest_cluster, struct qassign **out)
{
    struct qassign *a = find_assign(q, guest_cluster);
    uint64_t got;
    int ret;

    if (a) {
        a->users++;
        while (!a->ready)
            co_queue_wait(&a->waiters);
    } else {
        a = calloc(1, sizeof(*a));
        if (!a)
            return -ENOMEM;
        a->guest_cluster = guest_cluster;
        a->users = 1;
        co_queue_init(&a->waiters);
        list_add_tail(&q->assigns, &a->link);
        a->error = co_qcow2_alloc_data(q, guest_cluster << q->g.cluster_bits, 1, &a->host, &got,
                                       &a->fresh);
        a->ready = true;
        co_queue_wake_all(&a->waiters);
    }
    ret = a->error;
    if (ret) {
        co_qassign_put(q, a);
        return ret;
    }
    *out = a;
    return 0;
}

/* The last user whose entry never came to be gives the cluster back. */
void co_qassign_put(struct qcow2 *q, struct qassign *a)
{
    if (--a->users)
        return;
    list_del(&a->link);
    if (!a->used && !a->error)
        co_qcow2_free_data_now(q, a->host, 1);
    free(a);
}
