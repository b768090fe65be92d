/* SPDX-License-Identifier: BSD-3-Clause */
/* Crash images of one file, and the moments to build them for: see cut.h. */
#include "tests/crash/cut.h"

#include <stdlib.h>
#include "util/size.h"

#define SECTOR RECORD_SECTOR

const char *const kept_names[KEPT_NR] = {
    [KEPT_ALL] = "all",           [KEPT_NONE] = "nothing",  [KEPT_SOME] = "some writes",
    [KEPT_TORN] = "some sectors", [KEPT_ONE] = "one write", [KEPT_BUT_ONE] = "all but one write",
};

static int by_moment(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;

    return x->moment < y->moment ? -1 : x->moment > y->moment;
}

static void plan_flushes(struct rnd *rnd, const struct record_log *log, struct cuts *c)
{
    for (size_t i = 0; i < log->nr; i++) {
        const struct record_event *ev = &log->ev[i];

        if (ev->kind != RECORD_FLUSH)
            continue;
        c->cut[c->nr++] = (struct cut){ev->end, KEPT_ALL};
        c->cut[c->nr++] = (struct cut){ev->end, (enum kept)(2 + rnd_below(rnd, 4))};
        c->cut[c->nr++] = (struct cut){ev->end + 1, KEPT_NONE};
    }
}

bool plan_cuts(struct rnd *rnd, const struct record_log *logs, size_t nr_logs, uint64_t last,
               struct cuts *c)
{
    size_t flushes = 0, random;

    for (size_t l = 0; l < nr_logs; l++)
        for (size_t i = 0; i < logs[l].nr; i++)
            flushes += logs[l].ev[i].kind == RECORD_FLUSH;
    random = 2 * flushes + 16;
    c->nr = 0;
    c->cut = calloc(3 * flushes + random, sizeof(*c->cut));
    if (!c->cut)
        return false;
    for (size_t l = 0; l < nr_logs; l++)
        plan_flushes(rnd, &logs[l], c);
    while (random--)
        c->cut[c->nr++] =
            (struct cut){1 + rnd_below(rnd, last), (enum kept)(rnd_below(rnd, KEPT_NR))};
    qsort(c->cut, c->nr, sizeof(*c->cut), by_moment);
    return true;
}

/* Sector by sector, each with a chance of @num in 8. */
static void apply_torn(struct rnd *rnd, struct record_node *image, const struct record_event *ev,
                       uint64_t num)
{
    uint64_t end = ev->offset_bytes + ev->length_bytes, next;

    for (uint64_t at = ev->offset_bytes; at < end; at = next) {
        next = MIN_OF(round_down_pow2(at, SECTOR) + SECTOR, end);
        if (rnd_below(rnd, 8) < num)
            record_apply(image, ev, at, next - at);
    }
}

static void apply_kept(struct rnd *rnd, struct record_node *image, const struct record_event *ev,
                       enum kept kept, bool chosen, uint64_t num)
{
    bool whole = kept == KEPT_ALL || (kept == KEPT_SOME && rnd_below(rnd, 8) < num) ||
                 (kept == KEPT_ONE && chosen) || (kept == KEPT_BUT_ONE && !chosen);

    if (whole)
        record_apply(image, ev, ev->offset_bytes, ev->length_bytes);
    else if (kept == KEPT_TORN || (kept == KEPT_BUT_ONE && rnd_one_in(rnd, 2)))
        apply_torn(rnd, image, ev, num);
}

static bool is_on_way(const struct record_event *ev, uint64_t moment)
{
    return ev->kind < RECORD_FLUSH && ev->start < moment && ev->durable >= moment;
}

static bool is_durable(const struct record_event *ev, uint64_t moment)
{
    return ev->kind < RECORD_FLUSH && ev->durable < moment;
}

void cut_advance(struct common *c, const struct record_log *log, uint64_t moment)
{
    for (; c->nr < log->nr; c->nr++) {
        const struct record_event *ev = &log->ev[c->nr];

        if (is_durable(ev, moment))
            record_apply(c->image, ev, ev->offset_bytes, ev->length_bytes);
        else if (ev->kind < RECORD_FLUSH)
            break;
    }
}

/*
 * In the order of effects: what was durable, and some of what was on its way. A file system may
 * also have made the file longer than what was written, as growth goes in large steps.
 */
struct record_node *cut_build(struct rnd *rnd, const struct common *c, const struct record_log *log,
                              struct cut cut, bool exact)
{
    struct record_node *image = record_node_new(c->image->data, c->image->node.size_bytes);
    uint64_t num = 1 + 3 * rnd_below(rnd, 3), on_way = 0, chosen;

    for (size_t i = c->nr; i < log->nr; i++)
        on_way += is_on_way(&log->ev[i], cut.moment);
    chosen = on_way ? rnd_below(rnd, on_way) : 0;
    for (size_t i = c->nr; i < log->nr; i++) {
        const struct record_event *ev = &log->ev[i];

        if (is_durable(ev, cut.moment))
            record_apply(image, ev, ev->offset_bytes, ev->length_bytes);
        else if (is_on_way(ev, cut.moment))
            apply_kept(rnd, image, ev, cut.kept, chosen-- == 0, num);
    }
    if (!exact && rnd_one_in(rnd, 4))
        record_extend(image, round_up_pow2(image->node.size_bytes + 1, 65536));
    return image;
}
