/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data buffers by size class. used + cached <= limit always: a cached buffer of another class is
 * given back to the system when its bytes are wanted.
 */
#include "util/bufpool.h"

#include <stdbool.h>
#include <stdlib.h>

#include "util/loop.h"
#include "util/size.h"

#define MIN_SHIFT  12
#define NR_CLASSES 9 /* 4 KiB .. 1 MiB */

struct free_buf {
    struct free_buf *next;
};

struct bufpool {
    uint64_t limit_bytes, used_bytes, cached_bytes;
    struct free_buf *free[NR_CLASSES];
    struct list_head waiters;
    struct deferred wake;
    bool serving; /* inside a waiter's fn() */
};

static unsigned class_of(size_t bytes)
{
    unsigned c = 0;

    while (((size_t)1 << (MIN_SHIFT + c)) < bytes)
        c++;
    return c;
}

static size_t class_bytes(unsigned c)
{
    return (size_t)1 << (MIN_SHIFT + c);
}

static void wake_waiters(struct deferred *d)
{
    struct bufpool *p = container_of(d, struct bufpool, wake);

    while (!list_empty(&p->waiters)) {
        struct buf_waiter *w = list_first_entry(&p->waiters, struct buf_waiter, link);

        if (p->used_bytes + class_bytes(class_of(w->bytes)) > p->limit_bytes)
            return;
        list_del(&w->link);
        p->serving = true;
        w->fn(w);
        p->serving = false;
    }
}

struct bufpool *bufpool_new(uint64_t limit_bytes)
{
    struct bufpool *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->limit_bytes = limit_bytes;
    list_init(&p->waiters);
    p->wake.fn = wake_waiters;
    return p;
}

static void release_cached(struct bufpool *p, unsigned c)
{
    struct free_buf *b = p->free[c];

    p->free[c] = b->next;
    p->cached_bytes -= class_bytes(c);
    free(b);
}

void bufpool_free(struct bufpool *p)
{
    loop_undefer(&p->wake);
    for (unsigned c = 0; c < NR_CLASSES; c++) {
        while (p->free[c])
            release_cached(p, c);
    }
    free(p);
}

/* Gives cached buffers back, biggest first, until @bytes more fit. */
static bool make_room(struct bufpool *p, size_t bytes)
{
    if (p->used_bytes + bytes > p->limit_bytes)
        return false;
    for (unsigned c = NR_CLASSES; c-- > 0;) {
        while (p->free[c] && p->used_bytes + p->cached_bytes + bytes > p->limit_bytes)
            release_cached(p, c);
    }
    return true;
}

void *bufpool_get(struct bufpool *p, size_t bytes)
{
    unsigned c = class_of(bytes);
    struct free_buf *b = c < NR_CLASSES ? p->free[c] : NULL;

    if (c >= NR_CLASSES || (!list_empty(&p->waiters) && !p->serving))
        return NULL;
    if (b) {
        p->free[c] = b->next;
        p->cached_bytes -= class_bytes(c);
    } else {
        if (!make_room(p, class_bytes(c)))
            return NULL;
        b = aligned_alloc(4096, class_bytes(c));
        if (!b)
            return NULL;
    }
    p->used_bytes += class_bytes(c);
    return b;
}

void bufpool_put(struct bufpool *p, void *buf, size_t bytes)
{
    unsigned c = class_of(bytes);
    struct free_buf *b = buf;

    if (!buf)
        return;
    p->used_bytes -= class_bytes(c);
    b->next = p->free[c];
    p->free[c] = b;
    p->cached_bytes += class_bytes(c);
    if (!list_empty(&p->waiters))
        loop_defer(&p->wake, LOOP_NOW);
}

void bufpool_wait(struct bufpool *p, struct buf_waiter *w)
{
    list_add_tail(&p->waiters, &w->link);
    loop_defer(&p->wake, LOOP_NOW);
}

void bufpool_unwait(struct buf_waiter *w)
{
    if (list_is_linked(&w->link))
        list_del(&w->link);
}

uint64_t bufpool_used_bytes(const struct bufpool *p)
{
    return p->used_bytes;
}

struct bufpool *bufpool_main(void)
{
    static struct bufpool *main_pool;

    if (!main_pool)
        main_pool = bufpool_new(64u << 20);
    return main_pool;
}
