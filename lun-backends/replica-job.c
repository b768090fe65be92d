/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The jobs over a replica, mirror and backup: what is marked is copied, several pieces at a time,
 * sweep after sweep. Invariant: what is not copied is marked, so an error loses nothing: trying
 * again is going on.
 */
#define LOG_AREA "replica"
#include "lun-backends/replica.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/coroutine.h"
#include "util/log.h"
#include "util/size.h"

#define PIECE_BYTES (UINT64_C(1) << 20)
#define MAX_PIECES  16
#define MAX_DEFAULT 8
#define CLOSE_BYTES (UINT64_C(8) << 20) /* with so little marked a busy mirror counts as ready, */
#define SOME_SWEEPS 4                   /* after some sweeps; */
#define MAX_SWEEPS  32                  /* after so many in any case */
#define MS          UINT64_C(1000000)
#define FOLLOW_NS   (50 * MS)
#define RETRY_NS    (200 * MS)

struct replica_job {
    struct job job;
    struct replica_job_opts opts;
    struct blk_node *replica, *target; /* references */
    struct blk_head src, dst;          /* src: a drain waits for what is under way */
    unsigned nr_pieces, max_pieces;
    struct co_queue piece_ended;
    unsigned sweeps; /* since an error */
    uint64_t done_bytes;
    struct job_fault fault;
    struct replica_stats stats; /* of a replica that is gone */
};

struct piece {
    struct replica_job *rj;
    uint64_t start, end;
};

static struct replica_job *to_rj(const struct job *job)
{
    return (struct replica_job *)job;
}

static bool is_mirror(const struct replica_job *rj)
{
    return replica_get_opts(rj->replica)->kind == REPLICA_MIRROR;
}

/* As QEMU counts: what is to be done, guests' changes included, is the rest. */
static void update_progress(struct replica_job *rj)
{
    uint64_t rest = replica_dirty_bytes(rj->replica);
    struct job *job = &rj->job;

    if (is_mirror(rj)) {
        job->offset = rj->done_bytes;
        job->len = job->offset + rest;
    } else {
        job->offset = job->len - MIN_OF(rest, job->len);
    }
}

/* ---- pieces ------------------------------------------------------------------------------ */

static void co_piece(void *arg)
{
    struct piece *p = arg;
    struct replica_job *rj = p->rj;
    bool in_write;
    int ret;

    co_blk_head_enter(&rj->src);
    ret = co_replica_copy(rj->replica, p->start, p->end, &in_write);
    blk_head_exit(&rj->src);
    if (ret)
        job_fault_note(&rj->fault, p->start, ret, in_write);
    else
        rj->done_bytes += p->end - p->start;
    free(p);
    rj->nr_pieces--;
    update_progress(rj);
    co_queue_wake(&rj->piece_ended);
}

static void co_wait_pieces(struct replica_job *rj, unsigned at_most)
{
    while (rj->nr_pieces > at_most)
        co_queue_wait(&rj->piece_ended);
}

static bool must_stop(const struct replica_job *rj)
{
    return rj->fault.ret || job_wants_attention(&rj->job) || replica_broken(rj->replica);
}

/* A piece from @start on is under way, *next is behind it. False: there was an error, or the job is
 * asked for. */
static bool co_start_piece(struct replica_job *rj, uint64_t start, uint64_t end, uint64_t *next)
{
    struct piece *p;
    uint64_t bytes;
    bool data;
    int ret;

    co_blk_head_enter(&rj->src);
    ret = co_replica_plan(rj->replica, start, end, &bytes, &data);
    blk_head_exit(&rj->src);
    if (ret) {
        job_fault_note(&rj->fault, start, ret, false);
        return false;
    }
    if (data && !co_job_throttle(&rj->job, bytes))
        return false;
    co_wait_pieces(rj, rj->max_pieces - 1);
    if (must_stop(rj))
        return false;
    p = malloc(sizeof(*p));
    if (!p) {
        job_fault_note(&rj->fault, start, -ENOMEM, false);
        return false;
    }
    *p = (struct piece){.rj = rj, .start = start, .end = start + bytes};
    *next = p->end;
    rj->nr_pieces++;
    co_spawn(co_piece, p);
    return true;
}

/* ---- errors ------------------------------------------------------------------------------ */

static int fail_with(struct replica_job *rj, int ret, bool in_write, uint64_t pos)
{
    struct job *job = &rj->job;

    return error_set(&job->err, -ret, "%s of '%s' failed %s at byte %" PRIu64 ": %s",
                     job->drv->type, job->device,
                     in_write ? "writing the copy" : "reading the disk", pos, strerror(-ret));
}

static int fail_broken(struct replica_job *rj)
{
    struct job *job = &rj->job;
    int ret = replica_broken(rj->replica);

    return error_set(&job->err, -ret,
                     "backup of '%s': what a write was about to change could not be copied: %s",
                     job->device, strerror(-ret));
}

/* An error, a pause or the end was met: 0 is to go on. */
static int co_attend(struct replica_job *rj)
{
    struct job *job = &rj->job;

    if (replica_broken(rj->replica))
        return fail_broken(rj);
    if (rj->fault.ret) {
        job->on_error = rj->fault.in_write ? rj->opts.on_target : rj->opts.on_source;
        if (!co_job_handle_error(job, -rj->fault.ret, rj->fault.in_write) && !job->cancelled)
            return fail_with(rj, rj->fault.ret, rj->fault.in_write, rj->fault.pos_bytes);
        rj->fault.ret = 0;
        rj->sweeps = 0;
        co_job_sleep(job, RETRY_NS);
    }
    return co_job_pause_point(job) ? -ECANCELED : 0;
}

/* ---- sweeps ------------------------------------------------------------------------------ */

/* Once over all that is marked. */
static int co_sweep(struct replica_job *rj)
{
    uint64_t at = 0, start, end;
    int ret = 0;

    while (!ret && replica_next(rj->replica, at, &start, &end)) {
        if (must_stop(rj) || !co_start_piece(rj, start, end, &at)) {
            co_wait_pieces(rj, 0);
            ret = co_attend(rj);
        }
        update_progress(rj);
        co_pause();
    }
    co_wait_pieces(rj, 0);
    return !ret && must_stop(rj) ? co_attend(rj) : ret;
}

static int co_flush_target(struct replica_job *rj)
{
    int ret = 0;

    do {
        int failure = co_blk_flush(rj->target);

        if (!failure)
            return 0;
        job_fault_note(&rj->fault, 0, failure, true);
        ret = co_attend(rj);
    } while (!ret);
    return ret;
}

static bool is_close(const struct replica_job *rj)
{
    uint64_t dirty = replica_dirty_bytes(rj->replica);

    return !dirty || (rj->sweeps >= SOME_SWEEPS && dirty <= CLOSE_BYTES) ||
           rj->sweeps >= MAX_SWEEPS;
}

static int co_mirror_run(struct job *job)
{
    struct replica_job *rj = to_rj(job);
    int ret = 0;

    while (!ret) {
        ret = co_sweep(rj);
        rj->sweeps++;
        if (!ret && !job->ready && is_close(rj)) {
            ret = co_flush_target(rj);
            update_progress(rj);
            if (!ret && is_close(rj))
                job_set_ready(job);
        }
        if (ret || (job->ready && (rj->opts.auto_complete || job->complete_asked)))
            break;
        if (co_job_pause_point(job))
            return -ECANCELED;
        if (job->ready)
            co_job_sleep(job, FOLLOW_NS);
        else
            co_pause();
    }
    if (!ret)
        ret = co_flush_target(rj);
    job->len = ret ? job->len : job->offset; /* what still comes is the end's */
    return ret;
}

static bool is_copied(const struct replica_job *rj)
{
    uint64_t start, end;

    return !replica_next(rj->replica, 0, &start, &end);
}

static int co_backup_run(struct job *job)
{
    struct replica_job *rj = to_rj(job);
    int ret = 0;

    while (!ret && !replica_get_opts(rj->replica)->all) { /* only what guests change */
        co_job_sleep(job, FOLLOW_NS);
        update_progress(rj);
        if (must_stop(rj))
            ret = co_attend(rj);
    }
    while (!ret && !is_copied(rj)) {
        ret = co_sweep(rj);
        if (!ret)
            co_replica_wait(rj->replica);
        if (!ret && replica_broken(rj->replica))
            ret = fail_broken(rj);
    }
    update_progress(rj);
    return ret ? ret : co_flush_target(rj);
}

/* ---- the job ----------------------------------------------------------------------------- */

static void co_cleanup(struct job *job)
{
    struct replica_job *rj = to_rj(job);

    replica_let_go(rj->replica);
    co_blk_head_fini(&rj->src);
    co_blk_head_fini(&rj->dst);
    replica_get_stats(rj->replica, &rj->stats);
    log_info("%s: %" PRIu64 " bytes copied, %" PRIu64 " zeroed", job->id, rj->stats.copied_bytes,
             rj->stats.zeroed_bytes);
    co_blk_node_unref(rj->replica);
    co_blk_node_unref(rj->target);
    rj->replica = rj->target = NULL;
}

static const struct job_driver drivers[] = {
    [REPLICA_MIRROR] =
        {
            .type = "mirror",
            .instance_bytes = sizeof(struct replica_job),
            .co_run = co_mirror_run,
            .co_cleanup = co_cleanup,
            .can_leave = true,
        },
    [REPLICA_BACKUP] =
        {
            .type = "backup",
            .instance_bytes = sizeof(struct replica_job),
            .co_run = co_backup_run,
            .co_cleanup = co_cleanup,
        },
};

struct job *replica_job_new(const char *id, const char *device, const struct replica_job_opts *opts,
                            struct error *err)
{
    const struct replica_opts *ro = replica_get_opts(opts->replica);
    struct job *job = job_new(&drivers[ro->kind], id, device, err);
    struct replica_job *rj;
    char name[80];

    if (!job)
        return NULL;
    rj = to_rj(job);
    rj->opts = *opts;
    rj->replica = blk_node_ref(opts->replica);
    rj->target = blk_node_ref(ro->target);
    rj->max_pieces = MAX_DEFAULT;
    if (opts->buf_bytes)
        rj->max_pieces =
            (unsigned)MAX_OF(MIN_OF(opts->buf_bytes / PIECE_BYTES, (uint64_t)MAX_PIECES), 1);
    co_queue_init(&rj->piece_ended);
    job->len = ro->all ? ro->source->size_bytes : 0;
    snprintf(name, sizeof(name), "job %s", job->id);
    blk_head_init(&rj->src, name, ro->source, false);
    blk_head_init(&rj->dst, name, ro->target, true);
    return job;
}

void replica_job_get_stats(const struct job *job, struct replica_stats *st)
{
    const struct replica_job *rj = to_rj(job);

    if (rj->replica)
        replica_get_stats(rj->replica, st);
    else
        *st = rj->stats;
}
