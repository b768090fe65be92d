/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stackful coroutines on the loop's thread: multi-step work as straight code.
 * Stacks are mmap'ed with a guard page and pooled; switches are told to ASan and
 * valgrind. A coroutine's memory is given back when its function returns.
 *
 * Only a coroutine may call the functions named co_*() that wait. They return when
 * the thing is done; other work runs in between, so state read before must be
 * looked at again after.
 */
#ifndef COWTGT_UTIL_COROUTINE_H
#define COWTGT_UTIL_COROUTINE_H

#include <stdbool.h>
#include <stdint.h>
#include "util/list.h"

struct coroutine;

/* Creates a coroutine and enters it at once; returns when it first waits or ends. */
void co_spawn(void (*fn)(void *arg), void *arg);
/* NULL outside any coroutine. */
struct coroutine *co_self(void);
/* Gives control back to whoever entered. Someone must hold co_self() to wake us. */
void co_yield (void);
/* Enters a waiting coroutine now (nesting is fine); for completion callbacks. */
void co_enter(struct coroutine *co);
/* Enters it later this turn. At most one wake may be outstanding. */
void co_wake(struct coroutine *co);

/* Waits at least @ns. */
void co_sleep(uint64_t ns);
/* Lets the rest of this turn (and new socket input) go first. */
void co_pause(void);

/* FIFO of waiting coroutines. */
struct co_queue {
    struct list_head waiters;
};
void co_queue_init(struct co_queue *q);
void co_queue_wait(struct co_queue *q);
/* Wakes the oldest (all); false if none waited. Woken ones run later this turn. */
bool co_queue_wake(struct co_queue *q);
void co_queue_wake_all(struct co_queue *q);

/* FIFO-fair mutex for coroutines. */
struct co_mutex {
    bool locked;
    struct co_queue queue;
};
void co_mutex_init(struct co_mutex *m);
void co_mutex_lock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);

#endif
