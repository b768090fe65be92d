/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commit job. A planner walks the mapping of the layers to be committed and starts pieces,
 * each a coroutine that reads from the top and writes into the base; what the layers leave to the
 * base is not touched. Copying a range twice is harmless, so an interruption (pause, error) waits
 * for the pieces in flight and goes back to the first that is not known to be copied.
 */
#define LOG_AREA "commit"
#include "lun-backends/commit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/coroutine.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_PIECES  8
#define PIECE_BYTES (1u << 20)
#define ZERO_BYTES  (UINT64_C(64) << 20) /* bounds how long a range is locked */
#define WALK_BYTES  (UINT64_C(1) << 30)
#define MAX_EXTENTS 64
#define CLOSE_BYTES (UINT64_C(8) << 20) /* marked bytes with which a commit counts as ready */
#define MAX_SWEEPS  32
#define MS          UINT64_C(1000000)
#define FOLLOW_NS   (50 * MS)
#define RETRY_NS    (200 * MS)

/* One way of copying: of the job, or of the owner when everything is drained (no head then). */
struct copier {
    struct blk_node *top, *base;
    struct blk_head *head; /* on top: a drain waits for what is under way */
    struct job *job;
    unsigned levels; /* layers to be committed */
    unsigned nr_pieces;
    struct co_queue piece_ended;
    struct job_fault fault;
    struct commit_stats stats;
    struct blk_extent ext[MAX_EXTENTS];
};

struct piece {
    struct copier *c;
    uint64_t pos;
    size_t bytes;
    void *buf;
};

struct commit {
    struct job job;
    struct blk_head src, dst;
    struct blk_node *watch; /* holds a reference; may be NULL */
    bool auto_complete;
    struct copier copier;
};

static struct commit *to_commit(struct job *job)
{
    return container_of(job, struct commit, job);
}

static void co_enter_graph(struct copier *c)
{
    if (c->head)
        co_blk_head_enter(c->head);
}

static void exit_graph(struct copier *c)
{
    if (c->head)
        blk_head_exit(c->head);
}

/* ---- copying --------------------------------------------------------------------------- */

static void co_piece(void *arg)
{
    struct piece *p = arg;
    struct copier *c = p->c;
    bool in_write = false;
    int ret;

    co_enter_graph(c);
    ret = co_blk_read(c->top, p->pos, p->buf, p->bytes, 0);
    if (!ret) {
        in_write = true;
        if (buf_is_zero(p->buf, p->bytes))
            ret = co_blk_write_zeroes(c->base, p->pos, p->bytes, BLK_MAY_UNMAP);
        else
            ret = co_blk_write(c->base, p->pos, p->buf, p->bytes, 0);
    }
    exit_graph(c);
    if (ret)
        job_fault_note(&c->fault, p->pos, ret, in_write);
    else
        c->stats.copied_bytes += p->bytes;
    free(p->buf);
    free(p);
    c->nr_pieces--;
    co_queue_wake(&c->piece_ended);
}

static void co_wait_pieces(struct copier *c, unsigned at_most)
{
    while (c->nr_pieces > at_most)
        co_queue_wait(&c->piece_ended);
}

/* False: told to stop before it was started. */
static bool co_start_piece(struct copier *c, uint64_t pos, size_t bytes)
{
    struct piece *p;

    if (c->job && !co_job_throttle(c->job, bytes))
        return false;
    co_wait_pieces(c, MAX_PIECES - 1);
    p = calloc(1, sizeof(*p));
    if (p)
        p->buf = aligned_alloc(4096, round_up_pow2(bytes, 4096));
    if (!p || !p->buf) {
        free(p);
        job_fault_note(&c->fault, pos, -ENOMEM, false);
        return false;
    }
    p->c = c;
    p->pos = pos;
    p->bytes = bytes;
    c->nr_pieces++;
    co_spawn(co_piece, p);
    return true;
}

static bool co_zero(struct copier *c, uint64_t pos, uint64_t bytes)
{
    int ret;

    co_enter_graph(c);
    ret = co_blk_write_zeroes(c->base, pos, bytes, BLK_MAY_UNMAP);
    exit_graph(c);
    if (ret)
        job_fault_note(&c->fault, pos, ret, true);
    else
        c->stats.zeroed_bytes += bytes;
    return !ret;
}

static bool must_stop(const struct copier *c)
{
    return c->fault.ret || (c->job && job_wants_attention(c->job));
}

/* Acts on one extent from @*pos, which goes on to where nothing was started. */
static bool co_extent(struct copier *c, const struct blk_extent *e, uint64_t *pos)
{
    uint64_t end = e->offset_bytes + e->length_bytes;
    bool zero = e->state == BLK_ST_ZERO;

    if (e->state == BLK_ST_UNALLOCATED) {
        *pos = end;
        return true;
    }
    while (*pos < end) {
        uint64_t n = MIN_OF(end - *pos, zero ? ZERO_BYTES : (uint64_t)PIECE_BYTES);

        if (must_stop(c))
            return false;
        if (zero ? !co_zero(c, *pos, n) : !co_start_piece(c, *pos, (size_t)n))
            return false;
        *pos += n;
    }
    return true;
}

/* Copies from @*pos, which goes on to where all is copied; 0 there is no error on the way. */
static int co_copy(struct copier *c, uint64_t *pos, uint64_t end)
{
    bool go_on = true;

    c->fault.ret = 0;
    while (*pos < end && go_on && !must_stop(c)) {
        int n;

        co_enter_graph(c);
        n = co_blk_status_walk(c->top, *pos, MIN_OF(end - *pos, WALK_BYTES), c->levels, c->ext,
                               MAX_EXTENTS);
        exit_graph(c);
        if (n < 0)
            job_fault_note(&c->fault, *pos, n, false);
        for (int i = 0; i < n && go_on; i++)
            go_on = co_extent(c, &c->ext[i], pos);
        if (c->job)
            c->job->offset = MAX_OF(c->job->offset, *pos);
        co_pause();
    }
    co_wait_pieces(c, 0);
    if (c->fault.ret)
        *pos = MIN_OF(*pos, c->fault.pos_bytes);
    return c->fault.ret;
}

/* How many layers lie from @top down to, without, @base; 0: it isn't below. */
static unsigned count_levels(const struct blk_node *top, const struct blk_node *base)
{
    const struct blk_node *node = top;
    unsigned n = 0;

    while (node && node != base) {
        if (node->drv->is_filter) {
            node = node->file.child;
        } else {
            n++;
            node = node->backing.child;
        }
    }
    return node ? n : 0;
}

static void copier_init(struct copier *c, struct blk_node *top, struct blk_node *base)
{
    c->top = top;
    c->base = base;
    c->levels = count_levels(top, base);
    co_queue_init(&c->piece_ended);
}

int co_commit_catch_up(struct blk_node *watch, struct blk_node *base)
{
    struct copier *c = calloc(1, sizeof(*c));
    uint64_t start, end, at = 0;
    int ret = c ? 0 : -ENOMEM;

    if (!c)
        return ret;
    copier_init(c, watch->file.child, base);
    while (!ret && commit_watch_take(watch, at, &start, &end)) {
        at = start;
        ret = co_copy(c, &at, end);
        if (ret)
            commit_watch_mark(watch, at, end);
    }
    free(c);
    return ret;
}

/* ---- the job --------------------------------------------------------------------------- */

static int fail_with(struct commit *cm)
{
    const struct copier *c = &cm->copier;

    return error_set(&cm->job.err, -c->fault.ret,
                     "commit of '%s' failed %s at byte %" PRIu64 ": %s", cm->job.device,
                     c->fault.in_write ? "writing" : "reading", c->fault.pos_bytes,
                     strerror(-c->fault.ret));
}

/* An error, a pause or the end was met: 0 is to go on. */
static int co_attend(struct commit *cm)
{
    struct copier *c = &cm->copier;

    if (c->fault.ret) {
        if (!co_job_handle_error(&cm->job, -c->fault.ret, c->fault.in_write) && !cm->job.cancelled)
            return fail_with(cm);
        c->fault.ret = 0;
        co_job_sleep(&cm->job, RETRY_NS);
    }
    return co_job_pause_point(&cm->job) ? -ECANCELED : 0;
}

static int co_copy_range(struct commit *cm, uint64_t start, uint64_t end)
{
    uint64_t pos = start;
    int ret = 0;

    while (pos < end && !ret) {
        co_copy(&cm->copier, &pos, end);
        if (must_stop(&cm->copier))
            ret = co_attend(cm);
    }
    return ret;
}

/* What was written meanwhile, until there is little of it; then as long as nobody says enough. */
static int co_follow(struct commit *cm)
{
    struct job *job = &cm->job;
    uint64_t start, end;

    for (unsigned sweep = 0;; sweep++) {
        for (uint64_t at = 0; commit_watch_take(cm->watch, at, &start, &end); at = end) {
            int ret;

            job->len += end - start;
            ret = co_copy_range(cm, start, end);
            if (ret)
                return ret;
            job->offset += end - start;
        }
        if (commit_watch_dirty_bytes(cm->watch) <= CLOSE_BYTES || sweep >= MAX_SWEEPS)
            job_set_ready(job);
        if (job->ready && (cm->auto_complete || job->complete_asked))
            return 0;
        if (co_job_pause_point(job))
            return -ECANCELED;
        if (job->ready)
            co_job_sleep(job, FOLLOW_NS);
        else
            co_pause();
    }
}

static int co_flush_base(struct commit *cm)
{
    struct copier *c = &cm->copier;
    int ret = 0;

    do {
        int failure = co_blk_flush(c->base);

        if (!failure)
            return 0;
        job_fault_note(&c->fault, 0, failure, true);
        ret = co_attend(cm);
    } while (!ret);
    return ret;
}

static int co_commit_run(struct job *job)
{
    struct commit *cm = to_commit(job);
    int ret = co_copy_range(cm, 0, job->len);

    job->offset = job->len;
    if (!ret && cm->watch)
        ret = co_follow(cm);
    return ret ? ret : co_flush_base(cm);
}

static void co_commit_cleanup(struct job *job)
{
    struct commit *cm = to_commit(job);

    co_blk_head_fini(&cm->src);
    co_blk_head_fini(&cm->dst);
    co_blk_node_unref(cm->watch);
    log_info("%s: %" PRIu64 " bytes copied, %" PRIu64 " zeroed", job->id,
             cm->copier.stats.copied_bytes, cm->copier.stats.zeroed_bytes);
}

static const struct job_driver commit_driver = {
    .type = "commit",
    .instance_bytes = sizeof(struct commit),
    .co_run = co_commit_run,
    .co_cleanup = co_commit_cleanup,
};

static int check_opts(const struct commit_opts *o, const char *device, struct error *err)
{
    if (!count_levels(o->top, o->base))
        return error_set(err, EINVAL, "'%s': the base of a commit is not below its top", device);
    if (o->base->read_only)
        return error_set(err, EROFS, "'%s': the base of the commit is read-only", device);
    if (o->base->size_bytes < o->top->size_bytes)
        return error_set(err, EINVAL, "'%s': the base of the commit is smaller than its top",
                         device);
    return 0;
}

struct job *commit_job_new(const char *id, const char *device, const struct commit_opts *opts,
                           struct error *err)
{
    struct commit *cm;
    struct job *job;
    char name[80];

    if (check_opts(opts, device, err))
        return NULL;
    job = job_new(&commit_driver, id, device, err);
    if (!job)
        return NULL;
    cm = to_commit(job);
    cm->watch = opts->watch ? blk_node_ref(opts->watch) : NULL;
    cm->auto_complete = opts->auto_complete;
    job->len = opts->top->size_bytes;
    snprintf(name, sizeof(name), "job %s", job->id);
    blk_head_init(&cm->src, name, opts->top, false);
    blk_head_init(&cm->dst, name, opts->base, true);
    copier_init(&cm->copier, opts->top, opts->base);
    cm->copier.head = &cm->src;
    cm->copier.job = job;
    return job;
}

void commit_get_stats(const struct job *job, struct commit_stats *st)
{
    *st = container_of(job, const struct commit, job)->copier.stats;
}
