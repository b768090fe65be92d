/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A copy of a disk in use, made in another node while guests go on. A filter over the source, the
 * replica, sees all that changes it. Two kinds:
 *   mirror  the copy follows the source: what was changed is marked, and copied again;
 *   backup  the copy is the source as it was when the filter came: before a range is changed for
 *           the first time its old content is copied.
 * Invariant: a range that is neither marked nor being copied reads in the target as in the source
 * (mirror), or as the source did at the start (backup).
 *
 * The source, the node below the filter, and the target are the owner's, and are there as long as
 * the filter is.
 */
#ifndef COWTGT_REPLICA_H
#define COWTGT_REPLICA_H

#include "lun-backends/block.h"
#include "lun-backends/job.h"

enum replica_kind { REPLICA_MIRROR, REPLICA_BACKUP };

struct replica_opts {
    enum replica_kind kind;
    struct blk_node *source;
    struct blk_node *target;    /* of the same size, writable */
    unsigned levels;            /* topmost layers of the source that are copied, what is below them
                                   is below the target, too; 0: all of it */
    bool all;                   /* all of it is marked at first; else nothing (mirror), or only what
                                   is changed is copied (backup) */
    bool keep_zeros;            /* zeros take room in the target */
    bool write_blocking;        /* mirror: a guest's write is over when the copy has it */
    uint32_t granularity_bytes; /* power of two; 0: chosen. A larger one where the map would be
                                   large, or a backup's target has larger clusters. */
};

#define REPLICA_MIN_GRANULARITY 512u
#define REPLICA_MAX_GRANULARITY (64u << 20)

/* One reference for the caller; put above the source with the graph drained. NULL: no memory. */
struct blk_node *replica_new(const struct replica_opts *opts);
/* Bytes that are marked, or are being copied. */
uint64_t replica_dirty_bytes(const struct blk_node *replica);
/* In a coroutine: copies all that is marked now, once; with the source drained, nothing is left
 * after it. */
int co_replica_catch_up(struct blk_node *replica);

struct replica_job_opts {
    struct blk_node *replica;
    bool auto_complete;                     /* mirror: don't wait, ready, to be told to complete */
    enum job_on_error on_source, on_target; /* report, or tried again: ignore at once, stop and
                                               enospc after a resume */
    uint64_t buf_bytes;                     /* under way at a time; 0: chosen */
};

/*
 * Mirror: ready when hardly anything is marked, until it is told to complete; ends with the target
 * flushed, but for what was marked since. Cancelled without force when it is ready, it ends the
 * same way with job->left.
 * Backup: ends when all is copied, and never where nothing was marked at first. A guest's write
 * never fails for it: what can't be saved before a write ends the job, whatever the policy is.
 */
struct job *replica_job_new(const char *id, const char *device, const struct replica_job_opts *opts,
                            struct error *err);

struct replica_stats {
    uint64_t copied_bytes, zeroed_bytes;
};
void replica_get_stats(const struct blk_node *replica, struct replica_stats *st);
/* Of the job's replica. */
void replica_job_get_stats(const struct job *job, struct replica_stats *st);

/* ---- replica.c, for the job --------------------------------------------------------------- */
/* The first marked range at or after @from; false: none. */
bool replica_next(const struct blk_node *replica, uint64_t from, uint64_t *start, uint64_t *end);
/* How much of [start, end) is worth a piece of work; *data: it is more than bookkeeping. */
int co_replica_plan(struct blk_node *replica, uint64_t start, uint64_t end, uint64_t *bytes,
                    bool *data);
/* Copies what is marked in [start, end), whole chunks or up to the end. On failure what was not
 * copied is marked; *in_write says which side failed. */
int co_replica_copy(struct blk_node *replica, uint64_t start, uint64_t end, bool *in_write);
/* What guests' requests are copying is done. */
void co_replica_wait(struct blk_node *replica);
/* Guests go on without it from now on; a mirror still marks. */
void replica_let_go(struct blk_node *replica);
/* Of a backup: why it can't be complete any more; 0: it can. */
int replica_broken(const struct blk_node *replica);
const struct replica_opts *replica_get_opts(const struct blk_node *replica);

#endif
