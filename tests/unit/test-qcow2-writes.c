/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What writes to a qcow2 image cost, in requests to its file and to its backing: full clusters read
 * nothing, partial ones are one read and one write, tables are written by the flush, once for all
 * that changed, and zeros are metadata.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "tests/unit/qcow2-image.h"
#include "util/coroutine.h"
#include "util/size.h"

#define KIB        UINT64_C(1024)
#define CLUSTER    (64 * KIB)
#define DISK_BYTES (64 * MIB)

/* ---- a filter that counts ------------------------------------------------------------- */

struct counter {
    struct blk_node node;
    unsigned data[BLK_NR_VERBS], meta[BLK_NR_VERBS];
    unsigned running, most_running; /* data writes */
};

static int co_pass(struct blk_node *file, struct blk_req *req)
{
    uint64_t off = req->offset_bytes, bytes = req->length_bytes;

    switch (req->verb) {
    case BLK_WRITE_ZEROES:
        return co_blk_write_zeroes(file, off, bytes, req->flags);
    case BLK_DISCARD:
        return co_blk_discard(file, off, bytes);
    case BLK_STATUS:
        return co_blk_status(file, off, bytes, &req->extent);
    case BLK_FLUSH:
        return co_blk_flush(file);
    default:
        return co_blk_rw(file, req->verb, off, req->iov, req->niov, req->flags);
    }
}

static void pass_co(void *arg)
{
    struct blk_req *req = arg;
    struct counter *c = container_of(req->node, struct counter, node);
    bool meta = req->flags & BLK_META, write = req->verb == BLK_WRITE && !meta;
    int ret;

    (meta ? c->meta : c->data)[req->verb]++;
    c->running += write;
    c->most_running = MAX_OF(c->most_running, c->running);
    ret = co_pass(c->node.file.child, req);
    c->running -= write;
    c->node.size_bytes = c->node.file.child->size_bytes;
    blk_complete(req, ret);
}

static void count(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    co_spawn(pass_co, req);
}

static const struct blk_driver counter_driver = {
    .name = "counter",
    .instance_bytes = sizeof(struct counter),
    .is_filter = true,
    .grows = true,
    .submit = {[BLK_READ] = count,
               [BLK_WRITE] = count,
               [BLK_WRITE_ZEROES] = count,
               [BLK_DISCARD] = count,
               [BLK_FLUSH] = count,
               [BLK_STATUS] = count},
};

/* ---- an overlay with counted requests -------------------------------------------------- */

struct rig {
    struct blk_node *node;
    struct mem_node *below;
    struct counter *file;
    uint8_t *buf; /* a MiB of 0x22 */
    unsigned running;
};

static bool co_set_up(struct rig *r, bool extended)
{
    struct qcow2_create_opts how = {.size_bytes = DISK_BYTES, .extended_l2 = extended};
    struct file_opts fo = {.writable = true, .create = true, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file;
    struct error err;

    *r = (struct rig){.buf = malloc(MIB), .below = mem_node_new(DISK_BYTES, 4096)};
    memset(r->buf, 0x22, MIB);
    mem_node_fill(r->below, 0, DISK_BYTES, BLK_ST_DATA, 0x11);
    unlink(path_of("img"));
    if (co_file_open(path_of("img"), &fo, &file, &err) || co_qcow2_create(file, &how, &err))
        return false;
    co_blk_node_unref(file);
    r->node = co_open_image("img", true, &err);
    if (!r->node)
        return false;
    blk_set_backing(r->node, &r->below->node);
    file = blk_node_new(&counter_driver, NULL);
    file->size_bytes = r->node->file.child->size_bytes;
    file->limits = r->node->file.child->limits;
    blk_set_file(file, r->node->file.child);
    blk_set_file(r->node, file);
    r->file = container_of(file, struct counter, node);
    return true;
}

static void co_tear_down(struct rig *r)
{
    co_blk_node_unref(r->node);
    co_blk_node_unref(&r->file->node);
    co_blk_node_unref(&r->below->node);
    free(r->buf);
}

/* The first change adds an L2 table; what comes after is what is counted. */
static void co_start(struct rig *r)
{
    CHECK_EQ(co_blk_write(r->node, DISK_BYTES - CLUSTER, r->buf, CLUSTER, 0), 0);
    CHECK_EQ(co_blk_flush(r->node), 0);
    memset(r->file->data, 0, sizeof(r->file->data));
    memset(r->file->meta, 0, sizeof(r->file->meta));
    r->file->most_running = 0;
    r->below->reads = 0;
    r->below->read_bytes = 0;
}

struct job {
    struct rig *r;
    uint64_t off;
};

static void write_cluster_co(void *arg)
{
    struct job j = *(struct job *)arg;

    CHECK_EQ(co_blk_write(j.r->node, j.off, j.r->buf, CLUSTER, 0), 0);
    j.r->running--;
}

static void full_clusters_co(void *arg)
{
    struct rig r;

    (void)arg;
    REQUIRE(co_set_up(&r, false));
    co_start(&r);
    for (unsigned i = 0; i < 256; i++) {
        r.running++;
        co_spawn(write_cluster_co, &(struct job){&r, (i * 37 % 256) * CLUSTER});
    }
    while (r.running)
        co_pause();
    CHECK_EQ(r.below->reads, 0);
    CHECK_EQ(r.file->data[BLK_READ], 0);
    CHECK_EQ(r.file->data[BLK_WRITE], 256);
    CHECK(r.file->most_running > 16);
    CHECK_EQ(r.file->meta[BLK_WRITE], 0);
    CHECK_EQ(co_blk_flush(r.node), 0);
    CHECK(r.file->meta[BLK_WRITE] <= 4); /* a slice of L2, one of refcounts, each once */
    CHECK_EQ(r.file->data[BLK_FLUSH] + r.file->meta[BLK_FLUSH], 2);
    co_tear_down(&r);
}

TEST(qcow2_writes, full_clusters_read_nothing_and_share_one_update_of_the_tables)
{
    mem_node_run(full_clusters_co, NULL);
}

static void partial_co(void *arg)
{
    struct rig r;
    uint8_t *seen = malloc(CLUSTER);

    (void)arg;
    REQUIRE(co_set_up(&r, false));
    co_start(&r);
    CHECK_EQ(co_blk_write(r.node, CLUSTER + 8 * KIB, r.buf, 4 * KIB, 0), 0);
    CHECK_EQ(r.below->reads, 1);
    CHECK_EQ(r.file->data[BLK_WRITE], 1);
    CHECK_EQ(co_blk_write(r.node, 4 * CLUSTER, r.buf, 4 * KIB, 0), 0);
    CHECK_EQ(r.below->reads, 2);
    CHECK_EQ(r.below->read_bytes, CLUSTER + 60 * KIB);
    CHECK_EQ(r.file->data[BLK_WRITE], 2);
    CHECK_EQ(co_blk_read(r.node, CLUSTER, seen, CLUSTER, 0), 0);
    for (unsigned i = 0; i < CLUSTER; i++)
        REQUIRE(seen[i] == (i >= 8 * KIB && i < 12 * KIB ? 0x22 : 0x11));
    free(seen);
    co_tear_down(&r);
}

TEST(qcow2_writes, a_partial_cluster_is_one_read_and_one_write)
{
    mem_node_run(partial_co, NULL);
}

static void wide_co(void *arg)
{
    struct rig r;

    (void)arg;
    REQUIRE(co_set_up(&r, false));
    co_start(&r);
    CHECK_EQ(co_blk_write(r.node, CLUSTER - 4 * KIB, r.buf, 8 * CLUSTER, 0), 0);
    CHECK_EQ(r.below->read_bytes, 64 * KIB); /* the ends alone: 60 + 4 */
    CHECK_EQ(r.file->data[BLK_WRITE], 1);
    co_tear_down(&r);
}

TEST(qcow2_writes, a_wide_write_does_not_read_its_middle)
{
    mem_node_run(wide_co, NULL);
}

static void subclusters_co(void *arg)
{
    struct rig r;

    (void)arg;
    REQUIRE(co_set_up(&r, true));
    co_start(&r);
    CHECK_EQ(co_blk_write(r.node, 8 * KIB, r.buf, 4 * KIB, 0), 0);
    CHECK_EQ(r.below->reads, 0);
    CHECK_EQ(co_blk_write(r.node, 20 * KIB + 512, r.buf, 512, 0), 0);
    CHECK_EQ(r.below->reads, 1);
    CHECK_EQ(r.below->read_bytes, 4 * KIB);
    CHECK_EQ(r.file->data[BLK_WRITE], 2);
    co_tear_down(&r);
}

TEST(qcow2_writes, subclusters_are_all_that_is_copied)
{
    mem_node_run(subclusters_co, NULL);
}

static void zeros_co(void *arg)
{
    struct rig r;

    (void)arg;
    REQUIRE(co_set_up(&r, false));
    co_start(&r);
    CHECK_EQ(co_blk_write_zeroes(r.node, 0, 16 * MIB, BLK_MAY_UNMAP), 0);
    CHECK_EQ(co_blk_flush(r.node), 0);
    CHECK_EQ(r.below->reads, 0);
    CHECK_EQ(r.file->data[BLK_WRITE] + r.file->data[BLK_WRITE_ZEROES], 0);
    CHECK(r.file->meta[BLK_WRITE] <= 2);
    co_tear_down(&r);
}

TEST(qcow2_writes, zeros_are_metadata)
{
    mem_node_run(zeros_co, NULL);
}

static void bad_middle_co(void *arg)
{
    struct rig r;
    uint8_t *seen = malloc(CLUSTER);

    (void)arg;
    REQUIRE(co_set_up(&r, false));
    co_start(&r);
    r.below->read_error = -EIO;
    r.below->faults_left = 1;
    CHECK_EQ(co_blk_write(r.node, CLUSTER + 8 * KIB, r.buf, 4 * KIB, 0), 0);
    CHECK_EQ(co_blk_read(r.node, CLUSTER, seen, CLUSTER, 0), 0);
    CHECK(seen[0] == 0x11 && seen[8 * KIB] == 0x22 && seen[12 * KIB] == 0x11);
    r.below->read_error = -EIO;
    r.below->faults_left = 0;
    CHECK_EQ(co_blk_write(r.node, 9 * CLUSTER + 512, r.buf, 512, 0), -EIO);
    free(seen);
    co_tear_down(&r);
}

TEST(qcow2_writes, what_is_overwritten_need_not_be_readable)
{
    mem_node_run(bad_middle_co, NULL);
}
