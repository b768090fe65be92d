/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file node against a model in memory, with O_DIRECT and through the page cache: any range,
 * any buffer, writers that share blocks, growth, odd sizes, holes, locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lun-backends/file.h"
#include "lun-backends/formats.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(4);
    blk_init();
}

static const char *path_of(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/%s", ctest_tmpdir(), name);
    return path;
}

static void make_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "w");

    if (f) {
        fwrite(data, 1, bytes, f);
        fclose(f);
    }
}

static uint64_t real_size(const char *path)
{
    struct stat st;

    return stat(path, &st) ? UINT64_MAX : (uint64_t)st.st_size;
}

/* Each test is a coroutine with the two ways of caching. */
struct test {
    void (*fn)(struct test *t);
    enum file_cache cache;
    bool done;
    struct error err;
};

static void co_test(void *arg)
{
    struct test *t = arg;

    t->fn(t);
    t->done = true;
}

static void run_one(void (*fn)(struct test *), enum file_cache cache)
{
    struct test t = {.fn = fn, .cache = cache};

    co_spawn(co_test, &t);
    while (!t.done || blk_closing())
        loop_turn(true);
}

static void run_both(void (*fn)(struct test *))
{
    run_one(fn, FILE_CACHE_NONE);
    run_one(fn, FILE_CACHE_WRITEBACK);
}

static struct blk_node *co_open(struct test *t, const char *path, bool writable, bool create)
{
    struct file_opts o = {.writable = writable, .create = create, .cache = t->cache};
    struct blk_node *node = NULL;

    co_file_open(path, &o, &node, &t->err);
    return node;
}

static struct blk_node *co_create(struct test *t, const char *name)
{
    struct blk_node *node;

    unlink(path_of(name));
    node = co_open(t, path_of(name), true, true);
    if (!node)
        ctest_fail(__FILE__, __LINE__, "%s", t->err.msg);
    return node;
}

/* ---- random I/O by many writers whose bytes interleave within blocks ---------------------- */

#define MODEL_BYTES  (1u << 20)
#define STRIPE_BYTES 700u
#define NR_WRITERS   24
#define NR_STRIPES   (MODEL_BYTES / STRIPE_BYTES)

struct storm {
    struct blk_node *node;
    uint8_t model[MODEL_BYTES];
    unsigned running, rounds, seed;
};

struct writer {
    struct storm *s;
    unsigned id, seed;
};

static void co_step(struct writer *w, uint8_t *mem)
{
    unsigned stripe = (unsigned)rand_r(&w->seed) % (NR_STRIPES / NR_WRITERS) * NR_WRITERS + w->id;
    unsigned from = (unsigned)rand_r(&w->seed) % STRIPE_BYTES;
    unsigned n = 1 + (unsigned)rand_r(&w->seed) % (STRIPE_BYTES - from);
    uint64_t at = (uint64_t)stripe * STRIPE_BYTES + from;
    uint8_t *buf = mem + (unsigned)rand_r(&w->seed) % 64, *model = w->s->model + at;
    int kind = rand_r(&w->seed) % 8;

    if (kind < 4) {
        memset(buf, rand_r(&w->seed), n);
        memcpy(model, buf, n);
        CHECK_EQ(co_blk_write(w->s->node, at, buf, n, kind == 0 ? BLK_FUA : 0), 0);
    } else if (kind == 4) {
        memset(model, 0, n);
        CHECK_EQ(co_blk_write_zeroes(w->s->node, at, n, kind & 1 ? BLK_MAY_UNMAP : 0), 0);
    } else {
        CHECK_EQ(co_blk_read(w->s->node, at, buf, n, 0), 0);
        CHECK_EQ(memcmp(buf, model, n), 0);
    }
}

static void co_writer(void *arg)
{
    struct writer *w = arg;
    uint8_t mem[STRIPE_BYTES + 64];

    for (unsigned i = 0; i < w->s->rounds; i++)
        co_step(w, mem);
    w->s->running--;
}

static void co_check_all(struct storm *s)
{
    uint8_t *all = malloc(MODEL_BYTES + 1);

    CHECK_EQ(co_blk_read(s->node, 0, all + 1, MODEL_BYTES, 0), 0);
    CHECK_EQ(memcmp(all + 1, s->model, MODEL_BYTES), 0);
    free(all);
}

static void co_storm(struct test *t)
{
    struct storm *s = calloc(1, sizeof(*s));
    struct writer writers[NR_WRITERS];

    s->node = co_create(t, "storm");
    s->rounds = 60;
    s->seed = (unsigned)getpid();
    s->running = NR_WRITERS;
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        writers[i] = (struct writer){s, i, s->seed + i};
        co_spawn(co_writer, &writers[i]);
    }
    while (s->running)
        co_sleep(1000000);
    co_check_all(s);
    co_blk_node_unref(s->node);
    s->node = co_open(t, path_of("storm"), false, false);
    co_check_all(s);
    co_blk_node_unref(s->node);
    free(s);
}

TEST(file, interleaved_writers_keep_each_others_bytes)
{
    printf("seed %d\n", (int)getpid());
    run_both(co_storm);
}

/* ---- writes of one turn ------------------------------------------------------------------- */

#define NR_AT_ONCE 700

struct at_once {
    struct blk_req req;
    struct iovec iov;
    uint32_t *left;
};

static void one_done(struct blk_req *req)
{
    struct at_once *w = container_of(req, struct at_once, req);

    CHECK_EQ(req->result, 0);
    --*w->left;
}

/* Small ones by the hundred, every fiftieth a large one: more than goes to a thread in one go. */
static void co_at_once(struct test *t)
{
    struct blk_node *n = co_create(t, "at-once");
    struct at_once *w = calloc(NR_AT_ONCE, sizeof(*w));
    uint8_t *data = aligned_alloc(4096, 1 << 20), *out = aligned_alloc(4096, 1 << 20);
    uint32_t left = NR_AT_ONCE;
    uint64_t at = 0;

    for (uint32_t i = 0; i < 1 << 20; i++)
        data[i] = (uint8_t)(i * 13 + i / 4096);
    for (uint32_t i = 0; i < NR_AT_ONCE; i++) {
        uint32_t bytes = i % 50 == 49 ? 1u << 20 : 4096;

        w[i].iov = (struct iovec){data + (bytes == 4096 ? i % 256 * 4096 : 0), bytes};
        w[i].left = &left;
        w[i].req = (struct blk_req){.verb = BLK_WRITE,
                                    .offset_bytes = at,
                                    .length_bytes = bytes,
                                    .iov = &w[i].iov,
                                    .niov = 1,
                                    .done = one_done};
        at += bytes;
        blk_submit(n, &w[i].req);
    }
    CHECK_EQ(co_blk_flush(n), 0);
    while (left)
        co_pause();
    at = 0;
    for (uint32_t i = 0; i < NR_AT_ONCE; i++) {
        CHECK_EQ(co_blk_read(n, at, out, w[i].iov.iov_len, 0), 0);
        CHECK_EQ(memcmp(out, w[i].iov.iov_base, w[i].iov.iov_len), 0);
        at += w[i].iov.iov_len;
    }
    free(w);
    free(data);
    free(out);
    co_blk_node_unref(n);
}

TEST(file, hundreds_of_writes_in_one_turn)
{
    run_both(co_at_once);
}

/* ---- shapes of buffers ----------------------------------------------------------------------- */

static void co_odd_buffers(struct test *t)
{
    struct blk_node *n = co_create(t, "buffers");
    uint8_t *in = malloc(1 << 20), *out = calloc(1, 1 << 20);
    struct iovec many[2048];

    for (int i = 0; i < 1 << 20; i++)
        in[i] = (uint8_t)(i * 7 + i / 4096);
    for (int i = 0; i < 2048; i++)
        many[i] = (struct iovec){in + i * 512, 512};
    CHECK_EQ(co_blk_rw(n, BLK_WRITE, 0, many, 2048, 0), 0);
    for (int i = 0; i < 2048; i++)
        many[i].iov_base = out + i * 512;
    CHECK_EQ(co_blk_rw(n, BLK_READ, 0, many, 2048, 0), 0);
    CHECK_EQ(memcmp(in, out, 1 << 20), 0);
    CHECK_EQ(co_blk_write(n, 3 << 20, in + 3, (1 << 20) - 512, 0), 0);
    CHECK_EQ(co_blk_read(n, 3 << 20, out, (1 << 20) - 512, 0), 0);
    CHECK_EQ(memcmp(in + 3, out, (1 << 20) - 512), 0);
    free(in);
    free(out);
    co_blk_node_unref(n);
}

TEST(file, many_small_and_unaligned_buffers)
{
    run_both(co_odd_buffers);
}

/* ---- ends
 * ---------------------------------------------------------------------------------------- */

static void co_growth(struct test *t)
{
    struct blk_node *n = co_create(t, "growth");
    char buf[1000];

    memset(buf, 'g', sizeof(buf));
    CHECK_EQ(n->size_bytes, 0);
    CHECK_EQ(co_blk_write(n, 5000, buf, sizeof(buf), 0), 0);
    CHECK_EQ(file_node_length(n), 6000);
    CHECK(real_size(path_of("growth")) >= 6000);
    CHECK_EQ(co_blk_read(n, 5900, buf, sizeof(buf), 0), 0);
    CHECK(buf[0] == 'g' && buf[99] == 'g' && buf[100] == 0 && buf[999] == 0);
    memset(buf, 1, sizeof(buf));
    CHECK_EQ(co_blk_read(n, 1ull << 50, buf, sizeof(buf), 0), 0);
    CHECK(buf_is_zero(buf, sizeof(buf)));
    CHECK_EQ(n->drv->co_inactivate(n), 0);
    CHECK_EQ(real_size(path_of("growth")), 6000);
    CHECK_EQ(co_blk_write_zeroes(n, 5500, 2500, 0), 0);
    CHECK_EQ(file_node_length(n), 8000);
    CHECK_EQ(co_blk_write(n, 1ull << 63, buf, 512, 0), -EINVAL);
    co_blk_node_unref(n);
    CHECK_EQ(real_size(path_of("growth")), 8000);
}

TEST(file, grows_ahead_and_is_cut_to_its_logical_end)
{
    run_both(co_growth);
}

static void co_far_write(struct test *t)
{
    struct blk_node *n = co_create(t, "far");
    char buf[512];
    uint64_t used;

    memset(buf, 'f', sizeof(buf));
    CHECK_EQ(co_blk_write(n, 0, buf, sizeof(buf), 0), 0);
    CHECK_EQ(co_blk_write(n, 1ull << 38, buf, sizeof(buf), 0), 0);
    CHECK_EQ(co_blk_write(n, 1ull << 37, buf, sizeof(buf), 0), 0);
    CHECK_EQ(file_node_length(n), (1ull << 38) + 512);
    CHECK_EQ(co_file_allocated_bytes(n, &used), 0);
    CHECK(used < 16u << 20);
    memset(buf, 0, sizeof(buf));
    CHECK_EQ(co_blk_read(n, 1ull << 38, buf, sizeof(buf), 0), 0);
    CHECK_EQ(buf[511], 'f');
    CHECK_EQ(co_blk_read(n, 1ull << 36, buf, sizeof(buf), 0), 0);
    CHECK(buf_is_zero(buf, sizeof(buf)));
    co_blk_node_unref(n);
    unlink(path_of("far"));
}

TEST(file, far_writes_leave_holes)
{
    run_both(co_far_write);
}

static void co_odd_size(struct test *t)
{
    struct blk_node *file, *raw;
    char data[1300], buf[1536];

    memset(data, 'o', sizeof(data));
    make_file(path_of("odd"), data, sizeof(data));
    file = co_open(t, path_of("odd"), true, false);
    CHECK_EQ(co_raw_open(file, true, &raw, &t->err), 0);
    CHECK_EQ(raw->size_bytes, 1536);
    CHECK_EQ(co_blk_read(raw, 0, buf, 1536, 0), 0);
    CHECK(!memcmp(buf, data, 1300) && buf_is_zero(buf + 1300, 236));
    memset(buf, 'n', sizeof(buf));
    CHECK_EQ(co_blk_write(raw, 1024, buf, 512, BLK_FUA), 0);
    CHECK_EQ(co_blk_write_zeroes(raw, 0, 1536, 0), 0);
    CHECK_EQ(co_blk_write(raw, 512, buf, 1024, 0), 0);
    CHECK_EQ(co_blk_read(raw, 0, buf, 1536, 0), 0);
    CHECK(buf_is_zero(buf, 512) && buf[512] == 'n' && buf[1300] == 'n' && buf[1535] == 'n');
    CHECK_EQ(co_blk_discard(raw, 1024, 512), 0);
    CHECK_EQ(co_blk_flush(raw), 0);
    CHECK_EQ(co_blk_write(raw, 1536, buf, 512, 0), -EINVAL);
    co_blk_node_unref(raw);
    co_blk_node_unref(file);
    CHECK_EQ(real_size(path_of("odd")), 1536);
}

TEST(file, raw_of_odd_size_ends_with_the_last_sector_written)
{
    run_both(co_odd_size);
}

static void co_resize(struct test *t)
{
    struct blk_node *n = co_create(t, "resize");
    struct error err = ERROR_INIT;

    CHECK_EQ(n->drv->co_resize(n, 10 << 20, &err), 0);
    CHECK_EQ(real_size(path_of("resize")), 10 << 20);
    CHECK_EQ(n->drv->co_resize(n, 4097, &err), 0);
    CHECK_EQ(file_node_length(n), 4097);
    co_blk_node_unref(n);
    CHECK_EQ(real_size(path_of("resize")), 4097);
}

TEST(file, resize_both_ways)
{
    run_both(co_resize);
}

/* ---- holes
 * ------------------------------------------------------------------------------------------ */

static void co_status(struct test *t)
{
    struct blk_node *n = co_create(t, "holes");
    struct error err = ERROR_INIT;
    struct blk_extent e;
    char *buf = calloc(1, 65536);

    memset(buf, 'h', 65536);
    CHECK_EQ(n->drv->co_resize(n, 1 << 20, &err), 0);
    CHECK_EQ(co_blk_write(n, 65536, buf, 65536, 0), 0);
    CHECK_EQ(co_blk_write(n, 262144, buf, 65536, 0), 0);
    CHECK_EQ(co_blk_discard(n, 262144, 32768), 0);
    CHECK_EQ(co_blk_flush(n), 0);
    for (int pass = 0; pass < 3; pass++) { /* as writer; as reader, unknown and known */
        if (pass == 1) {
            co_blk_node_unref(n);
            n = co_open(t, path_of("holes"), false, false);
        }
        CHECK_EQ(co_blk_status(n, 0, 1 << 20, &e), 0);
        CHECK(e.state == BLK_ST_ZERO && e.length_bytes == 65536);
        CHECK_EQ(co_blk_status(n, 65536 + 512, 1 << 19, &e), 0);
        CHECK(e.state == BLK_ST_DATA && e.length_bytes == 65536 - 512);
        CHECK_EQ(co_blk_status(n, 131072, 1 << 19, &e), 0);
        CHECK(e.state == BLK_ST_ZERO && e.length_bytes == 131072 + 32768);
        CHECK_EQ(co_blk_status(n, 294912, 512, &e), 0);
        CHECK(e.state == BLK_ST_DATA && e.length_bytes == 512);
        CHECK_EQ(co_blk_status(n, 327680, 1 << 30, &e), 0);
        CHECK(e.state == BLK_ST_ZERO);
        CHECK_EQ(co_blk_status(n, 2 << 20, 4096, &e), 0);
        CHECK(e.state == BLK_ST_ZERO && e.length_bytes == 4096);
    }
    co_blk_node_unref(n);
    free(buf);
}

TEST(file, status_tells_data_from_holes)
{
    run_both(co_status);
}

static void co_punch(struct test *t)
{
    struct blk_node *n = co_create(t, "punch");
    uint64_t before, after;
    char *buf = malloc(1 << 20);

    memset(buf, 'p', 1 << 20);
    CHECK_EQ(co_blk_write(n, 0, buf, 1 << 20, 0), 0);
    CHECK_EQ(n->drv->co_inactivate(n), 0);
    CHECK_EQ(co_file_allocated_bytes(n, &before), 0);
    CHECK_EQ(co_blk_write_zeroes(n, 100, (1 << 20) - 200, BLK_MAY_UNMAP), 0);
    CHECK_EQ(co_file_allocated_bytes(n, &after), 0);
    CHECK(after + (900 << 10) <= before);
    CHECK_EQ(co_blk_read(n, 0, buf, 1 << 20, 0), 0);
    CHECK(buf[99] == 'p' && buf_is_zero(buf + 100, (1 << 20) - 200) && buf[(1 << 20) - 100] == 'p');
    CHECK_EQ(file_node_length(n), 1 << 20);
    co_blk_node_unref(n);
    free(buf);
}

TEST(file, zeroes_that_may_unmap_give_space_back)
{
    run_both(co_punch);
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

static void co_locks(struct test *t)
{
    struct blk_node *writer = co_create(t, "locks"), *other, *reader;
    char path[4096];

    strcpy(path, path_of("locks"));
    CHECK(!co_open(t, path, true, false));
    CHECK_EQ(t->err.errnum, EAGAIN);
    CHECK_EQ(t->err.class, ERR_DEVICE_IN_USE);
    CHECK(!co_open(t, path, false, false));
    co_blk_node_unref(writer);
    reader = co_open(t, path, false, false);
    other = co_open(t, path, false, false);
    CHECK(reader && other);
    CHECK(!co_open(t, path, true, false));
    co_blk_node_unref(reader);
    co_blk_node_unref(other);
    writer = co_open(t, path, true, false);
    CHECK(writer);
    co_blk_node_unref(writer);
}

TEST(file, locks_keep_writers_alone_and_let_readers_share)
{
    run_both(co_locks);
}

static void co_refusals(struct test *t)
{
    CHECK(!co_open(t, path_of("nothing-here"), false, false));
    CHECK_EQ(t->err.errnum, ENOENT);
    CHECK(!co_open(t, ctest_tmpdir(), false, false));
    CHECK(strstr(t->err.msg, "directory"));
    mkfifo(path_of("fifo"), 0600);
    CHECK(!co_open(t, path_of("fifo"), false, false));
    CHECK(!co_open(t, "/dev/null", false, false));
    make_file(path_of("exists"), "x", 1);
    CHECK(!co_open(t, path_of("exists"), true, true));
    CHECK_EQ(t->err.errnum, EEXIST);
    CHECK_EQ(real_size(path_of("exists")), 1);
    unlink(path_of("fifo"));
}

TEST(file, refuses_what_is_not_a_file)
{
    run_both(co_refusals);
}

static void co_read_only(struct test *t)
{
    struct file_identity id;
    struct blk_node *n;
    char c = 0;

    make_file(path_of("ro"), "hello", 5);
    n = co_open(t, path_of("ro"), false, false);
    CHECK_EQ(co_blk_write(n, 0, &c, 1, 0), -EROFS);
    CHECK_EQ(co_blk_flush(n), 0);
    CHECK_EQ(co_blk_read(n, 4, &c, 1, 0), 0);
    CHECK_EQ(c, 'o');
    file_node_identity(n, &id);
    CHECK_EQ(id.size_bytes, 5);
    CHECK(id.inode && id.mtime_ns > 0);
    co_blk_node_unref(n);
}

TEST(file, read_only_is_read_only)
{
    run_both(co_read_only);
}

/* A reader that comes while another one's unaligned reads, which take several steps, are under way.
 */
struct early_read {
    struct blk_node *node;
    uint8_t *buf;
    int result;
    bool done;
};

static void co_early_read(void *arg)
{
    struct early_read *r = arg;

    r->result = co_blk_read(r->node, 1, r->buf, MODEL_BYTES - 1, 0);
    r->done = true;
}

static void co_shared(struct test *t)
{
    uint8_t *want = malloc(MODEL_BYTES), *got = malloc(MODEL_BYTES);
    struct blk_node *first, *second, *writer;
    struct early_read early = {.buf = got};

    for (unsigned i = 0; i < MODEL_BYTES; i++)
        want[i] = (uint8_t)(i * 7 + i / 4096);
    make_file(path_of("shared"), want, MODEL_BYTES);
    early.node = first = co_open(t, path_of("shared"), false, false);
    co_spawn(co_early_read, &early);
    second = co_open(t, path_of("shared"), false, false);
    CHECK(first && second);
    CHECK(!file_node_is_direct(first) && !file_node_is_direct(second));
    while (!early.done)
        co_pause();
    CHECK_EQ(early.result, 0);
    CHECK(!memcmp(got, want + 1, MODEL_BYTES - 1));
    CHECK_EQ(co_blk_read(first, 4097, got, 100000, 0), 0);
    CHECK(!memcmp(got, want + 4097, 100000));
    co_blk_node_unref(first);
    co_blk_node_unref(second);
    writer = co_open(t, path_of("shared"), true, false);
    CHECK(writer && file_node_is_direct(writer) == (t->cache == FILE_CACHE_NONE));
    co_blk_node_unref(writer);
    free(want);
    free(got);
}

TEST(file, what_several_read_goes_through_the_page_cache)
{
    run_both(co_shared);
}

TEST(file, engines_can_be_chosen)
{
    struct error err = ERROR_INIT;

    CHECK_EQ(aio_select_engine("no-such", &err), -EINVAL);
    CHECK_EQ(aio_select_engine("threads", &err), 0);
    CHECK_STR(aio_engine_name(), "threads");
    run_one(co_storm, FILE_CACHE_NONE);
    CHECK_EQ(aio_select_engine("libaio", &err), 0);
    CHECK_STR(aio_engine_name(), "libaio");
    CHECK_EQ(aio_select_engine("auto", &err), 0);
    CHECK_STR(aio_engine_name(), "libaio");
    run_one(co_storm, FILE_CACHE_NONE);
}
