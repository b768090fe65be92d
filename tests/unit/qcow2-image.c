/* SPDX-License-Identifier: BSD-3-Clause */
/* Images, a model and random work for the qcow2 tests: see qcow2-image.h. */
#include "tests/unit/qcow2-image.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

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

unsigned test_seed(void)
{
    const char *s = getenv("QCOW2_TEST_SEED");

    return s ? (unsigned)strtoul(s, NULL, 0) : 1;
}

int sh(const char *fmt, ...)
{
    char cmd[2048], line[4096];
    va_list ap;
    int ret;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof(cmd), fmt, ap);
    va_end(ap);
    snprintf(line, sizeof(line), "cd '%s' && { %s ; } >>log 2>&1", ctest_tmpdir(), cmd);
    ret = system(line);
    return WIFEXITED(ret) ? WEXITSTATUS(ret) : -1;
}

bool have_qemu_img(void)
{
    if (!sh("qemu-img --version"))
        return true;
    ctest_skip("needs qemu-img");
    return false;
}

const char *path_of(const char *name)
{
    static char path[2][4096];
    static int turn;

    turn ^= 1;
    snprintf(path[turn], sizeof(path[0]), "%s/%s", ctest_tmpdir(), name);
    return path[turn];
}

void fill_random(uint8_t *buf, size_t bytes, unsigned *rnd)
{
    for (size_t i = 0; i < bytes; i += 512) {
        int v = rand_r(rnd);

        memset(buf + i, v, 512);
        memcpy(buf + i, &v, sizeof(v));
    }
}

void save(const char *name, const uint8_t *data, size_t bytes)
{
    FILE *f = fopen(path_of(name), "w");

    if (f) {
        CHECK_EQ(fwrite(data, 1, bytes, f), bytes);
        fclose(f);
    }
}

/* ---- one image and its model ------------------------------------------------------------ */

/* The kernel may let go of the locks of a process that has ended a little after its end was told.
 */
static int co_open_file(const char *name, const struct file_opts *fo, struct blk_node **file,
                        struct error *err)
{
    int ret = co_file_open(path_of(name), fo, file, err);

    for (int tries = 0; ret == -EAGAIN && tries < 100; tries++) {
        co_sleep(UINT64_C(20000000));
        ret = co_file_open(path_of(name), fo, file, err);
    }
    return ret;
}

struct blk_node *co_open_image(const char *name, bool writable, struct error *err)
{
    struct file_opts fo = {.writable = writable, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file = NULL, *node = NULL;

    if (co_open_file(name, &fo, &file, err))
        return NULL;
    co_qcow2_open(file, writable, &node, err);
    co_blk_node_unref(file);
    return node;
}

bool co_open_world(struct world *w, bool writable)
{
    struct qcow2_info info;

    w->node = co_open_image(w->name, writable, &w->err);
    if (!w->node) {
        ctest_fail(__FILE__, __LINE__, "open: %s", w->err.msg);
        return false;
    }
    CHECK_EQ(w->node->size_bytes, w->size_bytes);
    qcow2_get_info(w->node, &info);
    if (info.backing) {
        w->backing = co_open_image(info.backing, false, &w->err);
        if (!w->backing)
            ctest_fail(__FILE__, __LINE__, "open: %s", w->err.msg);
        blk_set_backing(w->node, w->backing);
    }
    return true;
}

void co_close_world(struct world *w)
{
    co_blk_node_unref(w->node);
    co_blk_node_unref(w->backing);
    w->node = w->backing = NULL;
}

void run(void (*fn)(void *), struct world *w)
{
    w->done = false;
    co_spawn(fn, w);
    while (!w->done || blk_closing())
        loop_turn(true);
}

/* ---- random work ------------------------------------------------------------------------- */

struct worker {
    struct world *w;
    unsigned id, rnd;
    uint8_t *buf;
};

#define MAX_OP_BYTES (512u << 10)

/* A range that nobody else is working on, aligned to @align. */
static void take_range(struct worker *k, uint64_t align, uint64_t *off, uint64_t *bytes)
{
    struct world *w = k->w;
    bool clash;

    do {
        uint64_t max = rand_r(&k->rnd) % 4 ? 65536 : MAX_OP_BYTES;

        *off = round_down_pow2((uint64_t)rand_r(&k->rnd) * 512 % w->size_bytes, align);
        *bytes = round_up_pow2(1 + (uint64_t)rand_r(&k->rnd) % max, align);
        *bytes = MIN_OF(*bytes, MAX_OF(MAX_OP_BYTES, align));
        *bytes = MIN_OF(*bytes, w->size_bytes - *off);
        clash = false;
        for (unsigned i = 0; i < w->workers; i++)
            clash |= i != k->id && *off < w->busy[i].end && w->busy[i].start < *off + *bytes;
    } while (clash);
    w->busy[k->id].start = *off;
    w->busy[k->id].end = *off + *bytes;
}

static void fail(struct worker *k, const char *what, uint64_t off, int ret)
{
    if (!k->w->failed)
        ctest_fail(__FILE__, __LINE__, "%s at %llu: %d", what, (unsigned long long)off, ret);
    k->w->failed = true;
}

static int co_rw(struct worker *k, enum blk_verb verb, uint64_t off, uint64_t bytes, uint32_t flags)
{
    uint64_t cut = bytes > 512 ? 512 : bytes;
    struct iovec iov[2] = {{k->buf, cut}, {k->buf + cut, bytes - cut}};

    return co_blk_rw(k->w->node, verb, off, iov, bytes > cut ? 2 : 1, flags);
}

static void do_read(struct worker *k, uint64_t off, uint64_t bytes)
{
    int ret = co_rw(k, BLK_READ, off, bytes, 0);

    if (ret || memcmp(k->buf, k->w->model + off, bytes))
        fail(k, "read", off, ret);
}

static void do_write(struct worker *k, uint64_t off, uint64_t bytes)
{
    int ret;

    fill_random(k->buf, bytes, &k->rnd);
    ret = co_rw(k, BLK_WRITE, off, bytes, rand_r(&k->rnd) % 16 ? 0 : BLK_FUA);
    if (ret)
        fail(k, "write", off, ret);
    memcpy(k->w->model + off, k->buf, bytes);
}

static void do_zeroes(struct worker *k, uint64_t off, uint64_t bytes)
{
    static const uint32_t kinds[] = {0, BLK_MAY_UNMAP, BLK_ANCHOR};
    uint32_t flags = kinds[(unsigned)rand_r(&k->rnd) % (k->w->node->limits.can_anchor ? 3 : 2)];
    int ret = co_blk_write_zeroes(k->w->node, off, bytes, flags);

    if (ret)
        fail(k, "write zeroes", off, ret);
    memset(k->w->model + off, 0, bytes);
}

/* Afterwards each sector reads as before or as zeros. */
static void do_discard(struct worker *k, uint64_t off, uint64_t bytes)
{
    int ret = co_blk_discard(k->w->node, off, bytes);

    if (!ret)
        ret = co_rw(k, BLK_READ, off, bytes, 0);
    if (ret)
        fail(k, "discard", off, ret);
    for (uint64_t i = 0; i < bytes; i += 512)
        if (!buf_is_zero(k->buf + i, 512) && memcmp(k->buf + i, k->w->model + off + i, 512))
            fail(k, "discarded data", off + i, 0);
    memcpy(k->w->model + off, k->buf, bytes);
}

static void do_if_unallocated(struct worker *k, uint64_t off, uint64_t bytes)
{
    bool zeroes = rand_r(&k->rnd) % 2;
    struct blk_extent ext;
    uint64_t pos;
    int ret = 0;

    fill_random(k->buf, bytes, &k->rnd);
    if (zeroes)
        memset(k->buf, 0, bytes);
    for (pos = off; pos < off + bytes && !ret; pos += ext.length_bytes) {
        ret = co_blk_status(k->w->node, pos, off + bytes - pos, &ext);
        if (!ret && ext.state == BLK_ST_UNALLOCATED)
            memcpy(k->w->model + pos, k->buf + (pos - off), ext.length_bytes);
    }
    if (!ret)
        ret = zeroes ? co_blk_write_zeroes(k->w->node, off, bytes, BLK_IF_UNALLOCATED)
                     : co_rw(k, BLK_WRITE, off, bytes, BLK_IF_UNALLOCATED);
    if (ret)
        fail(k, "write if unallocated", off, ret);
    do_read(k, off, bytes);
}

static void do_flush(struct worker *k, uint64_t off, uint64_t bytes)
{
    int ret = co_blk_flush(k->w->node);

    (void)bytes;
    if (ret)
        fail(k, "flush", off, ret);
}

static void worker_co(void *arg)
{
    static void (*const ops[])(struct worker *, uint64_t, uint64_t) = {
        do_read,  do_read,   do_read,    do_write,          do_write, do_write,
        do_write, do_zeroes, do_discard, do_if_unallocated, do_flush,
    };
    struct worker k = *(struct worker *)arg;
    uint64_t off, bytes;

    k.buf = malloc(MAX_OF(MAX_OP_BYTES, k.w->node->limits.subunit_bytes));
    while (k.w->ops_left && !k.w->failed) {
        unsigned op = (unsigned)rand_r(&k.rnd) % ARRAY_LEN(ops);
        uint64_t align = ops[op] == do_if_unallocated ? k.w->node->limits.subunit_bytes : 512;

        k.w->ops_left--;
        take_range(&k, align, &off, &bytes);
        ops[op](&k, off, bytes);
        k.w->busy[k.id].start = k.w->busy[k.id].end = 0;
        co_pause();
    }
    free(k.buf);
    k.w->workers--;
}

static void check_all(struct world *w)
{
    uint8_t *buf = malloc(w->size_bytes);
    int ret = co_blk_read(w->node, 0, buf, w->size_bytes, 0);

    CHECK_EQ(ret, 0);
    for (uint64_t i = 0; i < w->size_bytes; i += 512)
        if (memcmp(buf + i, w->model + i, 512)) {
            ctest_fail(__FILE__, __LINE__, "differs at %llu", (unsigned long long)i);
            break;
        }
    free(buf);
}

static void random_work_co(void *arg)
{
    struct world *w = arg;
    unsigned n = MAX_WORKERS;

    if (!co_open_world(w, true)) {
        w->done = true;
        return;
    }
    w->workers = n;
    for (unsigned i = 0; i < n; i++) {
        struct worker k = {.w = w, .id = i, .rnd = w->rnd + i};

        co_spawn(worker_co, &k);
    }
    while (w->workers)
        co_sleep(1000000);
    check_all(w);
    co_close_world(w);
    if (co_open_world(w, false)) {
        check_all(w);
        co_close_world(w);
    }
    w->done = true;
}

static void load_model(struct world *w)
{
    FILE *f;

    CHECK_EQ(sh("qemu-img convert -O raw %s %s.raw", w->name, w->name), 0);
    w->model = malloc(w->size_bytes);
    f = fopen(path_of("img.raw"), "r");
    REQUIRE(f != NULL);
    CHECK_EQ(fread(w->model, 1, w->size_bytes, f), w->size_bytes);
    fclose(f);
}

void work_on_image(uint64_t size_bytes, unsigned ops)
{
    struct world w = {.name = "img", .size_bytes = size_bytes, .ops_left = ops, .rnd = test_seed()};

    load_model(&w);
    if (!w.model)
        return;
    run(random_work_co, &w);
    save("model", w.model, w.size_bytes);
    CHECK_EQ(sh("qemu-img check img"), 0);
    CHECK_EQ(sh("qemu-img compare -f qcow2 -F raw img model"), 0);
    free(w.model);
}

void make_base(uint64_t size_bytes, const char *options)
{
    uint8_t *data = calloc(1, size_bytes);
    unsigned rnd = test_seed() + 77;

    for (uint64_t i = 0; i < size_bytes; i += 65536)
        if (rand_r(&rnd) % 4)
            fill_random(data + i, MIN_OF(65536, size_bytes - i), &rnd);
    save("base.raw", data, size_bytes);
    free(data);
    CHECK_EQ(sh("qemu-img convert -c -f raw -O qcow2 %s base.raw base", options), 0);
}
