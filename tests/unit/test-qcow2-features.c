/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Features of the format around the data: external data files, bitmaps, marks in the header, what
 * a crash leaked, size changes, space that is given back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/ctest.h"
#include "tests/unit/qcow2-image.h"
#include "util/coroutine.h"
#include "util/size.h"

/* A step on the open image "img", in a coroutine. */
struct step {
    struct world w;
    void (*fn)(struct blk_node *node, void *arg);
    void *arg;
    struct qcow2_open_opts opts;
};

static void step_co(void *arg)
{
    struct step *s = container_of(arg, struct step, w);
    struct file_opts fo = {.writable = s->opts.writable, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file = NULL, *node = NULL;

    if (!co_file_open(path_of("img"), &fo, &file, &s->w.err) &&
        !co_qcow2_open_opts(file, &s->opts, &node, &s->w.err) && s->fn)
        s->fn(node, s->arg);
    s->w.failed = !node;
    co_blk_node_unref(file);
    co_blk_node_unref(node);
    s->w.done = true;
}

/* "" or why it can't be opened. */
static const char *on_image(struct qcow2_open_opts opts,
                            void (*fn)(struct blk_node *node, void *arg), void *arg)
{
    static struct step s;

    s = (struct step){.fn = fn, .arg = arg, .opts = opts};
    s.opts.cache = FILE_CACHE_WRITEBACK;
    run(step_co, &s.w);
    return s.w.failed ? s.w.err.msg : "";
}

static const struct qcow2_open_opts rw = {.writable = true}, ro = {0};

static void write_some(struct blk_node *node, void *arg)
{
    uint8_t *buf = malloc(MIB);

    (void)arg;
    memset(buf, 0x5a, MIB);
    CHECK_EQ(co_blk_write(node, 3 * MIB, buf, MIB, 0), 0);
    free(buf);
}

static int64_t blocks_of(const char *name)
{
    struct stat st;

    return stat(path_of(name), &st) ? -1 : (int64_t)st.st_blocks * 512;
}

static struct {
    unsigned told, fatal;
} sink;

/* ---- external data file ------------------------------------------------------------------- */

static void has_raw_data_file(struct blk_node *node, void *arg)
{
    struct qcow2_info info;

    qcow2_get_info(node, &info);
    CHECK_STR(info.data_file, "ext");
    CHECK(info.data_file_raw == (arg != NULL));
    write_some(node, NULL);
}

TEST(qcow2_features, a_raw_data_file_stays_one)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o data_file=ext,data_file_raw=on img 8M"), 0);
    CHECK_STR(on_image(rw, has_raw_data_file, &sink), "");
    CHECK_EQ(sh("qemu-img info img | grep 'data file raw: true'"), 0);
    CHECK_EQ(sh("qemu-io -f raw -c 'read -P 0x5a 3M 1M' ext"), 0);
    CHECK_EQ(sh("qemu-img compare -f qcow2 -F raw img ext"), 0);
}

static void write_near_the_end(struct blk_node *node, void *arg)
{
    uint8_t buf[512];

    (void)arg;
    memset(buf, 0x6b, sizeof(buf));
    CHECK_EQ(co_blk_write(node, node->size_bytes - 1024, buf, sizeof(buf), 0), 0);
    CHECK_EQ(co_blk_write_zeroes(node, node->size_bytes - 512, 512, 0), 0);
}

/* Made larger after it was preallocated: its last cluster holds nothing yet. */
TEST(qcow2_features, a_raw_data_file_ends_with_the_disk)
{
    static const char *const options[] = {"extended_l2=on", "cluster_size=4k", "compat=1.1"};
    struct stat st;

    if (!have_qemu_img())
        return;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        CHECK_EQ(sh("rm -f ext; qemu-img create -f qcow2 -o data_file=ext,data_file_raw=on,%s img "
                    "64k && qemu-img resize img 843264 && truncate -s 843264 ext",
                    options[i]),
                 0);
        CHECK_STR(on_image(rw, write_near_the_end, NULL), "");
        CHECK(!stat(path_of("ext"), &st) && st.st_size == 843264);
        CHECK_EQ(sh("qemu-io -f raw -c 'read -P 0x6b 842240 512' -c 'read -P 0 0 842240' ext"), 0);
        CHECK_EQ(sh("qemu-img compare -f qcow2 -F raw img ext"), 0);
    }
}

TEST(qcow2_features, what_is_wrong_with_a_data_file_is_said)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("rm -f ext; qemu-img create -f qcow2 -o data_file=ext img 8M && rm ext"), 0);
    CHECK(strstr(on_image(ro, NULL, NULL), "external data file: opening"));
    CHECK_EQ(sh("ln img ext"), 0);
    CHECK(strstr(on_image(ro, NULL, NULL), "names itself"));
    CHECK_EQ(sh("rm ext; touch ext; printf XXXX | dd of=img bs=1 seek=112 conv=notrunc"), 0);
    CHECK(strstr(on_image(ro, NULL, NULL), "does not name it"));
}

static void trim_all(struct blk_node *node, void *arg)
{
    (void)arg;
    CHECK_EQ(co_blk_discard(node, 0, node->size_bytes), 0);
    CHECK_EQ(co_blk_flush(node), 0);
}

TEST(qcow2_features, discarded_data_leaves_the_disk)
{
    static const char *const options[] = {"compat=1.1", "extended_l2=on", "data_file=ext",
                                          "data_file=ext,data_file_raw=on"};

    if (!have_qemu_img())
        return;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const char *where = i < 2 ? "img" : "ext";

        CHECK_EQ(sh("rm -f img ext; qemu-img create -f qcow2 -o %s img 32M && "
                    "qemu-io -c 'write -P 1 0 32M' img",
                    options[i]),
                 0);
        CHECK(blocks_of(where) >= (int64_t)(32 * MIB));
        CHECK_STR(on_image(rw, trim_all, NULL), "");
        CHECK(blocks_of(where) < (int64_t)MIB);
        CHECK_EQ(sh("qemu-img check img && qemu-io -c 'read -P 0 0 32M' img"), 0);
    }
}

/* ---- marks in the header -------------------------------------------------------------------- */

/* ---- zeros that keep their room ---- */

static uint64_t room_of_image(void)
{
    struct stat st;

    return stat(path_of("img"), &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static void check_says(struct blk_node *node, uint64_t off, uint64_t bytes, enum blk_state state,
                       bool anchored)
{
    struct blk_extent e = {0};

    CHECK_EQ(co_blk_status(node, off, bytes, &e), 0);
    CHECK_EQ(e.length_bytes, bytes);
    CHECK_EQ(e.state, state);
    CHECK_EQ(e.anchored, anchored);
}

static void anchor_some(struct blk_node *node, void *arg)
{
    uint8_t *buf = calloc(1, MIB);
    uint64_t room;

    (void)arg;
    CHECK(node->limits.can_anchor);
    memset(buf, 0x5a, MIB);
    CHECK_EQ(co_blk_write(node, MIB, buf, MIB, 0), 0);
    CHECK_EQ(co_blk_write_zeroes(node, 0, 6 * MIB, BLK_ANCHOR), 0);
    check_says(node, 0, 6 * MIB, BLK_ST_ZERO, true);
    CHECK_EQ(co_blk_flush(node), 0);
    room = room_of_image();
    CHECK(room >= 6 * MIB);
    CHECK_EQ(co_blk_read(node, MIB, buf, MIB, 0), 0);
    CHECK(buf_is_zero(buf, MIB));
    memset(buf, 0x5a, MIB);
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(co_blk_write(node, i * MIB, buf, MIB, 0), 0);
    CHECK_EQ(co_blk_flush(node), 0);
    CHECK(room_of_image() <= room + 65536); /* metadata */
    check_says(node, 0, 6 * MIB, BLK_ST_DATA, false);
    /* what isn't a whole cluster is written; what is given back is not anchored any more */
    CHECK_EQ(co_blk_write_zeroes(node, 6 * MIB + 512, 512, BLK_ANCHOR), 0);
    check_says(node, 6 * MIB + 512, 512, BLK_ST_DATA, false);
    CHECK_EQ(co_blk_write_zeroes(node, 0, 4 * MIB, BLK_ANCHOR), 0);
    CHECK_EQ(co_blk_discard(node, 0, 2 * MIB), 0);
    check_says(node, 2 * MIB, 2 * MIB, BLK_ST_ZERO, true);
    CHECK_EQ(co_blk_read(node, 0, buf, MIB, 0), 0);
    CHECK(buf_is_zero(buf, MIB));
    free(buf);
}

TEST(qcow2_features, anchored_zeros_keep_their_room)
{
    static const char *const options[] = {"compat=1.1", "cluster_size=4k",
                                          "extended_l2=on,cluster_size=128k"};

    if (!have_qemu_img())
        return;
    for (unsigned i = 0; i < ARRAY_LEN(options); i++) {
        CHECK_EQ(sh("qemu-img create -f qcow2 -o %s img 8M", options[i]), 0);
        CHECK_STR(on_image(rw, anchor_some, NULL), "");
        CHECK_EQ(sh("qemu-img check img"), 0);
        CHECK_EQ(sh("qemu-img map --output=json -s 2M -l 2M img | grep -q "
                    "'\"zero\": true.*\"offset\"'"),
                 0);
    }
}

static void cannot_anchor(struct blk_node *node, void *arg)
{
    (void)arg;
    CHECK(!node->limits.can_anchor);
    CHECK_EQ(co_blk_write_zeroes(node, 0, 65536, BLK_ANCHOR), -ENOTSUP);
}

TEST(qcow2_features, without_a_place_for_zeros_nothing_is_anchored)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o compat=0.10 img 8M"), 0);
    CHECK_STR(on_image(rw, cannot_anchor, NULL), "");
    CHECK_EQ(sh("qemu-img create -f qcow2 -o data_file=anchor.data img 8M"), 0);
    CHECK_STR(on_image(rw, cannot_anchor, NULL), "");
}

TEST(qcow2_features, bitmaps_become_inconsistent_and_leak_nothing)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img 64M && qemu-img bitmap --add --enable img one && "
                "qemu-img bitmap --add --disable -g 4k img a-longer-name"),
             0);
    CHECK_STR(on_image(ro, NULL, NULL), "");
    CHECK_EQ(sh("qemu-img info img | grep in-use"), 1);
    CHECK_STR(on_image(rw, write_some, NULL), "");
    CHECK_EQ(sh("qemu-img info img >info && test $(grep -c in-use info) = 2"), 0);
    CHECK_STR(on_image(rw, write_some, NULL), "");
    CHECK_EQ(sh("qemu-img check img && qemu-img bitmap --remove img one && "
                "qemu-img bitmap --remove img a-longer-name && qemu-img check img"),
             0);
}

TEST(qcow2_features, a_bitmap_directory_that_makes_no_sense_is_left_alone)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img 64M && qemu-img bitmap --add img one && "
                "off=$(grep -obUa one img | tail -n 1 | cut -d: -f1) && "
                "printf '\\377\\377' | dd of=img bs=1 seek=$((off - 6)) conv=notrunc"),
             0);
    CHECK_STR(on_image(rw, write_some, NULL), "");
    CHECK_EQ(sh("qemu-io -c 'read -P 0x5a 3M 1M' img"), 0);
    CHECK_EQ(sh("qemu-img check -r leaks img; qemu-img check img"), 0);
}

TEST(qcow2_features, a_dirty_image_is_repaired_before_it_is_written)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o lazy_refcounts=on img 64M; "
                "qemu-io -c 'write -P 7 0 9M' -c flush -c abort img; "
                "qemu-img info img | grep 'dirty flag\\|incompatible' ; "
                "python3 -c 'import sys; d = open(\"img\", \"rb\").read(80); "
                "sys.exit(not d[79] & 1)'"),
             0);
    CHECK_STR(on_image(ro, NULL, NULL), "");
    CHECK_STR(on_image(rw, write_some, NULL), "");
    CHECK_EQ(sh("qemu-img check img && qemu-io -c 'read -P 7 0 3M' -c 'read -P 0x5a 3M 1M' "
                "-c 'read -P 7 4M 5M' img"),
             0);
    CHECK_EQ(sh("qemu-img info img | grep 'lazy refcounts: true'"), 0);
}

static void on_corrupt(struct blk_node *node, const char *what, bool fatal)
{
    (void)node;
    CHECK(*what);
    sink.told++;
    sink.fatal += fatal;
}

static void meet_corruption(struct blk_node *node, void *arg)
{
    uint8_t *buf = calloc(1, 65536);

    CHECK_EQ(co_blk_read(node, 0, buf, 65536, 0), -EIO);
    CHECK_EQ(co_blk_read(node, MIB, buf, 65536, 0), 0);
    CHECK_EQ(buf[9], 3);
    CHECK_EQ(co_blk_write(node, MIB, buf, 65536, 0), arg ? -EIO : -EROFS);
    CHECK_EQ(co_blk_flush(node), 0);
    free(buf);
}

TEST(qcow2_features, an_image_found_corrupt_is_marked_and_takes_no_more_writes)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img 8M && qemu-io -c 'write -P 3 0 2M' img && "
                "printf '\\200\\0\\0\\0\\0\\1\\2\\0' | dd of=img bs=1 seek=262144 conv=notrunc"),
             0);
    qcow2_set_corrupt_sink(on_corrupt);
    CHECK_STR(on_image(ro, meet_corruption, NULL), "");
    CHECK(sink.told == 1 && !sink.fatal);
    CHECK_EQ(sh("qemu-img info img | grep 'corrupt: false'"), 0);
    CHECK_STR(on_image(rw, meet_corruption, &sink), "");
    CHECK(sink.told == 2 && sink.fatal == 1);
    qcow2_set_corrupt_sink(NULL);
    CHECK_EQ(sh("qemu-img info img | grep 'corrupt: true'"), 0);
    CHECK(strstr(on_image(rw, NULL, NULL), "marked corrupt"));
}

/* ---- what a crash leaked ------------------------------------------------------------------ */

TEST(qcow2_features, leaked_clusters_are_freed_at_opening_when_asked_for)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img 8M && qemu-io -c 'write -P 3 0 2M' img && "
                "printf '\\0\\0\\0\\0\\0\\0\\0\\0' | dd of=img bs=1 seek=262160 conv=notrunc; "
                "qemu-img check img; test $? = 3"),
             0);
    CHECK_STR(on_image(rw, NULL, NULL), "");
    CHECK_EQ(sh("qemu-img check img"), 3);
    CHECK_STR(
        on_image((struct qcow2_open_opts){.writable = true, .fix_leaks = true}, write_some, NULL),
        "");
    CHECK_EQ(sh("qemu-img check img"), 0);
}

/* ---- size --------------------------------------------------------------------------------- */

static void shrink_and_grow(struct blk_node *node, void *arg)
{
    struct error err = ERROR_INIT;
    uint8_t *buf = malloc(MIB);

    (void)arg;
    CHECK_EQ(node->drv->co_resize(node, 4 * MIB, &err), -ENOTSUP);
    CHECK_EQ(co_qcow2_shrink(node, 5 * MIB + 512, &err), 0);
    CHECK_EQ(node->size_bytes, 5 * MIB + 512);
    CHECK_EQ(co_blk_read(node, 4 * MIB, buf, MIB, 0), 0);
    CHECK_EQ(buf[MIB - 1], 9);
    CHECK_EQ(node->drv->co_resize(node, 24 * MIB, &err), 0);
    CHECK_EQ(co_blk_read(node, 5 * MIB, buf, MIB, 0), 0);
    CHECK(buf[511] == 9 && buf_is_zero(buf + 512, MIB - 512));
    CHECK_EQ(co_qcow2_shrink(node, 5 * MIB + 512, &err), 0);
    free(buf);
}

TEST(qcow2_features, a_shrunk_image_gives_its_space_back_and_forgets)
{
    static const char *const options[] = {
        "compat=1.1",      "compat=0.10",   "cluster_size=512", "extended_l2=on",
        "cluster_size=2M", "data_file=ext", "cluster_size=4k",  "data_file=ext,data_file_raw=on",
    };

    if (!have_qemu_img())
        return;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        CHECK_EQ(sh("rm -f img ext; qemu-img create -f qcow2 -o %s img 24M && "
                    "qemu-io -c 'write -P 9 0 24M' img",
                    options[i]),
                 0);
        CHECK_STR(on_image(rw, shrink_and_grow, NULL), "");
        CHECK_EQ(sh("qemu-img check img && qemu-io -c 'read -P 9 0 5243392' img"), 0);
        CHECK(blocks_of("img") < (int64_t)(17 * MIB));
    }
}

TEST(qcow2_features, shrinking_leaves_snapshots_whole)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o cluster_size=4k img 24M && "
                "qemu-io -c 'write -P 9 0 24M' img && qemu-img snapshot -c one img"),
             0);
    CHECK_STR(on_image(rw, shrink_and_grow, NULL), "");
    CHECK_EQ(sh("qemu-img check img && qemu-io -c 'read -P 9 0 5243392' img && "
                "qemu-img snapshot -a one img && qemu-img check img && "
                "qemu-io -c 'read -P 9 0 24M' img && qemu-img info img | grep '24 MiB'"),
             0);
}

/* ---- the metadata cache ---------------------------------------------------------------------- */

static void use_small_cache(struct blk_node *node, void *arg)
{
    uint8_t *buf = malloc(65536);
    struct qcow2_stats st;
    uint64_t misses;

    (void)arg;
    qcow2_get_stats(node, &st);
    CHECK_EQ(st.cache_bytes, 128 * 1024);
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t off = 0; off < node->size_bytes; off += 16 * MIB)
            CHECK_EQ(co_blk_read(node, off, buf, 65536, 0), 0);
    qcow2_get_stats(node, &st);
    CHECK(st.cached_bytes <= 128 * 1024);
    CHECK(st.misses >= 128);
    CHECK_EQ(qcow2_set_cache_bytes(node, 0), 0);
    for (uint64_t off = 0; off < node->size_bytes; off += 16 * MIB)
        CHECK_EQ(co_blk_read(node, off, buf, 65536, 0), 0);
    qcow2_get_stats(node, &st);
    misses = st.misses;
    for (uint64_t off = 0; off < node->size_bytes; off += 16 * MIB)
        CHECK_EQ(co_blk_read(node, off, buf, 65536, 0), 0);
    qcow2_get_stats(node, &st);
    CHECK_EQ(st.misses, misses);
    CHECK(st.hits >= 64);
    CHECK(st.cache_bytes <= 512 * 1024);
    free(buf);
}

TEST(qcow2_features, the_metadata_cache_keeps_to_its_bound)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o preallocation=metadata,cluster_size=16k img 1G"), 0);
    CHECK_STR(on_image((struct qcow2_open_opts){.cache_bytes = 128 * 1024}, use_small_cache, NULL),
              "");
}
