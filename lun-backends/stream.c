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

#include "lun-backends/stream-int.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define POOL_BYTES   (48u << 20)
#define ZERO_BYTES   (64u << 20)         /* a range lock's length, so that guests don't wait long */
#define VAST_BYTES   (UINT64_C(1) << 30) /* zeros not worth their metadata */
#define MS           UINT64_C(1000000)
#define RETRY_NS     (200 * MS)
#define STEPS_A_TURN 32

static struct stream *to_stream(struct job *job)
{
    return container_of(job, struct stream, job);
}

bool stream_interrupted(const struct stream *s)
{
    return s->nr_failures || job_wants_attention(&s->job);
}

void stream_note_failure(struct stream *s, uint64_t offset, int ret, bool is_write)
{
    s->failures[s->nr_failures++] = (struct failure){offset, -ret, is_write};
}

/* A source that is away or busy is waited for, whatever the error policy. */
static bool is_transient(int error)
{
    return error == EHOSTDOWN || error == EAGAIN;
}

void stream_update_progress(struct stream *s)
{
    uint64_t done = s->pos;

    if (s->nr_failures)
        return;
    if (!list_empty(&s->copies))
        done = list_first_entry(&s->copies, struct copy, link)->offset;
    s->job.offset = MAX_OF(s->job.offset, s->done_before + done);
    stream_tell_passed(s, done);
}

/* ---- the planner ------------------------------------------------------------------- */

static void skip_to(struct stream *s, uint64_t end)
{
    s->pos = end;
    if (end > s->counted) {
        s->stats.skipped_bytes += end - s->counted;
        s->counted = end;
    }
    stream_update_progress(s);
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
        uint64_t most = run.kind == PLAN_COPY ? stream_copy_bytes(s) : ZERO_BYTES;

        run.end = end;
        run.end = run.start + plan_part_bytes(&run, most, MAX_OF(align, s->plan.unit_bytes));
        if (!co_stream_serve_hot(s) || !co_stream_start_copy(s, &run, false))
            return false;
        run.start = run.end;
    }
    return true;
}

static int one_extent(struct blk_extent *ext, uint64_t offset, uint64_t end, enum blk_state state)
{
    *ext = (struct blk_extent){offset, end - offset, state, 0, false};
    return 1;
}

/* Past the end of the layers to be copied the disk reads zeros, whatever the layers that stay have
 * there. */
int co_stream_ask_source(struct stream *s, uint64_t offset, uint64_t end, struct blk_extent *ext,
                         unsigned max)
{
    struct blk_node *node;
    uint64_t size;
    int n;

    co_blk_head_enter(&s->src); /* a drain waits for this as for a request */
    node = blk_head_node(&s->src);
    size = node->size_bytes;
    if (offset >= size)
        n = one_extent(ext, offset, end,
                       s->layers || s->how.below ? BLK_ST_ZERO : BLK_ST_UNALLOCATED);
    else
        n = co_blk_job_status_walk(node, offset, MIN_OF(end, size) - offset, s->layers, ext, max);
    blk_head_exit(&s->src);
    if (n > 0 || is_transient(-n))
        return n;
    log_debug("%s: no status at %" PRIu64 ": %s", s->job.id, offset, strerror(-n));
    return one_extent(ext, offset, MIN_OF(MIN_OF(end, size), offset + stream_copy_bytes(s)),
                      BLK_ST_DATA);
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
    uint64_t mixed = s->layers ? plan_mixed_end(&s->plan, start, end, kind) : start;
    uint64_t align = MAX_OF(blk_head_node(&s->dst)->limits.granularity_bytes, s->plan.unit_bytes);
    struct plan_run run;

    if (start < mixed && plan_feed(&s->plan, start, mixed, PLAN_COPY, &run) && !co_act(s, run))
        return false;
    if (mixed < end && plan_feed(&s->plan, mixed, end, kind, &run) && !co_act(s, run))
        return false;
    while (plan_take(&s->plan, stream_copy_bytes(s), align, vast_bytes(s), &run)) {
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

        if (stream_interrupted(s))
            return;
        n = co_stream_ask_source(s, at, end, s->ext, STREAM_MAX_EXTENTS);
        if (n < 0) {
            stream_note_failure(s, s->pos, n, false);
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
        stream_note_failure(s, s->pos, ret, false);
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

/* ---- the throttle group ------------------------------------------------------------ */

/* What the group holds back goes on at once. */
static void leave_group(struct stream *s)
{
    if (s->src_in)
        s->limits = *throttle_group_config(s->src_in);
    throttle_leave(s->src_in);
    throttle_leave(s->dst_in);
    s->src_in = s->dst_in = NULL;
}

/* A group that is not there (yet) limits nothing until somebody sets its limits. */
static void join_group(struct stream *s)
{
    if (!*s->group || !s->in_stage || s->job.cancelled)
        return;
    s->src_in =
        throttle_join(&s->src, s->group, throttle_group_exists(s->group) ? NULL : &s->limits);
    s->dst_in = throttle_join(&s->dst, s->group, NULL);
    if (!s->src_in || !s->dst_in)
        log_warn("%s: no memory for its throttle group: not limited", s->job.id);
}

static void set_group(struct stream *s, const char *name)
{
    if (!strcmp(s->group, name ? name : ""))
        return;
    leave_group(s);
    memset(&s->limits, 0, sizeof(s->limits));
    snprintf(s->group, sizeof(s->group), "%s", name ? name : "");
    join_group(s);
}

/* ---- attending to it all ----------------------------------------------------------- */

static int co_attend(struct stream *s)
{
    int ret;

    if (!stream_interrupted(s))
        return 0;
    co_stream_wait_idle(s);
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
        stream_note_failure(s, s->pos, ret, true);
    return ret == 0;
}

static void co_leave_stage(struct stream *s)
{
    leave_group(s);
    s->in_stage = false;
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
    s->in_stage = true;
    join_group(s);
    s->pos = s->counted = 0;
    s->hot.nr = 0;
    s->hot.lead_bytes = 0;
    plan_init(&s->plan, MAX_OF(store_unit_bytes(overlay), backing->limits.align_bytes));
}

/* True: there is another stage, and the job is in it now. */
static bool co_next_stage(struct stream *s, int *ret)
{
    uint64_t bytes = blk_head_node(&s->dst)->size_bytes;
    struct stream_stage next = {0};

    *ret = 0;
    if (!s->co_next || s->ignored_error)
        return false;
    co_leave_stage(s);
    s->left = true;
    *ret = s->co_next(&s->job, &next, &s->job.err);
    if (*ret <= 0)
        return false;
    *ret = 0;
    s->left = false;
    s->done_before += bytes;
    enter_stage(s, &next);
    return true;
}

static int co_stream_run(struct job *job)
{
    struct stream *s = to_stream(job);
    bool complete = false;
    int ret = 0;

    s->flushed_ns = now_ns();
    stream_tell_passed(s, 0);
    while (!complete && ret == 0) {
        uint64_t size = blk_head_node(&s->dst)->size_bytes;

        job->len = MAX_OF(s->total_bytes, s->done_before + size);
        if (s->pos < size) {
            co_step(s);
        } else {
            co_stream_wait_idle(s);
            complete = !stream_interrupted(s) && co_seal(s) && !co_next_stage(s, &ret);
        }
        if (!complete)
            ret = co_attend(s);
    }
    co_stream_wait_idle(s);
    if (ret == 0 && s->ignored_error)
        return error_set(&job->err, s->ignored_error,
                         "stream into '%s' passed over errors (%s): the backing stays", job->device,
                         strerror(s->ignored_error));
    return ret;
}

static void co_stream_cleanup(struct job *job)
{
    struct stream *s = to_stream(job);

    while (s->telling)
        co_queue_wait(&s->told);
    blk_watch_stop(&s->watch);
    if (!s->left)
        co_leave_stage(s);
    bufpool_free(s->pool);
    log_info("%s: %" PRIu64 " bytes copied, %" PRIu64 " zeroed, %" PRIu64 " skipped", job->id,
             s->stats.copied_bytes, s->stats.zeroed_bytes, s->stats.skipped_bytes);
}

/* All of its copies may be held back: its end waits for no limit. */
static void on_cancel(struct job *job)
{
    struct stream *s = to_stream(job);

    leave_group(s);
    co_queue_wake(&s->copy_ended);
}

static const struct job_driver stream_driver = {
    .type = "stream",
    .instance_bytes = sizeof(struct stream),
    .co_run = co_stream_run,
    .co_cleanup = co_stream_cleanup,
    .on_cancel = on_cancel,
};

/* ---- what guests do ---------------------------------------------------------------- */

static void on_guest_begun(struct blk_watch *w, const struct blk_req *req)
{
    if (req->verb != BLK_STATUS)
        pace_guest_begin(&container_of(w, struct stream, watch)->pace, req->begun_ns);
}

static void on_guest_ended(struct blk_watch *w, const struct blk_req *req, uint64_t begun_ns)
{
    struct stream *s = container_of(w, struct stream, watch);
    bool missed = req->verb == BLK_READ && req->result_flags & BLK_R_FROM_BACKING;

    if (req->verb == BLK_STATUS)
        return;
    pace_guest_end(&s->pace, missed, begun_ns, now_ns());
    if (missed && !req->result && w->below == blk_head_node(&s->dst))
        stream_hot_note(s, req->offset_bytes, req->length_bytes);
}

/* ---- making one -------------------------------------------------------------------- */

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
    s->co_passed = opts->co_passed;
    co_queue_init(&s->told);
    s->total_bytes = opts->total_bytes;
    job->len = MAX_OF(opts->total_bytes, opts->first.overlay->size_bytes);
    list_init(&s->copies);
    list_init(&s->hot_copies);
    co_queue_init(&s->copy_ended);
    co_queue_init(&s->disk_room);
    pace_init(&s->pace, now_ns());
    s->watch = (struct blk_watch){
        .below = opts->guests ? opts->guests : opts->first.overlay,
        .begun = on_guest_begun,
        .ended = on_guest_ended,
    };
    blk_watch_start(&s->watch);
    enter_stage(s, &opts->first);
    return job;
}

void stream_get_stats(const struct job *job, struct stream_stats *st)
{
    const struct stream *s = container_of(job, const struct stream, job);
    uint64_t now = now_ns();

    *st = s->stats;
    st->mode = s->pace.config.mode;
    st->window_bytes = s->pace.wire.window_bytes;
    st->disk_window_bytes = s->pace.disk.window_bytes;
    st->piece_bytes = stream_copy_bytes(s);
    st->guest_on_wire = pace_guest_on(&s->pace.wire, now);
    st->guest_on_disk = pace_guest_on(&s->pace.disk, now);
    st->yields = s->pace.nr_yields;
    st->brakes = s->pace.nr_brakes;
}

void stream_configure(struct job *job, const struct stream_config *config)
{
    struct stream *s = to_stream(job);

    s->config = *config;
    s->config.throttle_group = NULL; /* the caller's string */
    s->pace.config = config->pace;
    if (!job->cancelled)
        set_group(s, config->throttle_group);
    co_queue_wake(&s->copy_ended);
    co_queue_wake_all(&s->disk_room);
}
