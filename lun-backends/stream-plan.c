/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs of whole units out of extents: see stream-plan.h. No I/O. */
#include "lun-backends/stream-plan.h"

#include "util/size.h"

static const struct plan_run no_run;

void plan_init(struct plan *p, uint32_t unit_bytes)
{
    *p = (struct plan){.unit_bytes = unit_bytes};
}

/* Opens @next; what was open before goes to *@run, if there is any of it. */
static bool change_run(struct plan *p, struct plan_run next, struct plan_run *run)
{
    *run = p->open;
    if (p->vast)
        run->kind = PLAN_SKIP;
    p->open = next;
    p->vast = false;
    return run->start < run->end;
}

bool plan_feed(struct plan *p, uint64_t start, uint64_t end, enum plan_kind kind,
               struct plan_run *run)
{
    uint64_t unit_start = round_down_pow2(start, p->unit_bytes);
    uint64_t unit_end = round_up_pow2(start, p->unit_bytes);
    struct plan_run next = {start, end, kind};

    if (p->open.start == p->open.end) {
        p->vast = p->vast && kind == PLAN_ZERO;
        p->open = next;
        return false;
    }
    if (kind == p->open.kind) {
        p->open.end = end;
        return false;
    }
    if (kind > p->open.kind) { /* a unit shared with the open run goes over to this one */
        next.start = MAX_OF(unit_start, p->open.start);
        p->open.end = next.start;
        return change_run(p, next, run);
    }
    if (end <= unit_end) { /* nothing of it outside the open run's last unit */
        p->open.end = end;
        return false;
    }
    next.start = unit_end;
    p->open.end = unit_end;
    return change_run(p, next, run);
}

uint64_t plan_mixed_end(const struct plan *p, uint64_t start, uint64_t end, enum plan_kind kind)
{
    uint64_t unit_end = round_up_pow2(start, p->unit_bytes);
    bool empty = p->open.start == p->open.end;

    if (empty || kind == p->open.kind || kind == PLAN_COPY || p->open.kind == PLAN_COPY)
        return start;
    return unit_end < end ? unit_end : end;
}

bool plan_finish(struct plan *p, struct plan_run *run)
{
    return change_run(p, no_run, run);
}

uint64_t plan_part_bytes(const struct plan_run *run, uint64_t bytes, uint64_t align_bytes)
{
    uint64_t end, aligned;

    if (run->end - run->start <= bytes)
        return run->end - run->start;
    end = run->start + bytes;
    aligned = round_down_pow2(end, align_bytes);
    return (aligned > run->start ? aligned : end) - run->start;
}

bool plan_take(struct plan *p, uint64_t copy_bytes, uint64_t align_bytes, uint64_t vast_bytes,
               struct plan_run *run)
{
    uint64_t whole_end = round_down_pow2(p->open.end, p->unit_bytes);
    uint64_t bytes;

    if (whole_end <= p->open.start)
        return false;
    *run = (struct plan_run){p->open.start, whole_end, p->open.kind};
    bytes = run->end - run->start;
    switch (p->open.kind) {
    case PLAN_SKIP:
        break;
    case PLAN_ZERO:
        if (!p->vast && bytes < vast_bytes)
            return false;
        p->vast = true;
        run->kind = PLAN_SKIP;
        break;
    case PLAN_COPY:
        if (bytes < copy_bytes)
            return false;
        run->end = run->start + plan_part_bytes(run, copy_bytes, align_bytes);
        break;
    }
    p->open.start = run->end;
    return true;
}
