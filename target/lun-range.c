/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is going on where on a LUN's medium, so that commands which read, look and write (COMPARE
 * AND WRITE, ORWRITE) are one step to all others. Every disk request of a command is a shared
 * range; such a command holds an exclusive one over its requests. Ranges are granted in the order
 * they came: nobody starves. While no exclusive one is listed, a shared one costs a list entry.
 */
#include "target/lun.h"

static bool overlap(const struct lun_range *a, const struct lun_range *b)
{
    return a->start < b->end && b->start < a->end;
}

static bool may_go(const struct lun *lun, const struct lun_range *r)
{
    const struct lun_range *older;

    list_for_each_entry (older, &lun->ranges, link) {
        if (older == r)
            return true;
        if ((older->exclusive || r->exclusive) && overlap(older, r))
            return false;
    }
    return true;
}

bool lun_range_enter(struct lun *lun, struct lun_range *r)
{
    list_add_tail(&lun->ranges, &r->link);
    lun->nr_exclusive += r->exclusive;
    r->granted = !lun->nr_exclusive || may_go(lun, r);
    return r->granted;
}

void lun_range_leave(struct lun *lun, struct lun_range *r)
{
    list_del(&r->link);
    lun->nr_exclusive -= r->exclusive;
    if (!r->exclusive && !lun->nr_exclusive)
        return; /* nobody waited for it */
    loop_defer(&lun->ranges_moved, LOOP_NOW);
}

/* One at a time: what is granted may enter and leave ranges from inside its callback. */
void lun_ranges_moved(struct deferred *d)
{
    struct lun *lun = container_of(d, struct lun, ranges_moved);
    struct lun_range *r;

    list_for_each_entry (r, &lun->ranges, link) {
        if (!r->granted && (!lun->nr_exclusive || may_go(lun, r))) {
            r->granted = true;
            loop_defer(&lun->ranges_moved, LOOP_NOW);
            r->go(r);
            return;
        }
    }
}
