/* SPDX-License-Identifier: BSD-3-Clause */
/* Clusters that are written compressed, or have their place before they are written; reading an
 * internal snapshot. qemu-img makes and judges. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "tests/unit/ctest.h"
#include "tests/unit/qcow2-image.h"
#include "util/coroutine.h"
#include "util/size.h"

#define CLUSTER 65536

static void finish(struct world *w)
{
    co_blk_node_unref(w->node);
    w->done = true;
}

static bool is_all(const uint8_t *buf, size_t bytes, uint8_t byte)
{
    return buf[0] == byte && !memcmp(buf, buf + 1, bytes - 1);
}

static void pack_co(void *arg)
{
    struct world *w = arg;
    uint8_t *buf = malloc(CLUSTER);
    unsigned rnd = 7;

    w->node = co_open_image("img", true, &w->err);
    REQUIRE(w->node && buf);
    for (unsigned i = 0; i < 16; i++) { /* the same again: what was there before is freed */
        memset(buf, (int)(i % 8 + 1), CLUSTER);
        CHECK_EQ(co_qcow2_write_compressed(w->node, i % 8 * CLUSTER, buf, CLUSTER), 0);
    }
    fill_random(buf, CLUSTER, &rnd);
    CHECK_EQ(co_qcow2_write_compressed(w->node, 8 * CLUSTER, buf, CLUSTER), 0);
    memset(buf, 0x77, CLUSTER);
    CHECK_EQ(co_qcow2_write_compressed(w->node, w->node->size_bytes - 512, buf, 512), -EINVAL);
    CHECK_EQ(co_qcow2_write_compressed(w->node, 16 * CLUSTER, buf, 1024), 0); /* the disk's end */
    CHECK_EQ(co_qcow2_write_compressed(w->node, 512, buf, CLUSTER), -EINVAL);
    CHECK_EQ(co_qcow2_end_compressed(w->node), 0);
    CHECK_EQ(co_blk_read(w->node, 3 * CLUSTER, buf, CLUSTER, 0), 0);
    CHECK(is_all(buf, CLUSTER, 4));
    memset(buf, 0x55, 512);
    CHECK_EQ(co_blk_write(w->node, 4 * CLUSTER + 1024, buf, 512, 0), 0);
    free(buf);
    finish(w);
}

static void compress(const char *options)
{
    static struct world w;

    w = (struct world){0};
    CHECK_EQ(sh("qemu-img create -f qcow2 -o %s img %u", options, 16 * CLUSTER + 1024), 0);
    run(pack_co, &w);
    CHECK_EQ(sh("qemu-img check img"), 0);
    CHECK_EQ(sh("qemu-io -c 'read -P 8 448k 64k' -c 'read -P 0x77 1M 1k' -c 'read -P 5 256k 1k' "
                "-c 'read -P 0x55 263168 512' img"),
             0);
    CHECK_EQ(sh("qemu-img check img | grep -q ' 80.*compressed\\| 88.*compressed\\| 90.*compr'"),
             0);
}

TEST(qcow2_compress, clusters_are_packed_and_freed)
{
    if (!have_qemu_img())
        return;
    compress("compression_type=zlib");
    compress("compression_type=zstd");
    compress("refcount_bits=1");
    compress("extended_l2=on");
}

static void refuse_co(void *arg)
{
    struct world *w = arg;
    uint8_t *buf = calloc(1, CLUSTER);

    w->node = co_open_image("img", true, &w->err);
    REQUIRE(w->node && buf);
    CHECK_EQ(co_qcow2_write_compressed(w->node, 0, buf, CLUSTER), -ENOTSUP);
    free(buf);
    finish(w);
}

TEST(qcow2_compress, a_data_file_holds_nothing_compressed)
{
    static struct world w;

    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o data_file=ext img 1M"), 0);
    run(refuse_co, &w);
}

/* ---- places beforehand -------------------------------------------------------------------- */

static void prealloc_co(void *arg)
{
    struct world *w = arg;
    uint8_t buf[512];

    w->node = co_open_image("img", true, &w->err);
    REQUIRE(w->node);
    memset(buf, 0x66, sizeof(buf));
    CHECK_EQ(co_blk_write(w->node, 4 * MIB, buf, sizeof(buf), 0), 0);
    CHECK_EQ(co_qcow2_preallocate(w->node, MIB, (enum qcow2_prealloc)w->ops_left, false, &w->err),
             0);
    CHECK_EQ(co_qcow2_preallocate(w->node, 0, QCOW2_PREALLOC_METADATA, true, &w->err), -ENOTSUP);
    CHECK_EQ(co_blk_read(w->node, 4 * MIB, buf, sizeof(buf), 0), 0);
    CHECK(is_all(buf, sizeof(buf), 0x66));
    finish(w);
}

TEST(qcow2_compress, preallocation_keeps_what_is_there)
{
    static struct world w;

    if (!have_qemu_img())
        return;
    for (unsigned how = QCOW2_PREALLOC_METADATA; how <= QCOW2_PREALLOC_FULL; how++) {
        w = (struct world){.ops_left = how};
        CHECK_EQ(sh("qemu-img create -f qcow2 img 8M"), 0);
        run(prealloc_co, &w);
        CHECK_EQ(sh("qemu-img check img"), 0);
        CHECK_EQ(
            sh("qemu-io -c 'read -P 0x66 4M 512' -c 'read -P 0 0 4M' -c 'read -P 0 4194816 1M' "
               "img"),
            0);
        CHECK_EQ(sh("qemu-img check img | grep -q '112/128'"), 0);
    }
}

/* ---- snapshots ----------------------------------------------------------------------------- */

static struct {
    struct qcow2_snapshot_name name;
    int byte; /* -1: can't be opened */
} shot;

static void snapshot_co(void *arg)
{
    struct world *w = arg;
    struct qcow2_open_opts opts = {.snapshot = &shot.name};
    struct file_opts fo = {.cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file = NULL;
    uint8_t buf[512];

    REQUIRE(!co_file_open(path_of("img"), &fo, &file, &w->err));
    CHECK_EQ(co_qcow2_open_opts(file, &opts, &w->node, &w->err) == 0, shot.byte >= 0);
    co_blk_node_unref(file);
    if (w->node) {
        CHECK_EQ(co_blk_read(w->node, 0, buf, sizeof(buf), 0), 0);
        CHECK(is_all(buf, sizeof(buf), (uint8_t)shot.byte));
        CHECK_EQ(w->node->size_bytes, shot.byte == 1 ? MIB : 2 * MIB);
    }
    finish(w);
}

TEST(qcow2_compress, a_snapshot_is_found_by_id_and_name)
{
    static const struct {
        struct qcow2_snapshot_name name;
        int byte;
    } cases[] = {
        {{.any = "early"}, 1},  {{.any = "1"}, 1},  {{.name = "1"}, 2},
        {{.id = "2"}, 2},       {{.any = "3"}, -1}, {{.id = "1", .name = "early"}, 1},
        {{.name = "late"}, -1}, {{.id = "9"}, -1},  {{.id = "2", .name = "early"}, -1},
    };
    static struct world w;

    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img 1M && qemu-io -c 'write -P 1 0 64k' img && "
                "qemu-img snapshot -c early img && qemu-img resize img 2M && "
                "qemu-io -c 'write -P 2 0 64k' img && qemu-img snapshot -c 1 img && "
                "qemu-io -c 'write -P 3 0 64k' img"),
             0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        w = (struct world){0};
        shot.name = cases[i].name;
        shot.byte = cases[i].byte;
        run(snapshot_co, &w);
    }
}
