/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Committing layers: what the layers above @base up to @top decide is written into @base, which
 * then reads as @top does. The graph stays as it is: taking the layers out is the owner's work,
 * and until then @top hides all that changes in @base.
 *
 * A top that is written to meanwhile gets a watch, a filter right above it that remembers where.
 * Invariant: what was written through the watch and has completed is marked, or is in base.
 */
#ifndef COWTGT_COMMIT_H
#define COWTGT_COMMIT_H

#include "lun-backends/block.h"
#include "lun-backends/job.h"

struct commit_opts {
    struct blk_node *top;
    struct blk_node *base;  /* below top; open for writing, at least as large */
    struct blk_node *watch; /* above top; NULL: top is sealed, so the copy has an end */
    bool auto_complete;     /* with a watch: don't wait, ready, to be told to complete */
};

/*
 * The job ends well with everything copied and flushed, but for what a watch has marked since. An
 * error is tried again (on-error ignore, and stop after a resume), or fails it.
 */
struct job *commit_job_new(const char *id, const char *device, const struct commit_opts *opts,
                           struct error *err);

struct commit_stats {
    uint64_t copied_bytes, zeroed_bytes;
};
void commit_get_stats(const struct job *job, struct commit_stats *st);

/* One reference for the caller; put above @top with the graph drained. */
struct blk_node *commit_watch_new(struct blk_node *top);
uint64_t commit_watch_dirty_bytes(const struct blk_node *watch);
/* In a coroutine: copies all that is marked now, once; drained, nothing is left after it. */
int co_commit_catch_up(struct blk_node *watch, struct blk_node *base);

/* commit-watch.c, for the job: takes the first marked range at or after @from off; false: none. */
bool commit_watch_take(struct blk_node *watch, uint64_t from, uint64_t *start, uint64_t *end);
/* It could not be copied: marked again. */
void commit_watch_mark(struct blk_node *watch, uint64_t start, uint64_t end);

#endif
