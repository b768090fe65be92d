/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which layers of the source a stream still needs. What a layer decides of what is missing here is
 * looked for from the disk's end, in windows that grow, until every layer asked about was met: a
 * layer is needed until the walk has passed its last range, and most have one near the end.
 *
 * Invariant: nothing becomes missing again, so what is found errs only by saying "needed" too long.
 */
#include <errno.h>
#include <stdlib.h>

#include "lun-backends/formats.h"
#include "lun-backends/remote.h"
#include "lun-backends/stream-int.h"
#include "util/size.h"

#define FIRST_WINDOW (UINT64_C(64) << 20)
#define MAX_EXTENTS  512
#define STEPS_A_TURN 32

struct search {
    struct stream *s;
    uint64_t *end_of;
    unsigned n, steps;
    uint32_t generation; /* 0: no answer yet */
    struct blk_extent ext[MAX_EXTENTS];
};

static void note(struct search *q, const struct blk_extent *ext)
{
    if (ext->state == BLK_ST_UNALLOCATED || ext->depth >= q->n ||
        q->end_of[ext->depth] == UINT64_MAX)
        return;
    q->end_of[ext->depth] = MAX_OF(q->end_of[ext->depth], ext->offset_bytes + ext->length_bytes);
}

/* [@offset, @end) is missing here; how far the answer went, or -errno. */
static int64_t co_ask_layers(struct search *q, uint64_t offset, uint64_t end)
{
    struct stream *s = q->s;
    struct blk_node *source;
    uint32_t generation = 0;
    bool tells;
    int n;

    co_blk_head_enter(&s->src);
    source = blk_head_node(&s->src);
    source = upper_source(source) ? upper_source(source) : source; /* with all of its layers */
    end = MIN_OF(end, source->size_bytes);
    n = co_blk_job_status_walk(source, offset, end - offset, 0, q->ext, MAX_EXTENTS);
    tells = !blk_node_is_remote(source) || remote_tells_layers(source, &generation);
    blk_head_exit(&s->src);
    if (n < 0)
        return n;
    if (!tells)
        return -ENOTSUP;
    if (q->generation && q->generation != generation)
        return -EAGAIN; /* layers are counted otherwise now */
    q->generation = generation;
    for (int i = 0; i < n; i++)
        note(q, &q->ext[i]);
    return (int64_t)(q->ext[n - 1].offset_bytes + q->ext[n - 1].length_bytes);
}

static int co_search_window(struct search *q, uint64_t start, uint64_t end)
{
    struct blk_extent ext;

    while (start < end) {
        uint64_t missing_end;
        int64_t to;
        int ret;

        if (q->s->job.cancelled)
            return -ECANCELED;
        ret = co_head_status(&q->s->dst, start, end - start, &ext);
        if (ret)
            return ret;
        if (++q->steps % STEPS_A_TURN == 0)
            co_pause();
        missing_end = start + ext.length_bytes;
        if (ext.state == BLK_ST_UNALLOCATED) {
            to = co_ask_layers(q, start, missing_end);
            if (to < 0)
                return (int)to;
            missing_end = (uint64_t)to;
        }
        start = missing_end;
    }
    return 0;
}

static bool all_met(const struct search *q)
{
    for (unsigned i = 0; i < q->n; i++) {
        if (!q->end_of[i])
            return false;
    }
    return true;
}

int co_stream_last_needed(struct job *job, uint64_t *end_of, unsigned n, uint32_t *generation)
{
    struct stream *s = container_of(job, struct stream, job);
    struct search *q = calloc(1, sizeof(*q));
    uint64_t window = FIRST_WINDOW, start, end;
    int ret = q ? 0 : -ENOMEM;

    if (!q)
        return ret;
    q->s = s;
    q->end_of = end_of;
    q->n = n;
    /* What the source does not reach is no layer's. */
    end = MIN_OF(blk_head_node(&s->dst)->size_bytes, blk_head_node(&s->src)->size_bytes);
    for (; !ret && end && !all_met(q); end = start, window *= 2) {
        start = end - MIN_OF(end, window);
        ret = co_search_window(q, start, end);
    }
    *generation = q->generation;
    free(q);
    return ret;
}

static void co_tell(void *arg)
{
    struct stream *s = arg;
    uint64_t done = s->tell_from;

    if (!co_head_flush(&s->dst))
        s->tell_from = s->co_passed(&s->job, done);
    s->telling = false;
    co_queue_wake_all(&s->told);
}

void stream_tell_passed(struct stream *s, uint64_t done)
{
    if (!s->co_passed || s->telling || s->ignored_error || s->job.cancelled || !s->in_stage ||
        done < s->tell_from)
        return;
    s->telling = true;
    s->tell_from = done;
    co_spawn(co_tell, s);
}
