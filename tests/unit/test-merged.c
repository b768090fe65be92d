/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Merged maps: what is read through one is what reading layer by layer gives, it costs the layers
 * nothing once it is known, and it doesn't outlive a change of the graph.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "lun-backends/merged.h"
#include "tests/unit/ctest.h"
#include "tests/unit/qcow2-image.h"
#include "util/coroutine.h"
#include "util/size.h"

#define DEPTH      6
#define DISK_BYTES (20 * MIB)
#define READS      600

struct chain {
    struct world w;
    struct blk_node *layer[DEPTH]; /* [0] is the top */
    void (*fn)(struct chain *c);
    bool writable_top;
};

/* l0 <- l1 ... : random clusters of each, one of them compressed, one with subclusters, one that
 * is smaller than those around it; the last is raw. */
static void make_chain(void)
{
    static const char *const options[DEPTH - 1] = {
        "cluster_size=64k", "cluster_size=4k", "cluster_size=16k,extended_l2=on",
        "cluster_size=64k,compat=0.10", "cluster_size=2M"};
    unsigned rnd = test_seed();
    char cmd[1600];

    CHECK_EQ(sh("truncate -s 11M l%d && qemu-io -f raw -c 'write -P 200 1M 9M' l%d", DEPTH - 1,
                DEPTH - 1),
             0);
    for (int i = DEPTH - 2; i >= 0; i--) {
        unsigned mib = i == 3 ? 13 : DISK_BYTES / MIB;
        int n = snprintf(cmd, sizeof(cmd), "qemu-io l%d", i);

        CHECK_EQ(sh("qemu-img create -f qcow2 -o %s -b l%d -F %s l%d %uM", options[i], i + 1,
                    i == DEPTH - 2 ? "raw" : "qcow2", i, mib),
                 0);
        for (int k = 0; k < 12; k++) {
            unsigned at = (unsigned)rand_r(&rnd) % (mib * 16 - 4) * 64;
            const char *how = i == 1 && k % 2 ? "-c" : k == 3 && i != 3 ? "-z" : "-P 1";
            unsigned kib = how[1] == 'c' ? 4 : 4 + (unsigned)rand_r(&rnd) % 200;

            n += snprintf(cmd + n, sizeof(cmd) - (size_t)n, " -c 'write %s%s %uk %uk'", how,
                          how[1] == 'P' ? (const char *[]){"1", "2", "3", "4", "5"}[i] : "", at,
                          kib);
        }
        CHECK_EQ(sh("%s", cmd), 0);
    }
}

static struct blk_node *co_open_raw(const char *name)
{
    struct file_opts fo = {.cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file = NULL, *node = NULL;
    struct error err = ERROR_INIT;

    if (!co_file_open(path_of(name), &fo, &file, &err))
        co_raw_open(file, false, &node, &err);
    co_blk_node_unref(file);
    return node;
}

static void chain_co(void *arg)
{
    struct chain *c = container_of(arg, struct chain, w);
    struct error err = ERROR_INIT;
    char name[8];
    bool ok = true;

    for (int i = 0; i < DEPTH; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        c->layer[i] =
            i == DEPTH - 1 ? co_open_raw(name) : co_open_image(name, c->writable_top && !i, &err);
        CHECK(c->layer[i]);
        ok &= !!c->layer[i];
    }
    for (int i = 0; ok && i + 1 < DEPTH; i++)
        blk_set_backing(c->layer[i], c->layer[i + 1]);
    if (ok)
        c->fn(c);
    for (int i = 0; i < DEPTH; i++)
        co_blk_node_unref(c->layer[i]);
    c->w.done = true;
}

static void on_chain(void (*fn)(struct chain *), bool writable_top)
{
    struct chain c = {.fn = fn, .writable_top = writable_top};

    if (!have_qemu_img())
        return;
    make_chain();
    run(chain_co, &c.w);
}

/* Random reads of @node: merged, and layer by layer. */
static void compare_reads(struct blk_node *node, unsigned reads)
{
    uint8_t *a = malloc(2 * MIB), *b = malloc(2 * MIB);
    unsigned rnd = test_seed() + 7;

    for (unsigned i = 0; i < reads; i++) {
        uint64_t bytes = 512 * (1 + (uint64_t)rand_r(&rnd) % (i % 4 ? 64 : 4096));
        uint64_t off = (uint64_t)rand_r(&rnd) * 512 % (node->size_bytes - bytes);

        memset(a, 0xaa, bytes);
        memset(b, 0xbb, bytes);
        CHECK_EQ(co_blk_read(node, off, a, bytes, 0), 0);
        CHECK_EQ(co_blk_read(node, off, b, bytes, BLK_BY_LAYER), 0);
        if (memcmp(a, b, bytes)) {
            ctest_fail(__FILE__, __LINE__, "%llu bytes at %llu differ", (unsigned long long)bytes,
                       (unsigned long long)off);
            break;
        }
    }
    free(a);
    free(b);
}

static void reads_equal(struct chain *c)
{
    struct merged_stats st;

    compare_reads(c->layer[0], READS);
    REQUIRE(merged_get_stats(c->layer[0], &st));
    CHECK_EQ(st.layers, DEPTH);
    CHECK_EQ(st.misses, 3);
    CHECK(st.hits >= READS - st.misses);
}

TEST(merged, reads_as_the_layers_do)
{
    on_chain(reads_equal, false);
}

static uint64_t lookups(struct chain *c, int from)
{
    struct qcow2_stats st;
    uint64_t sum = 0;

    for (int i = from; i < DEPTH - 1; i++) {
        qcow2_get_stats(c->layer[i], &st);
        sum += st.hits + st.misses;
    }
    return sum;
}

static void layers_left_alone(struct chain *c)
{
    uint8_t buf[4096];
    uint64_t before;

    for (uint64_t off = 0; off < DISK_BYTES; off += MIB)
        CHECK_EQ(co_blk_read(c->layer[0], off, buf, sizeof(buf), 0), 0);
    before = lookups(c, 1);
    for (uint64_t off = 0; off < DISK_BYTES; off += 65536)
        CHECK_EQ(co_blk_read(c->layer[0], off, buf, sizeof(buf), 0), 0);
    CHECK(lookups(c, 1) - before <= 2 * 12); /* what is compressed is asked of its layer */
}

TEST(merged, a_known_range_asks_no_layer)
{
    on_chain(layers_left_alone, false);
}

static void under_writable(struct chain *c)
{
    struct merged_stats st;
    uint8_t buf[65536];

    memset(buf, 0x77, sizeof(buf));
    CHECK_EQ(co_blk_write(c->layer[0], 5 * MIB, buf, sizeof(buf), 0), 0);
    compare_reads(c->layer[0], READS);
    CHECK(!merged_get_stats(c->layer[0], &st));
    REQUIRE(merged_get_stats(c->layer[1], &st));
    CHECK_EQ(st.layers, DEPTH - 1);
}

TEST(merged, starts_below_a_writable_top)
{
    on_chain(under_writable, true);
}

static void forgets(struct chain *c)
{
    struct merged_stats st;
    struct error err = ERROR_INIT;
    uint8_t buf[4096];

    CHECK_EQ(co_blk_read(c->layer[0], 0, buf, sizeof(buf), 0), 0);
    CHECK(merged_get_stats(c->layer[0], &st));
    CHECK_EQ(co_blk_reopen(c->layer[4], true, &err), 0);
    CHECK(!merged_get_stats(c->layer[0], &st));

    memset(buf, 0x99, sizeof(buf));
    CHECK_EQ(co_blk_read(c->layer[0], 0, buf, sizeof(buf), 0), 0);
    REQUIRE(merged_get_stats(c->layer[0], &st));
    CHECK_EQ(st.layers, 4);
    compare_reads(c->layer[0], 50);
    for (uint64_t off = 0; off < 11 * MIB; off += MIB) {
        memset(buf, 0x99, sizeof(buf));
        CHECK_EQ(co_blk_write(c->layer[4], off, buf, sizeof(buf), 0), 0);
    }
    compare_reads(c->layer[0], READS);

    CHECK_EQ(co_blk_reopen(c->layer[4], false, &err), 0);
    compare_reads(c->layer[0], READS);
    REQUIRE(merged_get_stats(c->layer[0], &st));
    CHECK_EQ(st.layers, DEPTH);

    blk_set_backing(c->layer[2], NULL);
    CHECK(!merged_get_stats(c->layer[0], &st));
    compare_reads(c->layer[0], READS);
}

TEST(merged, is_forgotten_when_the_graph_changes)
{
    on_chain(forgets, false);
}

static void bounded(struct chain *c)
{
    struct merged_stats st;

    merged_set_max_bytes(1);
    compare_reads(c->layer[0], 100);
    REQUIRE(merged_get_stats(c->layer[0], &st));
    CHECK(st.bytes < 2048); /* the last one was in use when room was made */
    CHECK(st.misses > 3);
    merged_set_max_bytes(UINT64_C(32) << 20);
}

TEST(merged, memory_is_bounded)
{
    on_chain(bounded, false);
}

/* ---- many at once -------------------------------------------------------------------------- */

struct crowd {
    struct blk_node *node;
    unsigned running;
};

static void reader_co(void *arg)
{
    struct crowd *crowd = arg;
    uint8_t buf[65536];

    CHECK_EQ(co_blk_read(crowd->node, 8 * MIB - 32768, buf, sizeof(buf), 0), 0);
    crowd->running--;
}

static void worked_out_once(struct chain *c)
{
    struct crowd crowd = {.node = c->layer[0]};
    struct merged_stats st;

    for (int i = 0; i < 20; i++) {
        crowd.running++;
        co_spawn(reader_co, &crowd);
    }
    while (crowd.running)
        co_pause();
    REQUIRE(merged_get_stats(c->layer[0], &st));
    CHECK_EQ(st.misses, 2);
}

TEST(merged, a_range_is_worked_out_once)
{
    on_chain(worked_out_once, false);
}
