/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The loop: libev plus what is done once a turn, from a prepare watcher. An idle watcher
 * keeps the loop from sleeping while work is queued.
 */
#include "util/loop.h"

#include <errno.h>
#include <ev.h>
#include <time.h>

static struct {
    struct ev_loop *ev;
    struct ev_prepare prepare;
    struct ev_idle idle; /* active while anything is deferred */
    struct list_head deferred[LOOP_NR_PHASES];
    struct list_head hooks;
    bool stopped;
    uint64_t nr_turns;
} loop;

/* Only what is queued now: work that queues itself again waits for the next round. */
static bool run_phase(enum loop_phase phase)
{
    struct list_head batch;

    if (list_empty(&loop.deferred[phase]))
        return false;
    list_init(&batch);
    list_splice_tail(&batch, &loop.deferred[phase]);
    while (!list_empty(&batch)) {
        struct deferred *d = list_first_entry(&batch, struct deferred, link);

        list_del(&d->link);
        d->fn(d);
    }
    return true;
}

static bool anything_this_turn(void)
{
    return !list_empty(&loop.deferred[LOOP_NOW]) || !list_empty(&loop.deferred[LOOP_END]);
}

static bool anything_deferred(void)
{
    return anything_this_turn() || !list_empty(&loop.deferred[LOOP_NEXT]);
}

static void run_hooks(void)
{
    struct submit_hook *h, *tmp;

    list_for_each_entry_safe (h, tmp, &loop.hooks, link)
        h->fn(h);
}

/* Rounds a turn: enough to finish what a turn produced, few enough that work which feeds
 * itself can't keep sockets and signals waiting. */
#define MAX_ROUNDS 16

static void on_prepare(struct ev_loop *ev, struct ev_prepare *w, int revents)
{
    (void)w;
    (void)revents;
    list_splice_tail(&loop.deferred[LOOP_NOW], &loop.deferred[LOOP_NEXT]);
    for (int round = 0; round < MAX_ROUNDS; round++) {
        for (int i = 0; i < MAX_ROUNDS && run_phase(LOOP_NOW); i++)
            ;
        run_phase(LOOP_END);
        if (!anything_this_turn())
            run_hooks();
        if (!anything_this_turn())
            break;
    }
    if (anything_this_turn())
        run_hooks();
    if (anything_deferred()) {
        ev_idle_start(ev, &loop.idle);
    } else {
        ev_idle_stop(ev, &loop.idle);
    }
    loop.nr_turns++;
}

static void on_idle(struct ev_loop *ev, struct ev_idle *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
}

int loop_init(void)
{
    loop.ev = ev_default_loop(EVFLAG_AUTO | EVFLAG_NOENV);
    if (!loop.ev)
        return -ENOSYS;
    list_init(&loop.deferred[LOOP_NOW]);
    list_init(&loop.deferred[LOOP_END]);
    list_init(&loop.deferred[LOOP_NEXT]);
    list_init(&loop.hooks);
    ev_prepare_init(&loop.prepare, on_prepare);
    ev_prepare_start(loop.ev, &loop.prepare);
    ev_unref(loop.ev); /* alone it is no reason to go on */
    ev_idle_init(&loop.idle, on_idle);
    return 0;
}

void loop_fini(void)
{
    ev_ref(loop.ev);
    ev_prepare_stop(loop.ev, &loop.prepare);
    ev_idle_stop(loop.ev, &loop.idle);
    ev_loop_destroy(loop.ev);
    loop.ev = NULL;
}

struct ev_loop *loop_ev(void)
{
    return loop.ev;
}

/* libev ends when its last watcher stops; what that watcher deferred is still to be done. */
void loop_run(void)
{
    bool busy;

    loop.stopped = false;
    do {
        busy = anything_deferred(); /* before the first turn, too */
        ev_run(loop.ev, busy ? EVRUN_NOWAIT : 0);
    } while (!loop.stopped && (busy || anything_deferred()));
}

void loop_stop(void)
{
    loop.stopped = true;
    ev_break(loop.ev, EVBREAK_ALL);
}

void loop_turn(bool block)
{
    ev_run(loop.ev, block && !anything_deferred() ? EVRUN_ONCE : EVRUN_NOWAIT);
}

uint64_t loop_nr_turns(void)
{
    return loop.nr_turns;
}

void loop_defer(struct deferred *d, enum loop_phase phase)
{
    if (list_is_linked(&d->link))
        return;
    list_add_tail(&loop.deferred[phase], &d->link);
}

void loop_undefer(struct deferred *d)
{
    if (list_is_linked(&d->link))
        list_del(&d->link);
}

void loop_add_submit_hook(struct submit_hook *h)
{
    list_add_tail(&loop.hooks, &h->link);
}

void loop_del_submit_hook(struct submit_hook *h)
{
    list_del(&h->link);
}

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
