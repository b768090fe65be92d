/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The helper threads. Two lists under one mutex: to be run, and done; an ev_async brings
 * the done ones to the loop. Threads exist only while there has been a use for them.
 */
#include "util/workers.h"

#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"

#define MAX_THREADS 64

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list_head todo, finished;
    unsigned nr_threads, nr_idle, max_threads;
    pthread_t threads[MAX_THREADS];
    bool stopping;
    struct ev_async wake;
    unsigned outstanding; /* loop thread only: keeps the loop alive while > 0 */
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .more = PTHREAD_COND_INITIALIZER,
};

static void *worker(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (list_empty(&pool.todo) && !pool.stopping) {
            pool.nr_idle++;
            pthread_cond_wait(&pool.more, &pool.lock);
            pool.nr_idle--;
        }
        if (list_empty(&pool.todo))
            break;
        struct work *w = list_first_entry(&pool.todo, struct work, link);
        list_del(&w->link);
        pthread_mutex_unlock(&pool.lock);
        w->run(w);
        pthread_mutex_lock(&pool.lock);
        bool first = list_empty(&pool.finished);
        list_add_tail(&pool.finished, &w->link);
        if (first)
            ev_async_send(loop_ev(), &pool.wake);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static void on_wake(struct ev_loop *ev, struct ev_async *a, int revents)
{
    struct list_head batch;

    (void)a;
    (void)revents;
    list_init(&batch);
    pthread_mutex_lock(&pool.lock);
    list_splice_tail(&batch, &pool.finished);
    pthread_mutex_unlock(&pool.lock);
    while (!list_empty(&batch)) {
        struct work *w = list_first_entry(&batch, struct work, link);

        list_del(&w->link);
        if (--pool.outstanding == 0)
            ev_unref(ev);
        w->done(w);
    }
}

int workers_init(unsigned max_threads)
{
    if (max_threads < 1 || max_threads > MAX_THREADS)
        return -EINVAL;
    pool.max_threads = max_threads;
    pool.nr_threads = pool.nr_idle = pool.outstanding = 0;
    pool.stopping = false;
    list_init(&pool.todo);
    list_init(&pool.finished);
    ev_async_init(&pool.wake, on_wake);
    ev_set_priority(&pool.wake, EV_MAXPRI);
    ev_async_start(loop_ev(), &pool.wake);
    ev_unref(loop_ev());
    return 0;
}

void workers_fini(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.stopping = true;
    pthread_cond_broadcast(&pool.more);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned i = 0; i < pool.nr_threads; i++)
        pthread_join(pool.threads[i], NULL);
    if (!pool.outstanding)
        ev_ref(loop_ev());
    ev_async_stop(loop_ev(), &pool.wake);
    pool.nr_threads = 0;
}

/* Signals are for the loop's thread alone. With the lock held. */
static void start_thread(void)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    if (!pthread_create(&pool.threads[pool.nr_threads], NULL, worker, NULL))
        pool.nr_threads++;
    else if (!pool.nr_threads)
        log_err("no helper thread can be started; work will wait");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void workers_submit(struct work *w)
{
    if (pool.outstanding++ == 0)
        ev_ref(loop_ev());
    pthread_mutex_lock(&pool.lock);
    bool queue_was_empty = list_empty(&pool.todo);
    list_add_tail(&pool.todo, &w->link);
    if ((pool.nr_idle == 0 || !queue_was_empty) && pool.nr_threads < pool.max_threads)
        start_thread();
    pthread_cond_signal(&pool.more);
    pthread_mutex_unlock(&pool.lock);
}

struct co_work {
    struct work work;
    struct coroutine *co;
    int (*fn)(void *arg);
    void *arg;
    int ret;
};

static void co_work_run(struct work *w)
{
    struct co_work *cw = container_of(w, struct co_work, work);

    cw->ret = cw->fn(cw->arg);
}

static void co_work_done(struct work *w)
{
    co_enter(container_of(w, struct co_work, work)->co);
}

int co_work(int (*fn)(void *arg), void *arg)
{
    struct co_work cw = {
        .work = {.run = co_work_run, .done = co_work_done},
        .co = co_self(),
        .fn = fn,
        .arg = arg,
    };

    workers_submit(&cw.work);
    co_yield ();
    return cw.ret;
}
