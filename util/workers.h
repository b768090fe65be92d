/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Helper threads, for what blocks or burns CPU: open, fallocate, fsync, page-cache
 * misses, decompression, name lookup. run() is called on a helper thread and must
 * touch nothing of the loop's; done() is called on the loop, LOOP_NOW phase.
 * A work item belongs to the pool from submit until done() is called.
 */
#ifndef COWTGT_UTIL_WORKERS_H
#define COWTGT_UTIL_WORKERS_H

#include "util/list.h"

struct work {
    struct list_head link; /* the pool's */
    void (*run)(struct work *);
    void (*done)(struct work *);
};

/* @max_threads 1..64; threads are started on demand. */
int workers_init(unsigned max_threads);
/* Waits for all work under way, calls no more done(). */
void workers_fini(void);
void workers_submit(struct work *w);

/* Runs fn(arg) on a helper thread while this coroutine waits; returns what fn returned. */
int co_work(int (*fn)(void *arg), void *arg);

#endif
