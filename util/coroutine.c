/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Coroutines: makecontext() gives each stack its first frame, after that a switch is
 * _setjmp/_longjmp (no system call, no signal mask). Each stack has a guard page below it. A
 * coroutine that ended leaves its stack to the next one.
 */
#undef _FORTIFY_SOURCE /* its longjmp check takes a jump to another stack for a bug */
#include "util/coroutine.h"

#include <assert.h>
#include <ev.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "util/log.h"
#include "util/loop.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef HAVE_VALGRIND
#include <valgrind/valgrind.h>
#endif

#define STACK_BYTES (256u * 1024)
#define GUARD_BYTES 4096u
#define MAX_POOLED  128

struct coroutine {
    jmp_buf env;
    struct coroutine *caller; /* who entered us; NULL while we wait */
    void *stack;              /* lowest usable byte; NULL: the thread's own stack */
    size_t stack_bytes;
    void (*fn)(void *arg);
    void *arg;
    bool ended;
    struct deferred wake;
    struct list_head link; /* pool, or a co_queue */
    unsigned valgrind_id;
};

static struct coroutine leader; /* the thread itself */
static struct coroutine *current = &leader;
static struct list_head pool = LIST_HEAD_INIT(pool);
static unsigned pool_size;

#ifdef WITH_ASAN
static void switch_begin(void **fake_stack, const struct coroutine *from, struct coroutine *to)
{
    __sanitizer_start_switch_fiber(from->ended ? NULL : fake_stack, to->stack, to->stack_bytes);
}

/* The thread's own stack is learned at the first switch away from it. */
static void switch_end(void *fake_stack, struct coroutine *came_from)
{
    const void *bottom;
    size_t size;

    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &size);
    if (came_from == &leader) {
        leader.stack = (void *)bottom;
        leader.stack_bytes = size;
    }
}
#else
static void switch_begin(void **fake_stack, const struct coroutine *from, struct coroutine *to)
{
    (void)fake_stack;
    (void)from;
    (void)to;
}

static void switch_end(void *fake_stack, struct coroutine *came_from)
{
    (void)fake_stack;
    (void)came_from;
}
#endif

static struct coroutine *switched_from;

static void __attribute__((noinline)) switch_to(struct coroutine *to)
{
    struct coroutine *from = current;
    void *volatile fake_stack = NULL; /* set after _setjmp, used after _longjmp */

    if (_setjmp(from->env) == 0) {
        switch_begin((void **)&fake_stack, from, to);
        switched_from = from;
        current = to;
        _longjmp(to->env, 1);
    }
    switch_end(fake_stack, switched_from);
}

static void recycle(struct coroutine *co)
{
    co->ended = false;
    if (pool_size < MAX_POOLED) {
        list_add(&pool, &co->link);
        pool_size++;
        return;
    }
#ifdef HAVE_VALGRIND
    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
    munmap((char *)co->stack - GUARD_BYTES, STACK_BYTES + GUARD_BYTES);
    free(co);
}

static void on_wake(struct deferred *d)
{
    co_enter(container_of(d, struct coroutine, wake));
}

/* makecontext() passes ints only. */
static struct coroutine *starting, *starting_from;
static ucontext_t starter;

static void first_frame(void)
{
    struct coroutine *self = starting;

    switch_end(NULL, starting_from);
    if (_setjmp(self->env) == 0) {
        void *fake_stack = NULL;

        switch_begin(&fake_stack, self, starting_from);
        setcontext(&starter);
    }
    switch_end(NULL, switched_from);
    for (;;) {
        struct coroutine *to;

        self->fn(self->arg);
        self->ended = true;
        to = self->caller;
        self->caller = NULL;
        switch_to(to); /* comes back when the stack has its next user */
    }
}

static struct coroutine *coroutine_new(void)
{
    struct coroutine *co = calloc(1, sizeof(*co));
    char *map = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (!co || map == MAP_FAILED || mprotect(map, GUARD_BYTES, PROT_NONE)) {
        log_err("no memory for a coroutine's stack");
        abort();
    }
    co->stack = map + GUARD_BYTES;
    co->stack_bytes = STACK_BYTES;
    co->wake.fn = on_wake;
#ifdef HAVE_VALGRIND
    co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack, (char *)co->stack + STACK_BYTES);
#endif
    return co;
}

/* Runs first_frame() up to its _setjmp, on the new stack, from the leader's. */
static void prepare_stack(struct coroutine *co)
{
    static ucontext_t uc;
    void *fake_stack = NULL;

    getcontext(&uc);
    uc.uc_stack.ss_sp = co->stack;
    uc.uc_stack.ss_size = STACK_BYTES;
    uc.uc_link = NULL;
    makecontext(&uc, first_frame, 0);
    starting = co;
    starting_from = current;
    switch_begin(&fake_stack, current, co);
    swapcontext(&starter, &uc);
    switch_end(fake_stack, co);
}

struct coroutine *co_self(void)
{
    return current == &leader ? NULL : current;
}

void co_spawn(void (*fn)(void *arg), void *arg)
{
    struct coroutine *co;

    if (list_empty(&pool)) {
        co = coroutine_new();
        prepare_stack(co);
    } else {
        co = list_first_entry(&pool, struct coroutine, link);
        list_del(&co->link);
        pool_size--;
    }
    co->fn = fn;
    co->arg = arg;
    co_enter(co);
}

void co_enter(struct coroutine *co)
{
    assert(!co->caller && co != current);
    co->caller = current;
    switch_to(co);
    if (co->ended)
        recycle(co);
}

void co_yield (void)
{
    struct coroutine *to = current->caller;

    assert(to);
    current->caller = NULL;
    switch_to(to);
}

void co_wake(struct coroutine *co)
{
    loop_defer(&co->wake, LOOP_NOW);
}

static void co_sleep_done(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    (void)ev;
    (void)revents;
    co_enter(t->data);
}

void co_sleep(uint64_t ns)
{
    struct ev_timer t;

    ev_now_update(loop_ev());
    ev_timer_init(&t, co_sleep_done, (double)ns / 1e9, 0);
    t.data = current;
    ev_timer_start(loop_ev(), &t);
    co_yield ();
}

/* A zero timer fires in the next turn, after its sockets. */
void co_pause(void)
{
    co_sleep(0);
}

/* A waiter lives on the stack of the coroutine that waits. */
struct waiter {
    struct list_head link;
    struct coroutine *co;
};

void co_queue_init(struct co_queue *q)
{
    list_init(&q->waiters);
}

void co_queue_wait(struct co_queue *q)
{
    struct waiter w = {.co = current};

    list_add_tail(&q->waiters, &w.link);
    co_yield ();
}

bool co_queue_wake(struct co_queue *q)
{
    if (list_empty(&q->waiters))
        return false;

    struct waiter *w = list_first_entry(&q->waiters, struct waiter, link);

    list_del(&w->link);
    co_wake(w->co);
    return true;
}

void co_queue_wake_all(struct co_queue *q)
{
    while (co_queue_wake(q))
        ;
}

void co_mutex_init(struct co_mutex *m)
{
    m->locked = false;
    co_queue_init(&m->queue);
}

/* Handed over on unlock, never up for grabs in between: that keeps it fair. */
void co_mutex_lock(struct co_mutex *m)
{
    if (m->locked)
        co_queue_wait(&m->queue);
    else
        m->locked = true;
}

void co_mutex_unlock(struct co_mutex *m)
{
    assert(m->locked);
    if (!co_queue_wake(&m->queue))
        m->locked = false;
}
