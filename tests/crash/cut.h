/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts of recorded files: when they happen, and what is on a file's disk afterwards. All
 * files share one clock; a flush orders only the file it is for.
 */
#ifndef COWTGT_CRASH_CUT_H
#define COWTGT_CRASH_CUT_H

#include "tests/crash/record-node.h"

/* What stays of the changes on their way. */
enum kept { KEPT_ALL, KEPT_NONE, KEPT_SOME, KEPT_TORN, KEPT_ONE, KEPT_BUT_ONE, KEPT_NR };
extern const char *const kept_names[KEPT_NR];

struct cut {
    uint64_t moment;
    enum kept kept;
};

struct cuts {
    struct cut *cut; /* by moment; freed by the caller */
    size_t nr;
};

/* Both sides of each flush in any of @nr_logs logs, and moments between, up to @last. False: out
 * of memory. */
bool plan_cuts(struct rnd *rnd, const struct record_log *logs, size_t nr_logs, uint64_t last,
               struct cuts *c);

/* What all cuts from a moment on have in common: the first events, up to one that was not
 * durable yet. */
struct common {
    struct record_node *image;
    size_t nr;
};
void cut_advance(struct common *c, const struct record_log *log, uint64_t moment);

/* The file after @cut; the caller's. Unless @exact, it may be longer than what was written. */
struct record_node *cut_build(struct rnd *rnd, const struct common *c, const struct record_log *log,
                              struct cut cut, bool exact);

#endif
