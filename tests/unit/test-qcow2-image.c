/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Single behaviours of the qcow2 engine: creating, opening and refusing, backing and size changes,
 * a backing that is away, garbage in the metadata.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "tests/unit/qcow2-image.h"
#include "util/coroutine.h"
#include "util/size.h"

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

TEST(qcow2_image, created_images_satisfy_qemu_img)
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
        CHECK_EQ(
            sh("qemu-img check img && qemu-io -c 'read 0 %d' img", cases[i].size_bytes ? 512 : 0),
            0);
    }
}

TEST(qcow2_image, created_images_take_writes_far_out)
{
    struct error err;

    if (!have_qemu_img())
        return;
    for (int ext = 0; ext < 2; ext++) {
        CHECK_EQ(
            create(&(struct qcow2_create_opts){.size_bytes = 24 * MIB, .extended_l2 = ext}, &err),
            0);
        work_on_image(24 * MIB, 500);
    }
}

TEST(qcow2_image, absurd_creation_is_refused)
{
    struct error err;
    char name[2000];

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512, .cluster_bytes = 1000}, &err),
             -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512, .cluster_bytes = 256}, &err),
             -EINVAL);
    CHECK_EQ(create(&(struct qcow2_create_opts){.size_bytes = 512,
                                                .cluster_bytes = 8192,
                                                .extended_l2 = true},
                    &err),
             -EINVAL);
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
        CHECK_EQ(
            w->node->drv->co_change_backing(w->node, w->ops_left ? "other" : NULL, "raw", &w->err),
            0);
        co_blk_node_unref(w->node);
    }
    w->done = true;
}

TEST(qcow2_image, dropping_the_backing_changes_one_sector)
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

TEST(qcow2_image, backing_of_a_foreign_image_is_changed_and_its_extensions_kept)
{
    struct world w = {.ops_left = 1};

    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f raw other 1M && qemu-img create -f raw base 1M && "
                "qemu-img create -f qcow2 -b base -F raw img"),
             0);
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

TEST(qcow2_image, growing_moves_the_l1_table_and_hides_a_longer_backing)
{
    struct world w = {.name = "img", .size_bytes = 24 * MIB, .rnd = 4096};

    if (!have_qemu_img())
        return;
    w.model = malloc(2 * MIB);
    memset(w.model, 0x5a, 2 * MIB);
    save("base.raw", w.model, 2 * MIB);
    CHECK_EQ(sh("qemu-io -f raw -c 'write -P 7 0 32M' base.raw; "
                "qemu-img convert -f raw -O qcow2 base.raw base"),
             0);
    CHECK_EQ(sh("qemu-img create -f qcow2 -b base -F qcow2 -o cluster_size=4k img 24M"), 0);
    run(resize_co, &w);
    CHECK_EQ(sh("qemu-img check img && qemu-img info img | grep '4 GiB'"), 0);
    CHECK_EQ(sh("qemu-io -c 'read -P 0x5a 0 1M' -c 'read -P 0x5a 4294963200 4k' img | "
                "grep -c 'Pattern verification failed'"),
             1);
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

static void check_refused(bool writable, const char *word)
{
    const char *said = open_error(writable);

    if (!strstr(said, word))
        ctest_fail(__FILE__, __LINE__, "'%s' does not tell of %s", said, word);
}

TEST(qcow2_image, what_cannot_be_served_is_refused_by_name)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img 1M; printf '\\002' | "
                "dd of=img bs=1 seek=35 conv=notrunc"),
             0);
    check_refused(false, "LUKS");
    CHECK_EQ(sh("qemu-img create -f qcow2 img 1M; printf '\\001' | "
                "dd of=img bs=1 seek=79 conv=notrunc"),
             0);
    CHECK_STR(open_error(false), "");
    CHECK_STR(open_error(true), ""); /* repaired */
    CHECK_EQ(sh("qemu-img info img | grep 'dirty flag'"), 1);
    CHECK_EQ(sh("printf '\\002' | dd of=img bs=1 seek=79 conv=notrunc"), 0);
    check_refused(true, "corrupt");
    CHECK_STR(open_error(false), "");
    CHECK_EQ(sh("printf '\\200' | dd of=img bs=1 seek=79 conv=notrunc"), 0);
    check_refused(false, "bit 7");
}

/* ---- a backing that can't be reached ------------------------------------------------------ */

/* An extended-L2 overlay (4 KiB subclusters) over a layer in memory that is full of 0x11. */
struct over_mem {
    struct blk_node *node;
    struct mem_node *below;
    uint8_t buf[8192];
};

static bool co_open_over_mem(struct over_mem *o)
{
    struct error err;

    o->node = co_open_image("img", true, &err);
    o->below = mem_node_new(8 * MIB, 4096);
    if (!o->node || !o->below)
        return false;
    mem_node_fill(o->below, 0, 8 * MIB, BLK_ST_DATA, 0x11);
    blk_set_backing(o->node, &o->below->node);
    return true;
}

static void co_close_over_mem(struct over_mem *o)
{
    co_blk_node_unref(o->node);
    co_blk_node_unref(&o->below->node);
}

static bool make_overlay(bool extended)
{
    struct qcow2_create_opts opts = {.size_bytes = 8 * MIB, .extended_l2 = extended};
    struct error err;

    return create(&opts, &err) == 0;
}

static void source_down_co(void *arg)
{
    struct over_mem o = {0};
    struct qcow2_stats before, after;
    struct blk_extent ext;

    (void)arg;
    REQUIRE(co_open_over_mem(&o));
    memset(o.buf, 0x22, sizeof(o.buf));
    o.below->down = true;
    qcow2_get_stats(o.node, &before);
    CHECK_EQ(co_blk_write(o.node, 512, o.buf, 512, 0), -EHOSTDOWN);
    CHECK_EQ(co_blk_write_zeroes(o.node, 4608, 512, 0), -EHOSTDOWN);
    qcow2_get_stats(o.node, &after);
    CHECK_EQ(after.allocated_clusters, before.allocated_clusters + 1); /* the L2 table */
    CHECK_EQ(co_blk_status(o.node, 0, 8 * MIB, &ext), 0);
    CHECK_EQ(ext.state, BLK_ST_UNALLOCATED);
    CHECK_EQ(ext.length_bytes, 8 * MIB);
    CHECK_EQ(co_blk_write(o.node, 4096, o.buf, 8192, 0), 0);
    CHECK_EQ(co_blk_write(o.node, 4608, o.buf, 512, 0), 0);
    CHECK_EQ(co_blk_read(o.node, 4096, o.buf, 8192, 0), 0);
    CHECK_EQ(co_blk_read(o.node, 0, o.buf, 8192, 0), -EHOSTDOWN);
    CHECK_EQ(co_blk_read(o.node, 0, o.buf, 8192, BLK_LOCAL_ONLY), 0);
    CHECK(buf_is_zero(o.buf, 4096) && o.buf[4096] == 0x22);
    o.below->down = false;
    CHECK_EQ(co_blk_write(o.node, 512, o.buf + 4096, 512, 0), 0);
    CHECK_EQ(co_blk_read(o.node, 0, o.buf, 4096, 0), 0);
    CHECK(o.buf[0] == 0x11 && o.buf[512] == 0x22 && o.buf[1024] == 0x11);
    co_close_over_mem(&o);
}

TEST(qcow2_image, without_the_source_aligned_writes_go_on_and_others_change_nothing)
{
    if (make_overlay(true))
        mem_node_run(source_down_co, NULL);
}

struct racer {
    struct over_mem *o;
    uint64_t off;
    uint32_t flags;
    uint8_t fill;
    unsigned *running;
};

static void racer_co(void *arg)
{
    struct racer r = *(struct racer *)arg;
    uint8_t *buf = malloc(4096);

    memset(buf, r.fill, 4096);
    CHECK_EQ(co_blk_write(r.o->node, r.off, buf, 4096, r.flags), 0);
    --*r.running;
    free(buf);
}

/* A guest write and the copy of old data for the same range, both ways round. */
static void guest_wins_co(void *arg)
{
    struct over_mem o = {0};
    unsigned running = 0;

    (void)arg;
    REQUIRE(co_open_over_mem(&o));
    for (uint64_t i = 0; i < 64; i++) {
        struct racer r = {&o, i * 4096, i % 2 ? BLK_IF_UNALLOCATED : 0, i % 2 ? 0x11 : 0x22,
                          &running};

        running += 2;
        co_spawn(racer_co, &r);
        r.flags ^= BLK_IF_UNALLOCATED;
        r.fill ^= 0x33;
        co_spawn(racer_co, &r);
    }
    while (running)
        co_pause();
    for (uint64_t i = 0; i < 64; i++) {
        CHECK_EQ(co_blk_read(o.node, i * 4096, o.buf, 4096, 0), 0);
        CHECK(o.buf[0] == 0x22 && o.buf[4095] == 0x22);
    }
    co_close_over_mem(&o);
}

TEST(qcow2_image, a_guest_write_wins_over_a_copy_of_old_data)
{
    for (int ext = 0; ext < 2; ext++)
        if (make_overlay(ext))
            mem_node_run(guest_wins_co, NULL);
    if (have_qemu_img())
        CHECK_EQ(sh("qemu-img check img"), 0);
}

static void share_cluster_co(void *arg)
{
    struct over_mem o = {0};
    struct qcow2_stats stats;
    unsigned running = 32;

    (void)arg;
    REQUIRE(co_open_over_mem(&o));
    for (uint64_t i = 0; i < 32; i++)
        co_spawn(racer_co, &(struct racer){&o, i * 4096, 0, (uint8_t)i, &running});
    while (running)
        co_pause();
    qcow2_get_stats(o.node, &stats);
    CHECK_EQ(stats.allocated_clusters, 2); /* L2 table and one cluster */
    for (uint64_t i = 0; i < 32; i++) {
        CHECK_EQ(co_blk_read(o.node, i * 4096, o.buf, 4096, 0), 0);
        CHECK_EQ(o.buf[17], i);
    }
    co_close_over_mem(&o);
}

TEST(qcow2_image, writers_to_parts_of_a_new_cluster_share_it)
{
    if (make_overlay(true))
        mem_node_run(share_cluster_co, NULL);
}

/* ---- garbage ------------------------------------------------------------------------------ */

/* Garbage over the metadata: requests may fail, nothing else may happen. */
static void garbage_co(void *arg)
{
    struct world *w = arg;
    uint8_t *buf = malloc(MIB);
    struct blk_extent ext;

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
    co_blk_node_unref(w->node);
    free(buf);
    w->done = true;
}

TEST(qcow2_image, garbage_in_the_metadata_fails_requests_only)
{
    unsigned rnd = test_seed();

    if (!have_qemu_img())
        return;
    make_base(4 * MIB, "");
    for (int i = 0; i < 60; i++) {
        const char *extra = i % 3 ? "" : "-c";

        CHECK_EQ(sh("rm -f img; qemu-img convert %s -O qcow2 -o cluster_size=%d,extended_l2=%s "
                    "base.raw img",
                    extra, i % 2 ? 16384 : 4096 << (i % 5), i % 2 ? "on" : "off"),
                 0);
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
