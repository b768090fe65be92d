/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What guests ask for first: a request that had to ask the source is copy-on-read's to keep; what
 * follows it is copied next, before the walk from the start goes on, if another request lay near
 * by not long ago: somebody reads on from there. Single random reads say nothing of the next one.
 *
 * Guests that go on reading near each other for ever would keep a slow job from its walk: beyond
 * HOT_LEAD the walk copies as much as is copied here.
 *
 * Invariant: this only brings copies forward. What it leaves out, for whatever reason, the walk
 * finds; so neither failures nor progress are its business.
 */
#include <string.h>

#include "lun-backends/stream-int.h"
#include "util/size.h"

#define HOT_BEFORE  (64u << 10)
#define HOT_AFTER   (1u << 20)
#define HOT_EXTENTS 16
#define HOT_LEAD    (4u << 20)

/* True if a request was near before; remembers this one. */
static bool has_neighbour(struct hot_list *l, uint64_t offset)
{
    bool found = false;

    for (unsigned i = 0; i < STREAM_MAX_HOT && !found; i++) {
        uint64_t at = l->seen[i] - 1; /* 0: none */

        found = l->seen[i] && (at > offset ? at - offset : offset - at) <= HOT_AFTER;
    }
    l->seen[l->next_seen++ % STREAM_MAX_HOT] = offset + 1;
    return found;
}

void stream_hot_note(struct stream *s, uint64_t offset, uint64_t bytes)
{
    struct hot_list *l = &s->hot;
    struct hot_range new = {
        .start = round_down_pow2(offset - MIN_OF(offset, HOT_BEFORE), HOT_BEFORE),
        .end = round_up_pow2(offset + bytes, HOT_BEFORE) + HOT_AFTER,
    };
    unsigned i = 0;

    if (!has_neighbour(l, offset))
        return;
    while (i < l->nr) { /* what it covers or touches becomes part of it */
        struct hot_range *r = &l->range[i];

        if (new.start <= r->end && r->start <= new.end && r->end - r->start <= 4 * HOT_AFTER) {
            new.start = MIN_OF(new.start, r->start);
            new.end = MAX_OF(new.end, r->end);
            memmove(r, r + 1, (--l->nr - i) * sizeof(*r));
        } else {
            i++;
        }
    }
    if (l->nr == STREAM_MAX_HOT) /* the oldest goes */
        l->nr--;
    memmove(l->range + 1, l->range, l->nr * sizeof(l->range[0]));
    l->range[0] = new;
    l->nr++;
}

/* The first part of [*@start, end) that the overlay has no say about; false: none. */
static bool co_find_missing(struct stream *s, uint64_t *start, uint64_t *end)
{
    struct blk_extent ext;

    while (*start < *end) {
        if (co_head_status(&s->dst, *start, *end - *start, &ext))
            return false;
        if (ext.state == BLK_ST_UNALLOCATED) {
            *end = MIN_OF(*end, *start + ext.length_bytes);
            return true;
        }
        *start += ext.length_bytes;
    }
    return false;
}

/* Whole units of data in [start, end); zeros and what nobody has a say about wait. */
static bool co_copy_extents(struct stream *s, uint64_t start, uint64_t end)
{
    struct blk_extent ext[HOT_EXTENTS];
    uint64_t unit = s->plan.unit_bytes;
    int n = co_stream_ask_source(s, start, end, ext, HOT_EXTENTS);

    for (int i = 0; i < n; i++) {
        uint64_t ext_end = ext[i].offset_bytes + ext[i].length_bytes;
        struct plan_run run = {.kind = PLAN_COPY};

        if (ext[i].state == BLK_ST_ZERO || ext[i].state == BLK_ST_UNALLOCATED)
            continue;
        ext_end = MIN_OF(round_up_pow2(ext_end, unit), end);
        for (run.start = MAX_OF(round_down_pow2(ext[i].offset_bytes, unit), start);
             run.start < ext_end; run.start = run.end) {
            run.end = MIN_OF(run.start + stream_copy_bytes(s), ext_end);
            if (!co_stream_start_copy(s, &run, true))
                return false;
        }
    }
    return true;
}

bool co_stream_serve_hot(struct stream *s)
{
    while (s->hot.nr && s->hot.lead_bytes < HOT_LEAD && !stream_interrupted(s)) {
        uint64_t size = blk_head_node(&s->dst)->size_bytes;
        struct hot_range r = s->hot.range[0];
        uint64_t end = MIN_OF(round_up_pow2(r.end, s->plan.unit_bytes), size);
        uint64_t stop = end;

        s->hot.nr--;
        memmove(s->hot.range, s->hot.range + 1, s->hot.nr * sizeof(s->hot.range[0]));
        r.start = MAX_OF(round_down_pow2(r.start, s->plan.unit_bytes), s->pos);
        while (r.start < end && co_find_missing(s, &r.start, &stop)) {
            if (!co_copy_extents(s, r.start, stop))
                return false;
            r.start = stop;
            stop = end;
        }
    }
    return !stream_interrupted(s);
}
