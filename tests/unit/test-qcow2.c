/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 engine against a model in memory: images made by qemu-img with all kinds of options,
 * random concurrent requests, then closed, checked and compared by qemu-img.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lun-backends/file.h"
#include "lun-backends/qcow2.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

#define MAX_WORKERS 8

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(4);
    blk_init();
}

static unsigned seed(void)
{
    const char *s = getenv("QCOW2_TEST_SEED");

    return s ? (unsigned)strtoul(s, NULL, 0) : 1;
}

/* Exit status of a shell command in the test's directory; its output goes to a log. */
static int __attribute__((format(printf, 1, 2))) sh(const char *fmt, ...)
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

static bool have_qemu_img(void)
{
    if (!sh("qemu-img --version"))
        return true;
    ctest_skip("needs qemu-img");
    return false;
}

static const char *path_of(const char *name)
{
    static char path[2][4096];
    static int turn;

    turn ^= 1;
    snprintf(path[turn], sizeof(path[0]), "%s/%s", ctest_tmpdir(), name);
    return path[turn];
}

static void fill_random(uint8_t *buf, size_t bytes, unsigned *rnd)
{
    for (size_t i = 0; i < bytes; i += 512) {
        int v = rand_r(rnd);

        memset(buf + i, v, 512);
        memcpy(buf + i, &v, sizeof(v));
    }
}

static void save(const char *name, const uint8_t *data, size_t bytes)
{
    FILE *f = fopen(path_of(name), "w");

    if (f) {
        CHECK_EQ(fwrite(data, 1, bytes, f), bytes);
        fclose(f);
    }
}

/* ---- a world of one image and its model ------------------------------------------------ */

struct world {
    const char *name;
    struct blk_node *node, *backing;
    uint8_t *model;
    uint64_t size_bytes;
    struct {
        uint64_t start, end;
    } busy[MAX_WORKERS];
    unsigned ops_left, workers, rnd;
    bool failed, done;
    struct error err;
};

static struct blk_node *co_open_image(const char *name, bool writable, struct error *err)
{
    struct file_opts fo = {.writable = writable, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file = NULL, *node = NULL;

    if (co_file_open(path_of(name), &fo, &file, err))
        return NULL;
    co_qcow2_open(file, writable, &node, err);
    co_blk_node_unref(file);
    return node;
}

static bool co_open_world(struct world *w, bool writable)
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

static void co_close_world(struct world *w)
{
    co_blk_node_unref(w->node);
    co_blk_node_unref(w->backing);
    w->node = w->backing = NULL;
}

static void run(void (*fn)(void *), struct world *w)
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

static int co_rw(struct worker *k, enum blk_verb verb, uint64_t off, uint64_t bytes,
                 uint32_t flags)
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
    int ret = co_blk_write_zeroes(k->w->node, off, bytes,
                                  rand_r(&k->rnd) % 2 ? BLK_MAY_UNMAP : 0);

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

/* The image "img" is there; works on it and lets qemu-img judge. */
static void work_on_image(uint64_t size_bytes, unsigned ops)
{
    struct world w = {.name = "img", .size_bytes = size_bytes, .ops_left = ops, .rnd = seed()};

    load_model(&w);
    if (!w.model)
        return;
    run(random_work_co, &w);
    save("model", w.model, w.size_bytes);
    CHECK_EQ(sh("qemu-img check img"), 0);
    CHECK_EQ(sh("qemu-img compare -f qcow2 -F raw img model"), 0);
    free(w.model);
}

/* "base": compressed, with data in most of it, qcow2. */
static void make_base(uint64_t size_bytes, const char *options)
{
    uint8_t *data = calloc(1, size_bytes);
    unsigned rnd = seed() + 77;

    for (uint64_t i = 0; i < size_bytes; i += 65536)
        if (rand_r(&rnd) % 4)
            fill_random(data + i, MIN_OF(65536, size_bytes - i), &rnd);
    save("base.raw", data, size_bytes);
    free(data);
    CHECK_EQ(sh("qemu-img convert -c -f raw -O qcow2 %s base.raw base", options), 0);
}

#define MIB (UINT64_C(1) << 20)

static void without_backing(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o %s img 24M", options), 0);
    work_on_image(24 * MIB, ops);
}

static void with_backing(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, "");
    CHECK_EQ(sh("qemu-img create -f qcow2 -b base -F qcow2 -o %s img 24M", options), 0);
    work_on_image(24 * MIB, ops);
}

#define RANDOM_TEST(name, how, options, ops) \
    TEST(qcow2, random_work_##name)          \
    {                                        \
        how(options, ops);                   \
    }

RANDOM_TEST(defaults, without_backing, "compat=1.1", 1500)
RANDOM_TEST(v2, without_backing, "compat=0.10", 1500)
RANDOM_TEST(clusters_512, without_backing, "cluster_size=512", 500)
RANDOM_TEST(clusters_2M, without_backing, "cluster_size=2M", 500)
RANDOM_TEST(extended, without_backing, "extended_l2=on,cluster_size=128k", 1500)
RANDOM_TEST(refcount_1, without_backing, "refcount_bits=1,cluster_size=4k", 1500)
RANDOM_TEST(refcount_64, without_backing, "refcount_bits=64,cluster_size=512", 500)
RANDOM_TEST(refcount_8, without_backing, "refcount_bits=8,cluster_size=1k", 500)
RANDOM_TEST(preallocated, without_backing, "preallocation=metadata", 1500)
RANDOM_TEST(overlay, with_backing, "compat=1.1", 1500)
RANDOM_TEST(overlay_v2, with_backing, "compat=0.10,cluster_size=4k", 1500)
RANDOM_TEST(overlay_512, with_backing, "cluster_size=512", 500)
RANDOM_TEST(overlay_2M, with_backing, "cluster_size=2M", 500)
RANDOM_TEST(overlay_extended, with_backing, "extended_l2=on,cluster_size=128k", 1500)
RANDOM_TEST(overlay_extended_16k, with_backing, "extended_l2=on,cluster_size=16k", 1500)
RANDOM_TEST(overlay_extended_2M, with_backing, "extended_l2=on,cluster_size=2M", 500)

static void compressed(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, options);
    CHECK_EQ(sh("mv base img"), 0);
    work_on_image(17 * MIB, ops);
}

RANDOM_TEST(compressed_zlib, compressed, "-o compression_type=zlib", 1000)
RANDOM_TEST(compressed_zstd, compressed, "-o compression_type=zstd", 1000)
RANDOM_TEST(compressed_small, compressed, "-o cluster_size=4k", 1000)
RANDOM_TEST(compressed_v2, compressed, "-o compat=0.10", 1000)
RANDOM_TEST(compressed_extended, compressed, "-o extended_l2=on,cluster_size=64k", 1000)

/* Clusters shared with an internal snapshot are copied, and the snapshot stays what it was. */
static void snapshotted(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, options);
    CHECK_EQ(sh("qemu-img convert -O qcow2 %s base img && qemu-img snapshot -c one img", options),
             0);
    work_on_image(17 * MIB, ops);
    CHECK_EQ(sh("qemu-img convert -l snapshot.name=one -O raw img one.raw && "
                "cmp one.raw base.raw"), 0);
    CHECK_EQ(sh("qemu-img snapshot -d one img && qemu-img check img"), 0);
}

RANDOM_TEST(snapshot, snapshotted, "-o compat=1.1", 1000)
RANDOM_TEST(snapshot_512, snapshotted, "-o cluster_size=512", 300)
RANDOM_TEST(snapshot_extended, snapshotted, "-o extended_l2=on,cluster_size=64k", 1000)

/* ---- single behaviours ------------------------------------------------------------------- */

struct create_case {
    struct qcow2_create_opts opts;
    const char *check;
};

static void create_co(void *arg)
{
    struct world *w = arg;
    const struct qcow2_create_opts *o = (const void *)w->model;
    struct file_opts fo = {.writable = true, .create = true, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file;

    unlink(path_of("img"));
    if (co_file_open(path_of("img"), &fo, &file, &w->err) == 0) {
        if (co_qcow2_create(file, o, &w->err))
            w->failed = true;
        co_blk_node_unref(file);
    }
    w->done = true;
}

static int create(const struct qcow2_create_opts *o, struct error *err)
{
    struct world w = {.model = (uint8_t *)o};

    run(create_co, &w);
    *err = w.err;
    return w.failed ? -err->errnum : 0;
}

TEST(qcow2, created_images_satisfy_qemu_img)
{
    static const struct qcow2_create_opts cases[] = {
        {.size_bytes = 64 * MIB},
        {.size_bytes = 64 * MIB, .compat_v2 = true},
        {.size_bytes = 64 * MIB, .extended_l2 = true},
        {.size_bytes = 64 * MIB, .cluster_bytes = 512},
        {.size_bytes = 8192 * MIB, .cluster_bytes = 512},
        {.size_bytes = 64 * MIB, .cluster_bytes = 2 << 20},
        {.size_bytes = UINT64_C(8) << 40},
        {.size_bytes = 512},
        {.size_bytes = 0},
    };
    struct error err;

    if (!have_qemu_img())
        return;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CHECK_EQ(create(&cases[i], &err), 0);
        CHECK_EQ(sh("qemu-img check img && qemu-io -c 'read 0 %d' img", cases[i].size_bytes ? 512 : 0),
                 0);
    }
}

TEST(qcow2, created_images_take_writes_far_out)
{
    struct error err;

    if (!have_qemu_img())
        return;
    for (int ext = 0; ext < 2; ext++) {
        CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 24 * MIB, .extended_l2 = ext},
                        &err), 0);
        work_on_image(24 * MIB, 500);
    }
}

TEST(qcow2, absurd_creation_is_refused)
{
    struct error err;
    char name[2000];

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512, .cluster_bytes = 1000}, &err),
             -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512, .cluster_bytes = 256}, &err),
             -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512, .cluster_bytes = 8192,
                                                .extended_l2 = true}, &err), -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 100}, &err), -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512, .backing = name}, &err),
             -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = UINT64_C(1) << 60}, &err), -EFBIG);
}

static void drop_backing_co(void *arg)
{
    struct world *w = arg;

    w->node = co_open_image("img", true, &w->err);
    if (w->node) {
        CHECK_EQ(w->node->drv->co_change_backing(w->node, w->ops_left ? "other" : NULL, "raw",
                                                 &w->err), 0);
        co_blk_node_unref(w->node);
    }
    w->done = true;
}

TEST(qcow2, dropping_the_backing_changes_one_sector)
{
    struct qcow2_create_opts o = {
        .size_bytes = 64 * MIB, .extended_l2 = true, .backing = "base.raw", .backing_fmt = "raw"};
    struct world w = {0};
    struct error err;

    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("truncate -s 64M base.raw"), 0);
    CHECK_EQ(create(&o, &err), 0);
    CHECK_EQ(sh("qemu-img info img | grep 'backing file: base.raw'"), 0);
    CHECK_EQ(sh("qemu-img info img | grep 'backing file format: raw'"), 0);
    CHECK_EQ(sh("cp img before"), 0);
    run(drop_backing_co, &w);
    CHECK_EQ(sh("qemu-img info img | grep backing"), 1);
    CHECK_EQ(sh("qemu-img check img"), 0);
    CHECK_EQ(sh("cmp -i 512 img before"), 0);
}

TEST(qcow2, backing_of_a_foreign_image_is_changed_and_its_extensions_kept)
{
    struct world w = {.ops_left = 1};

    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f raw other 1M && qemu-img create -f raw base 1M && "
                "qemu-img create -f qcow2 -b base -F raw img"), 0);
    run(drop_backing_co, &w);
    CHECK_EQ(sh("qemu-img info img | grep 'backing file: other'"), 0);
    CHECK_EQ(sh("grep -c 'lazy refcounts' img"), 0);
    CHECK_EQ(sh("qemu-img check img"), 0);
    w.ops_left = 0;
    run(drop_backing_co, &w);
    CHECK_EQ(sh("qemu-img info img | grep backing"), 1);
    CHECK_EQ(sh("qemu-img check img"), 0);
}

static void resize_co(void *arg)
{
    struct world *w = arg;
    uint8_t byte = 0;

    if (co_open_world(w, true)) {
        CHECK_EQ(co_blk_write(w->node, 0, w->model, 1 << 20, 0), 0);
        CHECK_EQ(w->node->drv->co_resize(w->node, 4096, &w->err), -ENOTSUP);
        CHECK_EQ(w->node->drv->co_resize(w->node, w->rnd * MIB, &w->err), 0);
        CHECK_EQ(co_blk_write(w->node, w->rnd * MIB - 4096, w->model, 4096, 0), 0);
        CHECK_EQ(co_blk_read(w->node, w->size_bytes, w->model + MIB, MIB, 0), 0);
        for (uint64_t i = 0; i < MIB; i++)
            byte |= w->model[MIB + i];
        CHECK_EQ(byte, 0);
        co_close_world(w);
    }
    w->done = true;
}

TEST(qcow2, growing_moves_the_l1_table_and_hides_a_longer_backing)
{
    struct world w = {.name = "img", .size_bytes = 24 * MIB, .rnd = 4096};

    if (!have_qemu_img())
        return;
    w.model = malloc(2 * MIB);
    memset(w.model, 0x5a, 2 * MIB);
    save("base.raw", w.model, 2 * MIB);
    CHECK_EQ(sh("qemu-io -f raw -c 'write -P 7 0 32M' base.raw; "
                "qemu-img convert -f raw -O qcow2 base.raw base"), 0);
    CHECK_EQ(sh("qemu-img create -f qcow2 -b base -F qcow2 -o cluster_size=4k img 24M"), 0);
    run(resize_co, &w);
    CHECK_EQ(sh("qemu-img check img && qemu-img info img | grep '4 GiB'"), 0);
    CHECK_EQ(sh("qemu-io -c 'read -P 0x5a 0 1M' -c 'read -P 0x5a 4294963200 4k' img | "
                "grep -c 'Pattern verification failed'"), 1);
    free(w.model);
}

static void open_only_co(void *arg)
{
    struct world *w = arg;

    w->node = co_open_image("img", w->ops_left, &w->err);
    w->failed = !w->node;
    co_blk_node_unref(w->node);
    w->done = true;
}

static const char *open_error(bool writable)
{
    static struct world w;

    w = (struct world){.ops_left = writable};
    run(open_only_co, &w);
    return w.failed ? w.err.msg : "";
}

TEST(qcow2, what_cannot_be_served_is_refused_by_name)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o data_file=ext img 1M"), 0);
    CHECK(strstr(open_error(false), "external data file"));
    CHECK(strstr(open_error(false), "img"));
    CHECK_EQ(sh("qemu-img create -f qcow2 --object secret,id=s,data=x "
                "-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 img 1M"), 0);
    CHECK(strstr(open_error(false), "LUKS"));
    CHECK_EQ(sh("qemu-img create -f qcow2 img 1M; printf '\\001' | "
                "dd of=img bs=1 seek=79 conv=notrunc"), 0);
    CHECK(strstr(open_error(true), "dirty"));
    CHECK_STR(open_error(false), "");
    CHECK_EQ(sh("printf '\\002' | dd of=img bs=1 seek=79 conv=notrunc"), 0);
    CHECK(strstr(open_error(true), "corrupt"));
    CHECK_STR(open_error(false), "");
    CHECK_EQ(sh("printf '\\200' | dd of=img bs=1 seek=79 conv=notrunc"), 0);
    CHECK(strstr(open_error(false), "bit 7"));
}

/* Garbage over the metadata: requests may fail, nothing else may happen. */
static void garbage_co(void *arg)
{
    struct world *w = arg;
    uint8_t *buf = malloc(MIB);
    struct blk_extent ext;
    uint64_t bytes;

    memset(buf, 1, MIB);
    w->node = co_open_image("img", w->ops_left, &w->err);
    for (uint64_t off = 0; w->node && off < w->node->size_bytes; off += MIB) {
        co_blk_read(w->node, off, buf, MIB, 0);
        co_blk_status(w->node, off, MIB, &ext);
        if (w->ops_left) {
            co_blk_write(w->node, off + 512, buf, 70000, 0);
            co_blk_write_zeroes(w->node, off + 300 * 1024, 100 * 1024, BLK_MAY_UNMAP);
            co_blk_discard(w->node, off + 500 * 1024, 200 * 1024);
            co_blk_flush(w->node);
        }
    }
    if (w->node)
        co_qcow2_allocated_bytes(w->node, &bytes);
    co_blk_node_unref(w->node);
    free(buf);
    w->done = true;
}

TEST(qcow2, garbage_in_the_metadata_fails_requests_only)
{
    unsigned rnd = seed();

    if (!have_qemu_img())
        return;
    make_base(4 * MIB, "");
    for (int i = 0; i < 60; i++) {
        const char *extra = i % 3 ? "" : "-c";

        CHECK_EQ(sh("rm -f img; qemu-img convert %s -O qcow2 -o cluster_size=%d,extended_l2=%s "
                    "base.raw img", extra, i % 2 ? 16384 : 4096 << (i % 5),
                    i % 2 ? "on" : "off"), 0);
        for (int n = 0; n < 20; n++) {
            FILE *f = fopen(path_of("img"), "r+");
            uint8_t junk[8];

            for (int b = 0; b < 8; b++)
                junk[b] = (uint8_t)rand_r(&rnd);
            fseek(f, 8 * (rand_r(&rnd) % (rand_r(&rnd) % 2 ? 64 : 65536)), SEEK_SET);
            fwrite(junk, 1, rand_r(&rnd) % 2 ? 8 : 1, f);
            fclose(f);
        }
        run(garbage_co, &(struct world){.ops_left = i % 4 != 0});
    }
}
