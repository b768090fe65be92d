/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who may change a range of a file now. A read-modify-write is exclusive: no other change of the
 * blocks it touches runs beside it. Changes that are not exclusive never wait for each other.
 * Waiting is in order of arrival, so nobody starves.
 */
#include "lun-backends/file-int.h"

static bool in_the_way(const struct file_op *a, const struct file_op *b)
{
    return (a->exclusive || b->exclusive) && a->start_bytes < b->end_bytes &&
           b->start_bytes < a->end_bytes;
}

static bool must_wait(const struct file_op *op)
{
    struct file_op *earlier;

    list_for_each_entry (earlier, &op->f->changes, change_link) {
        if (earlier == op)
            return false;
        if (in_the_way(earlier, op))
            return true;
    }
    return false;
}

void file_range_lock(struct file_op *op)
{
    struct file_node *f = op->f;

    file_recall(f, op->start_bytes, op->end_bytes);
    list_add_tail(&f->changes, &op->change_link);
    f->nr_exclusive += op->exclusive;
    op->waiting = f->nr_exclusive && must_wait(op);
    f->nr_waiting += op->waiting;
    if (!op->waiting)
        op->go(op);
}

/* The first waiter that need not wait any longer. */
static struct file_op *next_ready(struct file_node *f)
{
    struct file_op *op;

    list_for_each_entry (op, &f->changes, change_link) {
        if (op->waiting && !must_wait(op))
            return op;
    }
    return NULL;
}

void file_range_unlock(struct file_op *op)
{
    struct file_node *f = op->f;
    struct file_op *next;

    list_del(&op->change_link);
    f->nr_exclusive -= op->exclusive;
    while (f->nr_waiting && (next = next_ready(f))) {
        next->waiting = false;
        f->nr_waiting--;
        next->go(next);
    }
}
