/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data buffers: a buddy allocator over one mapping, with free buffers of each size kept as they are
 * until another size is in want. One mapping, so that the kernel can be told of it once.
 *
 * Large buffers can be held for long, by whoever reads slowly. So the pool's last part is for small
 * ones, and while large ones are waited for small ones get no more than that: neither starves.
 *
 * Invariant: a free block is on the list of its class and its first page says so; both halves of a
 * block are never free in the buddy lists at the same time. Pages never asked for cost no memory.
 */
#include "util/bufpool.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "util/loop.h"
#include "util/size.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define MIN_SHIFT  12
#define NR_CLASSES 9 /* 4 KiB .. 1 MiB */
#define NO_PAGE    UINT32_MAX

#define SMALL_CLASSES     5 /* up to 64 KiB */
#define RESERVE_MIN_BYTES (32u << 20)

enum { SMALL, LARGE, NR_KINDS };

/* Of a block's first page. @next, @prev: pages; in a list of the buddies or of cached buffers. */
struct page {
    uint32_t next, prev;
    int8_t free_class; /* -1: not free in the buddy lists */
};

struct bufpool {
    uint8_t *arena;
    uint64_t arena_bytes, limit_bytes;
    uint64_t reserve_bytes; /* for small ones; 0: a pool too small to divide */
    uint64_t used_bytes[NR_KINDS];
    struct page *pages;
    uint32_t buddies[NR_CLASSES];
    uint32_t cached[NR_CLASSES]; /* by @next only, last in first out */
    struct list_head waiters[NR_KINDS];
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

static unsigned kind_of(unsigned c)
{
    return c < SMALL_CLASSES ? SMALL : LARGE;
}

/* ---- buddies ----------------------------------------------------------------------------- */

static void buddy_push(struct bufpool *p, uint32_t page, unsigned c)
{
    struct page *pg = &p->pages[page];

    *pg = (struct page){.next = p->buddies[c], .prev = NO_PAGE, .free_class = (int8_t)c};
    if (pg->next != NO_PAGE)
        p->pages[pg->next].prev = page;
    p->buddies[c] = page;
}

static void buddy_remove(struct bufpool *p, uint32_t page)
{
    struct page *pg = &p->pages[page];

    if (pg->prev != NO_PAGE)
        p->pages[pg->prev].next = pg->next;
    else
        p->buddies[pg->free_class] = pg->next;
    if (pg->next != NO_PAGE)
        p->pages[pg->next].prev = pg->prev;
    pg->free_class = -1;
}

static uint32_t buddy_take(struct bufpool *p, unsigned c)
{
    unsigned from = c;
    uint32_t page;

    while (from < NR_CLASSES && p->buddies[from] == NO_PAGE)
        from++;
    if (from == NR_CLASSES)
        return NO_PAGE;
    page = p->buddies[from];
    buddy_remove(p, page);
    while (from-- > c)
        buddy_push(p, page + (UINT32_C(1) << from), from);
    return page;
}

static void buddy_give(struct bufpool *p, uint32_t page, unsigned c)
{
    for (; c + 1 < NR_CLASSES; c++) {
        uint32_t other = page ^ (UINT32_C(1) << c);

        if (p->pages[other].free_class != (int8_t)c)
            break;
        buddy_remove(p, other);
        page = MIN_OF(page, other);
    }
    buddy_push(p, page, c);
}

/* ---- buffers ------------------------------------------------------------------------------- */

static void uncache_all(struct bufpool *p)
{
    for (unsigned c = 0; c < NR_CLASSES; c++) {
        while (p->cached[c] != NO_PAGE) {
            uint32_t page = p->cached[c];

            p->cached[c] = p->pages[page].next;
            buddy_give(p, page, c);
        }
    }
}

static bool in_bounds(const struct bufpool *p, unsigned c)
{
    uint64_t bytes = class_bytes(c);

    if (bufpool_used_bytes(p) + bytes > p->limit_bytes)
        return false;
    if (!p->reserve_bytes)
        return true;
    if (kind_of(c) == LARGE)
        return p->used_bytes[LARGE] + bytes <= p->limit_bytes - p->reserve_bytes;
    return list_empty(&p->waiters[LARGE]) || p->used_bytes[SMALL] + bytes <= p->reserve_bytes;
}

static void *take(struct bufpool *p, unsigned c)
{
    uint32_t page = p->cached[c];
    void *buf;

    if (!in_bounds(p, c))
        return NULL;
    if (page != NO_PAGE) {
        p->cached[c] = p->pages[page].next;
    } else {
        page = buddy_take(p, c);
        if (page == NO_PAGE) {
            uncache_all(p);
            page = buddy_take(p, c);
        }
        if (page == NO_PAGE)
            return NULL;
    }
    p->used_bytes[kind_of(c)] += class_bytes(c);
    buf = p->arena + ((size_t)page << MIN_SHIFT);
    UNPOISON(buf, class_bytes(c));
    return buf;
}

static void give(struct bufpool *p, void *buf, unsigned c)
{
    uint32_t page = (uint32_t)(((uint8_t *)buf - p->arena) >> MIN_SHIFT);

    assert((uint64_t)page << MIN_SHIFT < p->arena_bytes);
    POISON(buf, class_bytes(c));
    p->used_bytes[kind_of(c)] -= class_bytes(c);
    p->pages[page].next = p->cached[c];
    p->cached[c] = page;
}

/* Whose turn @c's kind is: in a pool that isn't divided all wait in one line. */
static struct list_head *line_of(struct bufpool *p, unsigned c)
{
    return &p->waiters[p->reserve_bytes ? kind_of(c) : SMALL];
}

/* In order. A waiter is called only when what it wants is there, in one piece. */
static void serve(struct bufpool *p, struct list_head *line)
{
    while (!list_empty(line)) {
        struct buf_waiter *w = list_first_entry(line, struct buf_waiter, link);
        unsigned c = class_of(w->bytes);
        void *buf = take(p, c);

        if (!buf)
            return;
        give(p, buf, c);
        list_del(&w->link);
        p->serving = true;
        w->fn(w);
        p->serving = false;
    }
}

static void wake_waiters(struct deferred *d)
{
    struct bufpool *p = container_of(d, struct bufpool, wake);

    serve(p, &p->waiters[LARGE]);
    serve(p, &p->waiters[SMALL]);
}

void *bufpool_get(struct bufpool *p, size_t bytes)
{
    unsigned c = class_of(bytes);

    if (c >= NR_CLASSES || (!p->serving && !list_empty(line_of(p, c))))
        return NULL;
    return take(p, c);
}

void bufpool_put(struct bufpool *p, void *buf, size_t bytes)
{
    if (!buf)
        return;
    give(p, buf, class_of(bytes));
    if (!list_empty(&p->waiters[SMALL]) || !list_empty(&p->waiters[LARGE]))
        loop_defer(&p->wake, LOOP_NOW);
}

void bufpool_wait(struct bufpool *p, struct buf_waiter *w)
{
    list_add_tail(line_of(p, class_of(w->bytes)), &w->link);
    loop_defer(&p->wake, LOOP_NOW);
}

void bufpool_unwait(struct buf_waiter *w)
{
    if (list_is_linked(&w->link))
        list_del(&w->link);
}

/* ---- pools --------------------------------------------------------------------------------- */

struct bufpool *bufpool_new(uint64_t limit_bytes)
{
    struct bufpool *p = calloc(1, sizeof(*p));
    uint64_t block = class_bytes(NR_CLASSES - 1);
    uint32_t nr_pages;

    if (!p)
        return NULL;
    p->limit_bytes = limit_bytes;
    p->reserve_bytes = limit_bytes >= RESERVE_MIN_BYTES ? limit_bytes / 8 : 0;
    p->arena_bytes = round_up_pow2(MAX_OF(limit_bytes, 1), block);
    nr_pages = (uint32_t)(p->arena_bytes >> MIN_SHIFT);
    p->pages = malloc(nr_pages * sizeof(*p->pages));
    p->arena =
        mmap(NULL, p->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!p->pages || p->arena == MAP_FAILED) {
        free(p->pages);
        if (p->arena != MAP_FAILED)
            munmap(p->arena, p->arena_bytes);
        free(p);
        return NULL;
    }
    for (uint32_t i = 0; i < nr_pages; i++)
        p->pages[i] = (struct page){NO_PAGE, NO_PAGE, -1};
    for (unsigned c = 0; c < NR_CLASSES; c++)
        p->buddies[c] = p->cached[c] = NO_PAGE;
    for (uint32_t i = nr_pages; i; i -= UINT32_C(1) << (NR_CLASSES - 1))
        buddy_push(p, i - (UINT32_C(1) << (NR_CLASSES - 1)), NR_CLASSES - 1);
    POISON(p->arena, p->arena_bytes);
    list_init(&p->waiters[SMALL]);
    list_init(&p->waiters[LARGE]);
    p->wake.fn = wake_waiters;
    return p;
}

void bufpool_free(struct bufpool *p)
{
    loop_undefer(&p->wake);
    UNPOISON(p->arena, p->arena_bytes);
    munmap(p->arena, p->arena_bytes);
    free(p->pages);
    free(p);
}

uint64_t bufpool_used_bytes(const struct bufpool *p)
{
    return p->used_bytes[SMALL] + p->used_bytes[LARGE];
}

struct iovec bufpool_arena(const struct bufpool *p)
{
    return (struct iovec){p->arena, p->arena_bytes};
}

struct bufpool *bufpool_main(void)
{
    static struct bufpool *main_pool;

    if (!main_pool)
        main_pool = bufpool_new(BUFPOOL_MAIN_BYTES);
    return main_pool;
}
