/* SPDX-License-Identifier: BSD-3-Clause */
/* What util/ promises: loop order, coroutines, helper threads, buffers, sizes, bitmaps, errors. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/ctest.h"
#include "util/bitmap.h"
#include "util/bufpool.h"
#include "util/byteorder.h"
#include "util/coroutine.h"
#include "util/error.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/uuid.h"
#include "util/workers.h"

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(4);
}

static char trace[64];

static void note(const char *what)
{
    strncat(trace, what, sizeof(trace) - strlen(trace) - 1);
}

static void note_now(struct deferred *d)
{
    (void)d;
    note("n");
}

static void note_end(struct deferred *d)
{
    (void)d;
    note("e");
}

TEST(loop, now_before_end_and_once)
{
    struct deferred n = {.fn = note_now}, e = {.fn = note_end};

    trace[0] = 0;
    loop_defer(&e, LOOP_END);
    loop_defer(&n, LOOP_NOW);
    loop_defer(&n, LOOP_NOW);
    loop_turn(false);
    CHECK_STR(trace, "ne");
}

static struct deferred next;

static void queue_next(struct deferred *d)
{
    (void)d;
    note("q");
    loop_defer(&next, LOOP_NEXT);
}

TEST(loop, next_waits_for_another_turn)
{
    struct deferred n = {.fn = queue_next};
    uint64_t turn = loop_nr_turns();

    trace[0] = 0;
    next.fn = note_now;
    loop_defer(&n, LOOP_NOW);
    loop_turn(false);
    CHECK_STR(trace, "q");
    CHECK_EQ(loop_nr_turns(), turn + 1);
    loop_turn(true); /* does not sleep */
    CHECK_STR(trace, "qn");
    CHECK_EQ(loop_nr_turns(), turn + 2);
}

TEST(loop, undefer_takes_it_back)
{
    struct deferred n = {.fn = note_now};

    trace[0] = 0;
    loop_defer(&n, LOOP_NOW);
    loop_undefer(&n);
    loop_turn(false);
    CHECK_STR(trace, "");
}

static struct coroutine *waiting;

static void co_two_steps(void *arg)
{
    note(arg);
    waiting = co_self();
    co_yield ();
    note(arg);
}

TEST(coroutine, yields_and_goes_on)
{
    trace[0] = 0;
    co_spawn(co_two_steps, "a");
    CHECK_STR(trace, "a");
    CHECK(co_self() == NULL);
    co_enter(waiting);
    CHECK_STR(trace, "aa");
}

TEST(coroutine, wake_is_later_this_turn)
{
    trace[0] = 0;
    co_spawn(co_two_steps, "b");
    co_wake(waiting);
    CHECK_STR(trace, "b");
    loop_turn(false);
    CHECK_STR(trace, "bb");
}

static void co_nested(void *arg)
{
    (void)arg;
    note("(");
    co_spawn(co_two_steps, "c");
    note(")");
    co_enter(waiting);
}

TEST(coroutine, nests)
{
    trace[0] = 0;
    co_spawn(co_nested, NULL);
    CHECK_STR(trace, "(c)c");
}

static int nr_done;

static void co_deep(void *arg)
{
    volatile char big[100 * 1024];

    memset((char *)big, (int)(intptr_t)arg, sizeof(big));
    co_pause();
    if (big[0] == (char)(intptr_t)arg && big[sizeof(big) - 1] == (char)(intptr_t)arg)
        nr_done++;
}

TEST(coroutine, a_thousand_keep_their_stacks_apart)
{
    nr_done = 0;
    for (int i = 0; i < 1000; i++)
        co_spawn(co_deep, (void *)(intptr_t)i);
    for (int i = 0; i < 100 && nr_done < 1000; i++)
        loop_turn(true);
    CHECK_EQ(nr_done, 1000);
}

static struct co_mutex mutex;

static void co_lock(void *arg)
{
    co_mutex_lock(&mutex);
    note(arg);
    co_pause();
    note(arg);
    co_mutex_unlock(&mutex);
}

TEST(coroutine, mutex_is_exclusive_and_fair)
{
    trace[0] = 0;
    co_mutex_init(&mutex);
    co_spawn(co_lock, "x");
    co_spawn(co_lock, "y");
    co_spawn(co_lock, "z");
    for (int i = 0; i < 100 && strlen(trace) < 6; i++)
        loop_turn(true);
    CHECK_STR(trace, "xxyyzz");
    CHECK(!mutex.locked);
}

static int slow_square(void *arg)
{
    usleep(1000);
    return *(int *)arg * *(int *)arg;
}

static void co_thread(void *arg)
{
    int v = (int)(intptr_t)arg;

    if (co_work(slow_square, &v) == v * v)
        nr_done++;
}

TEST(workers, many_at_once_all_come_back)
{
    nr_done = 0;
    for (int i = 0; i < 50; i++)
        co_spawn(co_thread, (void *)(intptr_t)i);
    for (int i = 0; i < 1000 && nr_done < 50; i++)
        loop_turn(true);
    CHECK_EQ(nr_done, 50);
}

TEST(bufpool, never_over_its_bound)
{
    struct bufpool *p = bufpool_new(3 << 20);
    void *a = bufpool_get(p, 1 << 20), *b = bufpool_get(p, 1 << 20), *c = bufpool_get(p, 600000);

    CHECK(a && b && c);
    CHECK(!bufpool_get(p, 1));
    CHECK_EQ((uintptr_t)c % 4096, 0);
    bufpool_put(p, a, 1 << 20);
    /* The cached megabyte makes room for small ones. */
    void *d = bufpool_get(p, 4096);
    CHECK(d);
    CHECK_EQ(bufpool_used_bytes(p), (2 << 20) + 4096);
    bufpool_put(p, b, 1 << 20);
    bufpool_put(p, c, 600000);
    bufpool_put(p, d, 4096);
    CHECK_EQ(bufpool_used_bytes(p), 0);
    bufpool_free(p);
}

TEST(bufpool, small_buffers_come_together_again)
{
    static void *buf[512];
    struct bufpool *p = bufpool_new(2 << 20);

    for (int i = 0; i < 512; i++)
        CHECK((buf[i] = bufpool_get(p, 4096)));
    for (int i = 0; i < 512; i++) /* neighbours at very different times */
        bufpool_put(p, buf[(i * 37) % 512], 4096);
    buf[0] = bufpool_get(p, 1 << 20);
    buf[1] = bufpool_get(p, 1 << 20);
    CHECK(buf[0] && buf[1] && buf[0] != buf[1]);
    bufpool_put(p, buf[0], 1 << 20);
    bufpool_put(p, buf[1], 1 << 20);
    bufpool_free(p);
}

TEST(bufpool, random_sizes_never_overlap)
{
    static struct {
        uint8_t *p;
        size_t bytes;
    } held[64];
    struct bufpool *p = bufpool_new(8 << 20);
    struct iovec arena = bufpool_arena(p);
    unsigned seed = 5;

    for (int turn = 0; turn < 20000; turn++) {
        unsigned i = (unsigned)rand_r(&seed) % 64;

        if (held[i].p) {
            for (size_t at = 0; at < held[i].bytes; at += 4096)
                REQUIRE(held[i].p[at] == i);
            bufpool_put(p, held[i].p, held[i].bytes);
            held[i].p = NULL;
            continue;
        }
        held[i].bytes = 1 + (size_t)rand_r(&seed) % (4096u << rand_r(&seed) % 9);
        held[i].p = bufpool_get(p, held[i].bytes);
        if (!held[i].p)
            continue;
        CHECK_EQ((uintptr_t)held[i].p % 4096, 0);
        CHECK(held[i].p >= (uint8_t *)arena.iov_base &&
              held[i].p + held[i].bytes <= (uint8_t *)arena.iov_base + arena.iov_len);
        memset(held[i].p, (int)i, held[i].bytes);
    }
    for (unsigned i = 0; i < 64; i++) {
        bufpool_put(p, held[i].p, held[i].bytes);
        held[i].p = NULL;
    }
    CHECK_EQ(bufpool_used_bytes(p), 0);
    bufpool_free(p);
}

static struct bufpool *small_pool;
static void *got[2];

static void take_big(struct buf_waiter *w)
{
    (void)w;
    got[0] = bufpool_get(small_pool, 1 << 20);
    note("1");
}

static void take_small(struct buf_waiter *w)
{
    (void)w;
    got[1] = bufpool_get(small_pool, 4096);
    note("2");
}

TEST(bufpool, waiters_are_served_in_order)
{
    struct buf_waiter big = {.bytes = 1 << 20, .fn = take_big}, small = {.fn = take_small};

    trace[0] = 0;
    small_pool = bufpool_new((1 << 20) + 4096);
    void *a = bufpool_get(small_pool, 4096), *b = bufpool_get(small_pool, 4096);
    bufpool_wait(small_pool, &big);
    bufpool_wait(small_pool, &small);
    loop_turn(false);
    CHECK_STR(trace, "");                  /* the big one can't yet, the small one waits its turn */
    CHECK(!bufpool_get(small_pool, 4096)); /* newcomers don't overtake */
    bufpool_put(small_pool, a, 4096);
    loop_turn(false);
    CHECK_STR(trace, "1");
    bufpool_put(small_pool, b, 4096);
    loop_turn(false);
    CHECK_STR(trace, "12");
    CHECK(got[0] && got[1]);
    bufpool_put(small_pool, got[0], 1 << 20);
    bufpool_put(small_pool, got[1], 4096);
    bufpool_free(small_pool);
}

static unsigned nr_large;
static void *large[64];

static void got_large(struct buf_waiter *w)
{
    large[nr_large++] = bufpool_get(small_pool, w->bytes);
}

TEST(bufpool, neither_large_nor_small_buffers_starve)
{
    struct buf_waiter w = {.bytes = 1 << 20, .fn = got_large};
    void *held[128] = {NULL};
    unsigned n = 0;

    small_pool = bufpool_new(32 << 20);
    nr_large = 0;
    while ((held[n] = bufpool_get(small_pool, 1 << 20)))
        n++;
    CHECK_EQ(n, 28);
    bufpool_wait(small_pool, &w);
    loop_turn(false);
    CHECK_EQ(nr_large, 0);
    /* the rest is for small ones, and large ones given back are not */
    for (n = 28; (held[n] = bufpool_get(small_pool, 64 << 10)); n++)
        ;
    CHECK_EQ(n, 28 + 64);
    bufpool_put(small_pool, held[0], 1 << 20);
    CHECK(!bufpool_get(small_pool, 4096));
    loop_turn(false);
    CHECK_EQ(nr_large, 1);
    CHECK(large[0]);
    held[0] = large[0];
    for (unsigned i = 0; i < n; i++)
        bufpool_put(small_pool, held[i], i < 28 ? 1 << 20 : 64 << 10);
    CHECK_EQ(bufpool_used_bytes(small_pool), 0);
    bufpool_free(small_pool);
}

TEST(size, reads_what_qemu_img_reads)
{
    static const struct {
        const char *text;
        int ret;
        uint64_t bytes;
    } rows[] = {
        {"0", 0, 0},           {"4096", 0, 4096},
        {"64k", 0, 65536},     {"64K", 0, 65536},
        {"1.5G", 0, 3u << 29}, {"10T", 0, UINT64_C(10) << 40},
        {"512b", 0, 512},      {"", -EINVAL, 0},
        {"-1", -EINVAL, 0},    {"1KK", -EINVAL, 0},
        {"1Q", -EINVAL, 0},    {"1.", -EINVAL, 0},
        {"0x1f", 0, 31},       {"0X8000000", 0, 134217728},
        {"0x", -EINVAL, 0},    {"0x1k", -EINVAL, 0},
        {"0x1.5", -EINVAL, 0}, {"0x8000000000000000", -ERANGE, 0},
        {"8E", -ERANGE, 0},    {"99999999999999999999", -ERANGE, 0},
    };

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t bytes = 0;

        CHECK_EQ(size_parse(rows[i].text, &bytes), rows[i].ret);
        CHECK_EQ(bytes, rows[i].bytes);
    }
}

TEST(bitmap, finds_the_next_bit_across_words)
{
    uint64_t map[3] = {0};

    bitmap_set(map, 0);
    bitmap_set(map, 63);
    bitmap_set(map, 129);
    CHECK_EQ(bitmap_next_set(map, 140, 1), 63);
    CHECK_EQ(bitmap_next_set(map, 140, 64), 129);
    CHECK_EQ(bitmap_next_set(map, 129, 64), 129);
    CHECK_EQ(bitmap_next_set(map, 140, 130), 140);
    CHECK_EQ(bitmap_next_clear(map, 140, 0), 1);
    CHECK_EQ(bitmap_count(map, 140), 3);
    CHECK_EQ(bitmap_count(map, 129), 2);
}

TEST(error, is_one_line_with_its_prefix)
{
    struct error err = ERROR_INIT;

    CHECK_EQ(error_set_class(&err, ERR_DEVICE_IN_USE, EBUSY, "a\nb"), -EBUSY);
    CHECK_EQ(error_prefix(&err, "chain %s", "x"), -EBUSY);
    CHECK_STR(err.msg, "chain x: a b");
    CHECK_STR(error_class_name(err.class), "DeviceInUse");
}

TEST(uuid, derived_is_the_same_every_time)
{
    struct uuid ns, a, b;
    char text[UUID_STRLEN];

    CHECK(uuid_from_text(&ns, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
    uuid_derive(&a, &ns, "www.example.com");
    uuid_to_text(&a, text);
    CHECK_STR(text, "2ed6657d-e927-568b-95e1-2665a8aea6a2"); /* RFC 9562 A.4's kind of vector */
    uuid_derive(&b, &ns, "www.example.org");
    CHECK(!uuid_equal(&a, &b));
    CHECK(!uuid_from_text(&a, "no"));
}
