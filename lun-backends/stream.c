/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stream job. One coroutine (the planner) walks the overlay: it asks the overlay's own status,
 * then the source's for what the overlay has no say about, and starts copies, each a coroutine.
 *
 * Invariant: everything below `pos` is decided, or in flight, or on the list of failures. To
 * pause, to wait for a source or to try again is to wait until nothing is in flight, put `pos`
 * back to the first failure, and look again: what became local meanwhile is never copied twice,
 * since the overlay itself says so.
 */
#define LOG_AREA "stream"
#include "lun-backends/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/store.h"
#include "lun-backends/stream-plan.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define MAX_COPIES     16
#define POOL_BYTES     (16u << 20)
#define COPY_BYTES     (1u << 20)
#define ZERO_BYTES     (64u << 20) /* a range lock's length, so that guests don't wait long */
#define VAST_BYTES     (UINT64_C(1) << 30) /* zeros not worth their metadata */
#define MAX_EXTENTS    256
#define MS             UINT64_C(1000000)
#define RETRY_NS       (200 * MS)
#define FLUSH_EVERY_NS (500 * MS) /* bounds what a crash makes us copy again */
#define FLUSH_BYTES    (128u << 20)
#define STEPS_A_TURN   32

struct stream;

struct copy {
    struct list_head link; /* ascending offsets */
    struct stream *s;
    enum plan_kind kind;
    uint64_t offset, bytes;
    struct store_buf buf; /* PLAN_COPY */
};

struct failure {
    uint64_t offset;
    int error; /* positive */
    bool is_write;
};

struct stream {
    struct job job;
    struct blk_head dst, src, below; /* below: what data is compared with, if how.below */
    struct store_how how;
    unsigned layers; /* of the source; 0: all */
    int (*co_next)(struct job *job, struct stream_stage *next, struct error *err);
    uint64_t total_bytes, done_before; /* all stages; those that are over */
    struct bufpool *pool;
    struct plan plan;
    uint64_t pos;
    uint64_t counted; /* everything below went into the statistics */
    unsigned nr_copies, steps;
    struct list_head copies;
    struct co_queue copy_ended;
    struct failure failures[MAX_COPIES + 2]; /* copies, status, background flush */
    unsigned nr_failures;
    int ignored_error;
    bool source_down, source_up_news, flushing;
    uint64_t flushed_ns, unflushed_bytes;
    struct stream_stats stats;
    struct blk_extent ext[MAX_EXTENTS];
};

static struct stream *to_stream(struct job *job)
{
    return container_of(job, struct stream, job);
}

static bool interrupted(const struct stream *s)
{
    return s->nr_failures || job_wants_attention(&s->job);
}

static void note_failure(struct stream *s, uint64_t offset, int ret, bool is_write)
{
    s->failures[s->nr_failures++] = (struct failure){offset, -ret, is_write};
}

/* A source that is away or busy is waited for, whatever the error policy. */
static bool is_transient(int error)
{
    return error == EHOSTDOWN || error == EAGAIN;
}

static void update_progress(struct stream *s)
{
    uint64_t done = s->pos;

    if (s->nr_failures)
        return;
    if (!list_empty(&s->copies))
        done = list_first_entry(&s->copies, struct copy, link)->offset;
    s->job.offset = MAX_OF(s->job.offset, s->done_before + done);
}

/* ---- copies ------------------------------------------------------------------------ */

/* What lies past the end of a shorter source reads zeros. */
static int co_read_source(struct stream *s, const struct copy *c)
{
    const struct blk_node *src = blk_head_node(&s->src);
    struct iovec part[STORE_MAX_BUFS];
    uint64_t bytes = 0;
    int n, ret;

    if (c->offset < src->size_bytes) {
        bytes = round_up_pow2(c->bytes, src->limits.align_bytes);
        bytes = MIN_OF(bytes, src->size_bytes - c->offset);
    }
    iov_zero(c->buf.iov, (int)c->buf.niov, bytes, c->buf.bytes - bytes);
    if (bytes == 0)
        return 0;
    n = iov_slice(c->buf.iov, (int)c->buf.niov, 0, bytes, part, STORE_MAX_BUFS);
    ret = co_head_rw(&s->src, BLK_READ, c->offset, bytes, part, n, BLK_BULK, NULL);
    if (ret == 0 && s->source_down) {
        s->source_down = false;
        log_notice("%s: the source is back", s->job.id);
    }
    return ret;
}

static void co_copy(void *arg)
{
    struct copy *c = arg;
    struct stream *s = c->s;
    bool is_write = true;
    int ret;

    if (c->kind == PLAN_ZERO) {
        ret = co_head_rw(&s->dst, BLK_WRITE_ZEROES, c->offset, c->bytes, NULL, 0,
                         BLK_IF_UNALLOCATED, NULL);
        if (ret == 0)
            s->stats.zeroed_bytes += c->bytes;
    } else {
        ret = co_read_source(s, c);
        is_write = ret == 0;
        if (ret == 0)
            ret = co_store_data(&s->dst, c->offset, &c->buf, 0, c->bytes, &s->how);
        store_buf_put(&c->buf, s->pool);
    }
    s->unflushed_bytes += c->bytes;
    if (ret)
        note_failure(s, c->offset, ret, is_write);
    list_del(&c->link);
    s->nr_copies--;
    free(c);
    update_progress(s);
    co_queue_wake(&s->copy_ended);
}

static void co_flush_behind(void *arg)
{
    struct stream *s = arg;
    int ret = co_head_flush(&s->dst);

    if (ret)
        note_failure(s, s->pos, ret, true);
    s->flushing = false;
    co_queue_wake(&s->copy_ended);
}

static void flush_if_due(struct stream *s)
{
    bool due = s->unflushed_bytes >= FLUSH_BYTES ||
               (s->unflushed_bytes && now_ns() - s->flushed_ns >= FLUSH_EVERY_NS);

    if (!due || s->flushing)
        return;
    s->flushing = true;
    s->flushed_ns = now_ns();
    s->unflushed_bytes = 0;
    co_spawn(co_flush_behind, s);
}

static void co_wait_idle(struct stream *s)
{
    while (s->nr_copies || s->flushing)
        co_queue_wait(&s->copy_ended);
}

/* A copy ready to go, with its buffer; waits for memory and a free slot. NULL: interrupted. */
static struct copy *co_get_copy(struct stream *s, uint64_t bytes, enum plan_kind kind)
{
    struct copy *c = NULL;

    while (!interrupted(s)) {
        if (s->nr_copies < MAX_COPIES && (c = calloc(1, sizeof(*c)))) {
            /* Whole pages: a source with big blocks is read up to the end of its last one. */
            if (kind != PLAN_COPY || store_buf_get(&c->buf, s->pool, round_up_pow2(bytes, 4096)))
                return c;
            free(c);
        }
        if (s->nr_copies)
            co_queue_wait(&s->copy_ended);
        else
            co_job_sleep(&s->job, RETRY_NS);
    }
    return NULL;
}

/* Starts one copy at s->pos; false: interrupted, nothing was started. */
static bool co_start_copy(struct stream *s, const struct plan_run *run)
{
    uint64_t bytes = run->end - run->start;
    struct copy *c;

    if (run->kind == PLAN_COPY && !co_job_throttle(&s->job, bytes))
        return false;
    c = co_get_copy(s, bytes, run->kind);
    if (!c)
        return false;
    c->s = s;
    c->kind = run->kind;
    c->offset = run->start;
    c->bytes = bytes;
    list_add_tail(&s->copies, &c->link);
    s->nr_copies++;
    s->pos = run->end;
    s->counted = MAX_OF(s->counted, s->pos);
    co_spawn(co_copy, c);
    flush_if_due(s);
    co_pause();
    return true;
}

/* ---- the planner ------------------------------------------------------------------- */

/* Small enough that a slow job goes smoothly, never less than a unit. */
static uint64_t copy_bytes(const struct stream *s)
{
    uint64_t unit = s->plan.unit_bytes;
    uint64_t most = MAX_OF(unit, COPY_BYTES);
    uint64_t tenth = round_down_pow2(s->job.speed / 10, unit);

    return s->job.speed ? MAX_OF(unit, MIN_OF(most, tenth)) : most;
}

static void skip_to(struct stream *s, uint64_t end)
{
    s->pos = end;
    if (end > s->counted) {
        s->stats.skipped_bytes += end - s->counted;
        s->counted = end;
    }
    update_progress(s);
}

/* Acts on a run that starts at s->pos, and advances it; false: interrupted on the way. */
static bool co_act(struct stream *s, struct plan_run run)
{
    uint64_t align = blk_head_node(&s->dst)->limits.granularity_bytes;
    uint64_t end = run.end;

    if (run.kind == PLAN_SKIP) {
        skip_to(s, end);
        return true;
    }
    while (run.start < end) {
        uint64_t most = run.kind == PLAN_COPY ? copy_bytes(s) : ZERO_BYTES;

        run.end = end;
        run.end = run.start + plan_part_bytes(&run, most, MAX_OF(align, s->plan.unit_bytes));
        if (!co_start_copy(s, &run))
            return false;
        run.start = run.end;
    }
    return true;
}

static int one_extent(struct stream *s, uint64_t offset, uint64_t end, enum blk_state state)
{
    s->ext[0] = (struct blk_extent){offset, end - offset, state, 0};
    return 1;
}

/*
 * What is below says of [offset, end), in s->ext. A source that can't tell (but is there) is read:
 * then the reads find out. Past the end of the layers to be copied the disk reads zeros, whatever
 * the layers that stay have there.
 */
static int co_ask_source(struct stream *s, uint64_t offset, uint64_t end)
{
    struct blk_node *node;
    uint64_t size;
    int n;

    co_blk_head_enter(&s->src); /* a drain waits for this as for a request */
    node = blk_head_node(&s->src);
    size = node->size_bytes;
    if (offset >= size)
        n = one_extent(s, offset, end, s->layers ? BLK_ST_ZERO : BLK_ST_UNALLOCATED);
    else
        n = co_blk_job_status_walk(node, offset, MIN_OF(end, size) - offset, s->layers, s->ext,
                                   MAX_EXTENTS);
    blk_head_exit(&s->src);
    if (n > 0 || is_transient(-n))
        return n;
    log_debug("%s: no status at %" PRIu64 ": %s", s->job.id, offset, strerror(-n));
    return one_extent(s, offset, MIN_OF(MIN_OF(end, size), offset + copy_bytes(s)), BLK_ST_DATA);
}

static const enum plan_kind kind_of_state[] = {
    [BLK_ST_DATA] = PLAN_COPY,
    [BLK_ST_ZERO] = PLAN_ZERO,
    [BLK_ST_UNALLOCATED] = PLAN_SKIP,
    [BLK_ST_COMPRESSED] = PLAN_COPY,
};

/* Zeros that hide data of layers that stay are written whatever they cost. */
static uint64_t vast_bytes(const struct stream *s)
{
    return s->layers || s->how.below ? UINT64_MAX : VAST_BYTES;
}

/* Feeds one extent and acts on all that is certain now. */
static bool co_plan_extent(struct stream *s, uint64_t start, uint64_t end, enum plan_kind kind)
{
    uint64_t align = MAX_OF(blk_head_node(&s->dst)->limits.granularity_bytes, s->plan.unit_bytes);
    struct plan_run run;

    if (plan_feed(&s->plan, start, end, kind, &run) && !co_act(s, run))
        return false;
    while (plan_take(&s->plan, copy_bytes(s), align, vast_bytes(s), &run)) {
        if (!co_act(s, run))
            return false;
    }
    return true;
}

/* A range from s->pos that the overlay has no say about. Interrupted: s->pos is where to go on. */
static void co_copy_range(struct stream *s, uint64_t end)
{
    struct plan_run run;
    uint64_t at = s->pos;

    plan_init(&s->plan, s->plan.unit_bytes);
    while (at < end) {
        int n;

        if (interrupted(s))
            return;
        n = co_ask_source(s, at, end);
        if (n < 0) {
            note_failure(s, s->pos, n, false);
            return;
        }
        for (int i = 0; i < n && at < end; i++) {
            uint64_t ext_end = MIN_OF(end, s->ext[i].offset_bytes + s->ext[i].length_bytes);

            if (!co_plan_extent(s, at, ext_end, kind_of_state[s->ext[i].state]))
                return;
            at = ext_end;
        }
    }
    if (plan_finish(&s->plan, &run))
        co_act(s, run);
}

static void co_step(struct stream *s)
{
    uint64_t size = blk_head_node(&s->dst)->size_bytes;
    struct blk_extent ext;
    int ret;

    ret = co_head_status(&s->dst, s->pos, size - s->pos, &ext);
    if (ret)
        note_failure(s, s->pos, ret, false);
    else if (ext.state == BLK_ST_UNALLOCATED)
        co_copy_range(s, s->pos + ext.length_bytes);
    else
        skip_to(s, s->pos + ext.length_bytes);
    if (++s->steps % STEPS_A_TURN == 0)
        co_pause();
}

/* ---- failures ---------------------------------------------------------------------- */

static void co_wait_for_source(struct stream *s, int error)
{
    if (!s->source_down)
        log_notice("%s: waiting for the source: %s", s->job.id, strerror(error));
    s->source_down = true;
    for (uint64_t waited = 0; waited < RETRY_NS && !s->source_up_news; waited += 50 * MS) {
        if (!co_job_sleep(&s->job, 50 * MS))
            break;
    }
    s->source_up_news = false;
}

static int fail_with(struct stream *s, const struct failure *f)
{
    return error_set(&s->job.err, f->error, "stream into '%s' failed %s at byte %" PRIu64 ": %s",
                     s->job.device, f->is_write ? "writing" : "reading", f->offset,
                     strerror(f->error));
}

/* Nothing is in flight. */
static int co_handle_failures(struct stream *s)
{
    unsigned n = s->nr_failures;
    bool stopped = false;
    int down = 0;
    uint64_t back_to = s->pos;

    for (unsigned i = 0; i < n; i++) {
        const struct failure *f = &s->failures[i];

        if (is_transient(f->error)) {
            down = f->error;
        } else if (!stopped) {
            if (!co_job_handle_error(&s->job, f->error, f->is_write))
                return fail_with(s, f);
            if (s->job.on_error == JOB_ERR_IGNORE) {
                if (f->offset >= s->pos) /* not one copy, but status or flush: no way past it */
                    return fail_with(s, f);
                s->ignored_error = f->error;
                continue;
            }
            stopped = true;
        }
        back_to = MIN_OF(back_to, f->offset);
    }
    s->pos = back_to;
    s->nr_failures = 0;
    if (down && !stopped)
        co_wait_for_source(s, down);
    return 0;
}

static int co_attend(struct stream *s)
{
    int ret;

    if (!interrupted(s))
        return 0;
    co_wait_idle(s);
    ret = s->nr_failures ? co_handle_failures(s) : 0;
    if (ret)
        return ret;
    return co_job_pause_point(&s->job) ? -ECANCELED : 0;
}

/* ---- the job ----------------------------------------------------------------------- */

/* All is planned and nothing in flight: makes it stable. True: complete. */
static bool co_seal(struct stream *s)
{
    int ret = co_head_flush(&s->dst);

    if (ret)
        note_failure(s, s->pos, ret, true);
    return ret == 0;
}

static void co_leave_stage(struct stream *s)
{
    co_blk_head_fini(&s->src);
    co_blk_head_fini(&s->dst);
    if (s->how.below)
        co_blk_head_fini(&s->below);
}

static void on_source_event(struct blk_head *head, enum blk_event ev)
{
    struct stream *s = head->opaque;

    if (ev == BLK_EV_SOURCE_UP)
        s->source_up_news = true;
}

static void enter_stage(struct stream *s, const struct stream_stage *stage)
{
    struct blk_node *overlay = stage->overlay, *backing = overlay->backing.child;
    char name[80];

    snprintf(name, sizeof(name), "job %s", s->job.id);
    blk_head_init(&s->dst, name, overlay, true);
    blk_head_init(&s->src, name, backing, false);
    s->src.on_event = on_source_event;
    s->src.opaque = s;
    if (stage->differ)
        blk_head_init(&s->below, name, stage->differ, false);
    s->how = (struct store_how){
        .as_is = stage->as_is,
        .below = stage->differ ? &s->below : NULL,
        .data_bytes = &s->stats.copied_bytes,
        .zero_bytes = &s->stats.zeroed_bytes,
    };
    s->layers = stage->layers;
    s->pos = s->counted = 0;
    plan_init(&s->plan, MAX_OF(store_unit_bytes(overlay), backing->limits.align_bytes));
}

/* True: there is another stage, and the job is in it now. */
static bool co_next_stage(struct stream *s, int *ret)
{
    uint64_t bytes = blk_head_node(&s->dst)->size_bytes;
    struct stream_stage next = {0};

    *ret = s->co_next && !s->ignored_error ? s->co_next(&s->job, &next, &s->job.err) : 0;
    if (*ret <= 0)
        return false;
    *ret = 0;
    s->done_before += bytes;
    co_leave_stage(s);
    enter_stage(s, &next);
    return true;
}

static int co_stream_run(struct job *job)
{
    struct stream *s = to_stream(job);
    bool complete = false;
    int ret = 0;

    s->flushed_ns = now_ns();
    while (!complete && ret == 0) {
        uint64_t size = blk_head_node(&s->dst)->size_bytes;

        job->len = MAX_OF(s->total_bytes, s->done_before + size);
        if (s->pos < size) {
            co_step(s);
        } else {
            co_wait_idle(s);
            complete = !interrupted(s) && co_seal(s) && !co_next_stage(s, &ret);
        }
        if (!complete)
            ret = co_attend(s);
    }
    co_wait_idle(s);
    if (ret == 0 && s->ignored_error)
        return error_set(&job->err, s->ignored_error,
                         "stream into '%s' passed over errors (%s): the backing stays", job->device,
                         strerror(s->ignored_error));
    return ret;
}

static void co_stream_cleanup(struct job *job)
{
    struct stream *s = to_stream(job);

    co_leave_stage(s);
    bufpool_free(s->pool);
    log_info("%s: %" PRIu64 " bytes copied, %" PRIu64 " zeroed, %" PRIu64 " skipped", job->id,
             s->stats.copied_bytes, s->stats.zeroed_bytes, s->stats.skipped_bytes);
}

static const struct job_driver stream_driver = {
    .type = "stream",
    .instance_bytes = sizeof(struct stream),
    .co_run = co_stream_run,
    .co_cleanup = co_stream_cleanup,
};

static int check_overlay(const struct blk_node *overlay, const char *device, struct error *err)
{
    if (overlay->read_only)
        return error_set(err, EROFS, "'%s' is read-only: can't stream into it", device);
    if (!overlay->backing.child)
        return error_set(err, EINVAL, "'%s' has no backing: nothing to stream", device);
    if (!store_unit_bytes(overlay) || store_unit_bytes(overlay) > STORE_MAX_BYTES)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "'%s' is %s, which can't be streamed into", device,
                               overlay->drv->name);
    return 0;
}

struct job *stream_job_new(const char *id, const char *device, const struct stream_plan_opts *opts,
                           struct error *err)
{
    struct bufpool *pool;
    struct stream *s;
    struct job *job;

    if (check_overlay(opts->first.overlay, device, err))
        return NULL;
    pool = bufpool_new(POOL_BYTES);
    if (!pool) {
        error_set(err, ENOMEM, "no memory for a stream job");
        return NULL;
    }
    job = job_new(&stream_driver, id, device, err);
    if (!job) {
        bufpool_free(pool);
        return NULL;
    }
    s = to_stream(job);
    s->pool = pool;
    s->co_next = opts->co_next;
    s->total_bytes = opts->total_bytes;
    job->len = MAX_OF(opts->total_bytes, opts->first.overlay->size_bytes);
    list_init(&s->copies);
    co_queue_init(&s->copy_ended);
    enter_stage(s, &opts->first);
    return job;
}

void stream_get_stats(const struct job *job, struct stream_stats *st)
{
    *st = container_of(job, const struct stream, job)->stats;
}
