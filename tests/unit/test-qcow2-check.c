/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The checker and what changes a whole open image: leaks are freed and the engine goes on,
 * emptying leaves snapshots alone, places are where the data is. qemu-img makes and judges.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "tests/unit/ctest.h"
#include "tests/unit/qcow2-image.h"
#include "util/byteorder.h"

#define CLUSTER UINT64_C(65536)

struct checking {
    struct world w; /* first: run() passes it on */
    struct qcow2_check_result res;
    struct qcow2_place place[3];
    unsigned fix;
    uint64_t freed;
    int ret;
};

static uint64_t field(const char *name, uint64_t offset)
{
    FILE *f = fopen(path_of(name), "r");
    uint8_t raw[8] = {0};

    if (f) {
        CHECK_EQ(fseek(f, (long)offset, SEEK_SET), 0);
        CHECK_EQ(fread(raw, 1, 8, f), 8);
        fclose(f);
    }
    return get_be64(raw);
}

static void patch(const char *name, uint64_t offset, const void *data, size_t bytes)
{
    FILE *f = fopen(path_of(name), "r+");

    REQUIRE(f);
    CHECK_EQ(fseek(f, (long)offset, SEEK_SET), 0);
    CHECK_EQ(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

static void make_image(void)
{
    CHECK_EQ(sh("rm -f img; qemu-img create -q -f qcow2 img 8M"), 0);
    CHECK_EQ(sh("qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -z 2M 64k' img"), 0);
}

/* The first L2 table's entry @i. */
static uint64_t l2_entry(unsigned i)
{
    uint64_t l1 = field("img", 40), l2 = field("img", l1) & UINT64_C(0x00fffffffffffe00);

    return l2 + (uint64_t)i * 8;
}

static void lose_clusters(unsigned n)
{
    static const uint8_t zeros[8];

    for (unsigned i = 0; i < n; i++)
        patch("img", l2_entry(i), zeros, 8);
}

static void set_refcount(uint64_t cluster, uint8_t refs)
{
    uint64_t block = field("img", field("img", 48));
    uint8_t raw[2] = {0, refs};

    patch("img", block + cluster * 2, raw, 2);
}

static void check_co(void *arg)
{
    struct checking *c = arg;
    struct file_opts fo = {.writable = c->fix, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file;

    c->ret = co_file_open(path_of("img"), &fo, &file, &c->w.err);
    if (!c->ret) {
        c->ret = co_qcow2_check(file, c->fix, NULL, NULL, &c->res, &c->w.err);
        co_blk_node_unref(file);
    }
    c->w.done = true;
}

static struct qcow2_check_result check(unsigned fix)
{
    struct checking c = {.fix = fix};

    run(check_co, &c.w);
    CHECK_EQ(c.ret, 0);
    return c.res;
}

TEST(qcow2_check, counts_what_a_sound_image_has)
{
    struct qcow2_check_result r;

    if (!have_qemu_img())
        return;
    make_image();
    r = check(0);
    CHECK_EQ(r.corruptions + r.leaks + r.check_errors, 0);
    CHECK_EQ(r.total_clusters, 128);
    CHECK(r.allocated_clusters >= 16 && r.allocated_clusters <= 17);
}

TEST(qcow2_check, leaks_are_counted_and_freed)
{
    struct qcow2_check_result r;

    if (!have_qemu_img())
        return;
    make_image();
    lose_clusters(3);
    r = check(0);
    CHECK_EQ(r.leaks, 3);
    CHECK_EQ(r.corruptions, 0);
    r = check(QCOW2_FIX_LEAKS);
    CHECK_EQ(r.leaks_fixed, 3);
    CHECK_EQ(r.leaks, 0);
    CHECK_EQ(sh("qemu-img check img"), 0);
}

TEST(qcow2_check, repairing_leaks_leaves_low_refcounts_alone)
{
    struct qcow2_check_result r;

    if (!have_qemu_img())
        return;
    make_image();
    set_refcount((field("img", l2_entry(5)) & UINT64_C(0x00fffffffffffe00)) / CLUSTER, 0);
    r = check(QCOW2_FIX_LEAKS);
    CHECK(r.corruptions && !r.corruptions_fixed);
    r = check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS);
    CHECK(r.corruptions_fixed && !r.corruptions);
    CHECK_EQ(sh("qemu-img check img"), 0);
}

TEST(qcow2_check, a_lost_refcount_block_is_made_again)
{
    static const uint8_t zeros[8];

    if (!have_qemu_img())
        return;
    make_image();
    patch("img", field("img", 48), zeros, 8);
    CHECK(check(0).corruptions);
    CHECK_EQ(check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS).corruptions, 0);
    CHECK_EQ(sh("qemu-img check img && qemu-io -r -f qcow2 -c 'read -P 1 0 1M' img"), 0);
}

/* The last four of 16 data clusters are missing; their entries stay. */
static void cut_file_off(void)
{
    make_image();
    CHECK_EQ(sh("truncate -s %" PRIu64 " img",
                field("img", l2_entry(12)) & UINT64_C(0x00fffffffffffe00)),
             0);
}

/* Data of a file that was cut off is lost, but no other cluster may come to lie in its place. */
static void write_and_judge(void)
{
    CHECK_EQ(sh("qemu-io -f qcow2 -c 'write -P 4 4M 512k' -c 'write -P 3 768k 256k' img"), 0);
    CHECK_EQ(
        sh("qemu-img check img && qemu-io -r -f qcow2 -c 'read -P 1 0 768k' "
           "-c 'read -P 3 768k 256k' -c 'read -P 4 4M 512k' img >reads && ! grep failed reads"),
        0);
}

TEST(qcow2_check, what_was_cut_off_keeps_its_place)
{
    if (!have_qemu_img())
        return;
    cut_file_off();
    CHECK_EQ(check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS).corruptions, 4);
    write_and_judge();
}

TEST(qcow2_check, refcounts_are_rebuilt_behind_what_was_cut_off)
{
    static const uint8_t zeros[8];

    if (!have_qemu_img())
        return;
    cut_file_off();
    patch("img", field("img", 48), zeros, 8);
    CHECK(check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS).corruptions_fixed);
    CHECK_EQ(check(0).corruptions, 0);
    CHECK_EQ(sh("qemu-img check img"), 0);
    write_and_judge();
}

/* ---- open nodes --------------------------------------------------------------------------- */

static void fix_co(void *arg)
{
    struct checking *c = arg;
    uint8_t buf[4096];
    struct blk_node *node = co_open_image("img", true, &c->w.err);

    memset(buf, 7, sizeof(buf));
    if (node) {
        c->ret = co_qcow2_fix_leaks(node, &c->freed, &c->w.err);
        for (unsigned i = 0; i < 32 && !c->ret; i++)
            CHECK_EQ(co_blk_write(node, 4 * MIB + i * CLUSTER, buf, sizeof(buf), 0), 0);
        co_blk_node_unref(node);
    }
    c->w.done = true;
}

TEST(qcow2_fix_leaks, the_engine_uses_what_was_leaked)
{
    struct checking c = {.ret = 1};

    if (!have_qemu_img())
        return;
    make_image();
    lose_clusters(16);
    run(fix_co, &c.w);
    CHECK_EQ(c.ret, 0);
    CHECK_EQ(c.freed, 16);
    CHECK_EQ(sh("qemu-img check img && qemu-io -r -f qcow2 -c 'read -P 7 4M 4k' img"), 0);
    CHECK_EQ(sh("test $(stat -c %%s img) -le $((40 * 65536))"), 0);
}

TEST(qcow2_fix_leaks, an_image_with_other_faults_is_left_alone)
{
    struct checking c = {.ret = 1};

    if (!have_qemu_img())
        return;
    make_image();
    lose_clusters(1);
    set_refcount((field("img", l2_entry(5)) & UINT64_C(0x00fffffffffffe00)) / CLUSTER, 0);
    CHECK_EQ(sh("cp img before"), 0);
    run(fix_co, &c.w);
    CHECK_EQ(c.ret, -EIO);
    CHECK(strstr(c.w.err.msg, "left alone"));
    CHECK_EQ(sh("cmp img before"), 0);
}

static void empty_co(void *arg)
{
    struct checking *c = arg;
    struct blk_node *node = co_open_image("img", true, &c->w.err);
    uint8_t buf[512];

    memset(buf, 9, sizeof(buf));
    if (node) {
        c->ret = co_qcow2_make_empty(node, &c->w.err);
        CHECK_EQ(co_blk_write(node, 3 * MIB, buf, sizeof(buf), 0), 0);
        co_blk_node_unref(node);
    }
    c->w.done = true;
}

TEST(qcow2_make_empty, all_is_gone_but_the_snapshots)
{
    struct checking c = {.ret = 1};

    if (!have_qemu_img())
        return;
    make_image();
    CHECK_EQ(sh("qemu-img snapshot -c then img && qemu-io -f qcow2 -c 'write -P 2 0 4M' img"), 0);
    run(empty_co, &c.w);
    CHECK_EQ(c.ret, 0);
    CHECK_EQ(sh("qemu-img check img && qemu-io -r -f qcow2 -c 'read -P 0 0 3M' "
                "-c 'read -P 9 3M 512' -c 'read -P 0 3146240 900k' img"),
             0);
    CHECK_EQ(sh("qemu-img convert -l then -O raw img old && "
                "qemu-io -r -f raw -c 'read -P 1 0 1M' old | (! grep -q failed)"),
             0);
}

static void place_co(void *arg)
{
    static const uint64_t at[3] = {512, 2 * MIB, 7 * MIB};
    struct checking *c = arg;
    struct blk_node *node = co_open_image("img", false, &c->w.err);

    for (unsigned i = 0; i < 3 && node; i++)
        CHECK_EQ(co_qcow2_place(node, at[i], MIB, &c->place[i]), 0);
    co_blk_node_unref(node);
    c->w.done = true;
}

TEST(qcow2_place, is_where_the_table_says)
{
    struct checking c = {.ret = 0};
    uint64_t host;

    if (!have_qemu_img())
        return;
    make_image();
    host = field("img", l2_entry(0)) & UINT64_C(0x00fffffffffffe00);
    run(place_co, &c.w);
    CHECK(c.place[0].state == BLK_ST_DATA && c.place[0].has_host);
    CHECK_EQ(c.place[0].host_bytes, host + 512);
    CHECK_EQ(c.place[0].length_bytes, MIB - 512);
    CHECK(c.place[1].state == BLK_ST_ZERO);
    CHECK_EQ(c.place[1].length_bytes, CLUSTER);
    CHECK(c.place[2].state == BLK_ST_UNALLOCATED && !c.place[2].has_host);
}
