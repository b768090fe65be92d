/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop of the process (libev) and what is done once a turn.
 *
 * All functions are for the loop's own thread.
 * A turn is: libev callbacks, then LOOP_NOW work until there is none, then LOOP_END
 * work (sockets send what the turn produced), then submit hooks (engines hand the
 * turn's disk requests to the kernel in one batch), then sleep. LOOP_NEXT work is LOOP_NOW work of
 * the next turn, behind its callbacks, and the loop does not sleep before it.
 * Work queued while hooks run is done before the loop sleeps.
 */
#ifndef COWTGT_UTIL_LOOP_H
#define COWTGT_UTIL_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include "util/list.h"

struct ev_loop;

enum loop_phase { LOOP_NOW, LOOP_END, LOOP_NEXT, LOOP_NR_PHASES };

/* A piece of work to be done once this turn. Owned by the caller, zero-initialised. */
struct deferred {
    struct list_head link;
    void (*fn)(struct deferred *);
};

/* Called once before anything else; -errno if the kernel gives no epoll. */
int loop_init(void);
void loop_fini(void);
struct ev_loop *loop_ev(void);
/* Until loop_stop(). */
void loop_run(void);
void loop_stop(void);
/* One turn; @block: wait for an event if there is nothing to do. For tests and tools. */
void loop_turn(bool block);
/* Turns that are over: the same number means the same turn. */
uint64_t loop_nr_turns(void);

/* Queues @d for this turn; does nothing if it is queued already. */
void loop_defer(struct deferred *d, enum loop_phase phase);
void loop_undefer(struct deferred *d);
static inline bool loop_is_deferred(const struct deferred *d)
{
    return list_is_linked(&d->link);
}

/* Registered once per engine; fn() is called at the end of every turn. */
struct submit_hook {
    struct list_head link;
    void (*fn)(struct submit_hook *);
};
void loop_add_submit_hook(struct submit_hook *h);
void loop_del_submit_hook(struct submit_hook *h);

/* Monotonic time, nanoseconds. Never wall-clock. */
uint64_t now_ns(void);

#endif
