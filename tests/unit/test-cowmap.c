/* SPDX-License-Identifier: BSD-3-Clause */
/* A partial raw image over a layer in memory: what is local, what a kill leaves, how it ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lun-backends/cowmap-int.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/bitmap.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

#define KIB  1024u
#define DISK (1024u * KIB + 1536) /* ends inside a block */

static char path[256], partial[300], map[300];
static struct mem_node *base;
static struct blk_node *top;
static struct error err;

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(2);
    blk_init();
}

static void co_create(void *arg)
{
    *(int *)arg = co_cowmap_create(path, NULL, DISK, 0, "iscsi://host/name/1", &err);
}

static void co_open(void *arg)
{
    *(int *)arg = co_cowmap_open(path, NULL, &top, &err);
}

static void co_complete(void *arg)
{
    *(int *)arg = top->drv->co_change_backing(top, NULL, NULL, &err);
}

static int call(void (*fn)(void *))
{
    int ret = 1;

    memset(&err, 0, sizeof(err));
    mem_node_run(fn, &ret);
    return ret;
}

static bool exists(const char *name)
{
    return access(name, F_OK) == 0;
}

static void open_again(void)
{
    CHECK_EQ(call(co_open), 0);
    CHECK_STR(err.msg, "");
    blk_set_backing(top, &base->node);
}

static void close_it(void)
{
    blk_set_backing(top, NULL);
    blk_node_unref(top);
    CHECK(TURN_UNTIL(!blk_closing()));
}

/* The backing is a little shorter than the disk, and all of it 0x11. */
static void set_up(void)
{
    static int nr;

    snprintf(path, sizeof(path), "%s/disk%d.raw", ctest_tmpdir(), nr++);
    snprintf(partial, sizeof(partial), "%s.partial", path);
    snprintf(map, sizeof(map), "%s.cowmap", path);
    base = mem_node_new(1024 * KIB, 4 * KIB);
    mem_node_fill(base, 0, 1024 * KIB, BLK_ST_DATA, 0x11);
    CHECK_EQ(call(co_create), 0);
    open_again();
}

static void tear_down(void)
{
    close_it();
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

struct io {
    enum blk_verb verb;
    uint64_t offset, bytes;
    uint32_t flags;
    uint8_t *buf;
    int ret;
};

static void co_io(void *arg)
{
    struct io *io = arg;
    struct iovec iov = {io->buf, io->bytes};

    if (io->verb == BLK_WRITE_ZEROES)
        io->ret = co_blk_write_zeroes(top, io->offset, io->bytes, io->flags);
    else if (io->verb == BLK_DISCARD)
        io->ret = co_blk_discard(top, io->offset, io->bytes);
    else if (io->verb == BLK_FLUSH)
        io->ret = co_blk_flush(top);
    else
        io->ret = co_blk_rw(top, io->verb, io->offset, &iov, 1, io->flags);
}

static int change(enum blk_verb verb, uint64_t offset, uint64_t bytes, uint32_t flags, uint8_t fill)
{
    struct io io = {verb, offset, bytes, flags, malloc(bytes + 1), 1};

    memset(io.buf, fill, bytes);
    mem_node_run(co_io, &io);
    free(io.buf);
    return io.ret;
}

/* True if all of the range reads @fill. */
static bool reads(uint64_t offset, uint64_t bytes, uint8_t fill)
{
    struct io io = {BLK_READ, offset, bytes, 0, malloc(bytes), 1};
    bool same = true;

    memset(io.buf, 0xee, bytes);
    mem_node_run(co_io, &io);
    CHECK_EQ(io.ret, 0);
    for (uint64_t i = 0; i < bytes; i++)
        same = same && io.buf[i] == fill;
    free(io.buf);
    return same;
}

static struct blk_extent ext;

static void co_status(void *arg)
{
    CHECK_EQ(co_blk_status(top, *(uint64_t *)arg, DISK - *(uint64_t *)arg, &ext), 0);
}

static enum blk_state state_at(uint64_t offset)
{
    mem_node_run(co_status, &offset);
    return ext.state;
}

TEST(cowmap, what_is_not_local_is_the_backings)
{
    set_up();
    CHECK(reads(0, 1024 * KIB, 0x11));
    CHECK(reads(1024 * KIB, 1536, 0));
    CHECK_EQ(state_at(0), BLK_ST_UNALLOCATED);
    CHECK_EQ(ext.length_bytes, DISK);
    tear_down();
}

TEST(cowmap, a_write_of_part_of_a_block_brings_the_rest)
{
    set_up();
    CHECK_EQ(change(BLK_WRITE, 4 * KIB + 512, 8 * KIB, 0, 0x22), 0);
    CHECK(reads(0, 4 * KIB + 512, 0x11));
    CHECK(reads(4 * KIB + 512, 8 * KIB, 0x22));
    CHECK(reads(12 * KIB + 512, 8 * KIB, 0x11));
    CHECK_EQ(state_at(4 * KIB), BLK_ST_DATA);
    CHECK_EQ(ext.length_bytes, 12 * KIB);
    CHECK_EQ(state_at(16 * KIB), BLK_ST_UNALLOCATED);
    tear_down();
}

TEST(cowmap, zeroes_and_discards_hide_the_backing)
{
    set_up();
    CHECK_EQ(change(BLK_WRITE_ZEROES, 0, 64 * KIB, BLK_MAY_UNMAP, 0), 0);
    CHECK_EQ(change(BLK_DISCARD, 128 * KIB, 64 * KIB, 0, 0), 0);
    CHECK(reads(0, 64 * KIB, 0));
    CHECK(reads(64 * KIB, 64 * KIB, 0x11));
    CHECK(reads(128 * KIB, 64 * KIB, 0));
    CHECK_EQ(state_at(128 * KIB), BLK_ST_ZERO);
    tear_down();
}

TEST(cowmap, if_unallocated_leaves_what_is_local)
{
    set_up();
    CHECK_EQ(change(BLK_WRITE, 8 * KIB, 4 * KIB, 0, 0x22), 0);
    CHECK_EQ(change(BLK_WRITE, 0, 32 * KIB, BLK_IF_UNALLOCATED, 0x33), 0);
    CHECK(reads(0, 8 * KIB, 0x33));
    CHECK(reads(8 * KIB, 4 * KIB, 0x22));
    CHECK(reads(12 * KIB, 20 * KIB, 0x33));
    tear_down();
}

TEST(cowmap, a_source_that_is_down_fails_only_what_needs_it)
{
    set_up();
    base->down = true;
    CHECK_EQ(change(BLK_WRITE, 0, 4 * KIB, 0, 0x22), 0);
    CHECK_EQ(change(BLK_WRITE, 8 * KIB, 512, 0, 0x22), -EHOSTDOWN);
    CHECK_EQ(state_at(8 * KIB), BLK_ST_UNALLOCATED);
    CHECK(reads(0, 4 * KIB, 0x22));
    base->down = false;
    CHECK(reads(8 * KIB, 4 * KIB, 0x11));
    tear_down();
}

TEST(cowmap, the_last_block_may_be_short)
{
    set_up();
    CHECK_EQ(change(BLK_WRITE, DISK - 512, 512, 0, 0x22), 0);
    CHECK(reads(DISK - 512, 512, 0x22));
    CHECK(reads(DISK - 1536, 1024, 0));
    tear_down();
}

TEST(cowmap, a_write_of_what_is_local_touches_no_metadata)
{
    struct cowmap *cm;

    set_up();
    cm = to_cowmap(top);
    CHECK_EQ(change(BLK_WRITE, 0, 64 * KIB, BLK_FUA, 0x22), 0);
    CHECK(cowmap_is_clean(cm));
    CHECK_EQ(change(BLK_WRITE, 4 * KIB, 512, 0, 0x33), 0);
    CHECK(cowmap_is_clean(cm));
    tear_down();
}

/* What is on disk at this moment, as after kill -9: the map of a copy taken now. */
static uint64_t bits_on_disk(void)
{
    uint8_t buf[8];
    int fd = open(map, O_RDONLY);
    uint64_t bits = 0;

    CHECK_EQ(pread(fd, buf, 8, COWMAP_HEADER_BYTES), 8);
    close(fd);
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | buf[i];
    return bits;
}

TEST(cowmap, bits_reach_the_disk_with_a_flush_or_fua)
{
    set_up();
    CHECK_EQ(change(BLK_WRITE, 0, 8 * KIB, 0, 0x22), 0);
    CHECK_EQ(bits_on_disk(), 0);
    CHECK_EQ(change(BLK_FLUSH, 0, 0, 0, 0), 0);
    CHECK_EQ(bits_on_disk(), 3);
    CHECK_EQ(change(BLK_WRITE, 16 * KIB, 4 * KIB, BLK_FUA, 0x22), 0);
    CHECK_EQ(bits_on_disk(), 0x13);
    CHECK_EQ(change(BLK_WRITE, 12 * KIB, 4 * KIB, 0, 0x22), 0);
    CHECK_EQ(change(BLK_WRITE, 12 * KIB, 4 * KIB, BLK_FUA, 0x33), 0); /* local, its bit is not */
    CHECK_EQ(bits_on_disk(), 0x1b);
    tear_down();
}

TEST(cowmap, it_goes_on_where_it_was)
{
    set_up();
    CHECK_EQ(change(BLK_WRITE, 0, 8 * KIB, 0, 0x22), 0);
    CHECK_EQ(change(BLK_DISCARD, 32 * KIB, 8 * KIB, 0, 0), 0);
    close_it();
    open_again();
    CHECK_STR(cowmap_backing(top), "iscsi://host/name/1");
    CHECK(reads(0, 8 * KIB, 0x22));
    CHECK(reads(8 * KIB, 24 * KIB, 0x11));
    CHECK(reads(32 * KIB, 8 * KIB, 0));
    tear_down();
}

TEST(cowmap, complete_is_a_plain_file)
{
    struct stat st;

    set_up();
    CHECK_EQ(change(BLK_WRITE, 0, 1024 * KIB, 0, 0x22), 0);
    CHECK_EQ(call(co_complete), 0);
    CHECK(!exists(partial) && !exists(map) && exists(path));
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_size, DISK);
    CHECK(!cowmap_backing(top));
    CHECK(reads(0, 1024 * KIB, 0x22));
    CHECK_EQ(change(BLK_WRITE, 512, 512, BLK_FUA, 0x33), 0);
    CHECK_EQ(change(BLK_WRITE, 0, 4 * KIB, BLK_IF_UNALLOCATED, 0x44), 0);
    CHECK(reads(512, 512, 0x33));
    close_it();
    open_again();
    CHECK_STR(top->drv->name, "raw");
    CHECK(reads(512, 512, 0x33));
    tear_down();
}

/* A write whose bit was lost with a crash lies in the file, under a block that nobody has. */
TEST(cowmap, what_nobody_decided_is_zeros_at_the_end)
{
    uint8_t junk[512];
    int fd;

    set_up();
    mem_node_fill(base, 0, 1024 * KIB, BLK_ST_DATA, 0);
    fd = open(partial, O_WRONLY);
    memset(junk, 0x77, sizeof(junk));
    CHECK_EQ(pwrite(fd, junk, sizeof(junk), 100 * KIB), 512);
    CHECK_EQ(fsync(fd), 0);
    close(fd);
    CHECK(reads(96 * KIB, 8 * KIB, 0));
    CHECK_EQ(call(co_complete), 0);
    CHECK(reads(0, DISK, 0));
    tear_down();
}

TEST(cowmap, it_never_takes_the_place_of_another_file)
{
    int fd;

    set_up();
    fd = open(path, O_CREAT | O_WRONLY, 0644);
    close(fd);
    CHECK_EQ(call(co_complete), -EEXIST);
    CHECK(exists(partial) && exists(map));
    CHECK(reads(0, 4 * KIB, 0x11));
    tear_down();
}

TEST(cowmap, killed_after_the_rename_it_is_complete)
{
    set_up();
    close_it();
    CHECK_EQ(rename(partial, path), 0);
    CHECK_EQ(call(co_open), 0);
    CHECK(!cowmap_backing(top));
    CHECK(!exists(map));
    blk_set_backing(top, &base->node);
    tear_down();
}

TEST(cowmap, killed_between_link_and_unlink_it_is_complete)
{
    set_up();
    close_it();
    CHECK_EQ(link(partial, path), 0);
    CHECK_EQ(call(co_open), 0);
    CHECK(!cowmap_backing(top));
    CHECK(!exists(map) && !exists(partial));
    blk_set_backing(top, &base->node);
    tear_down();
}

TEST(cowmap, nothing_that_exists_is_made_anew)
{
    set_up();
    CHECK_EQ(call(co_create), -EEXIST);
    CHECK(exists(partial) && exists(map));
    tear_down();
}

static int open_broken(off_t at, const char *bytes, size_t n)
{
    int fd = open(map, O_WRONLY), ret;

    CHECK_EQ(pwrite(fd, bytes, n, at), (ssize_t)n);
    close(fd);
    ret = call(co_open);
    CHECK(*err.msg);
    return ret;
}

TEST(cowmap, a_damaged_map_is_refused)
{
    set_up();
    close_it();
    CHECK_EQ(open_broken(33, "x", 1), -EINVAL);
    CHECK_EQ(open_broken(0, "QFI\373", 4), -EINVAL);
    CHECK_EQ(truncate(map, 100), 0);
    CHECK_EQ(call(co_open), -EINVAL);
    CHECK_EQ(unlink(map), 0);
    CHECK_EQ(call(co_open), -ENOENT);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

TEST(cowmap, the_map_stays_small)
{
    CHECK_EQ(cowmap_choose_block(UINT64_C(1) << 40), 4096);
    CHECK_EQ(cowmap_choose_block((UINT64_C(1) << 40) + 512), 8192);
    CHECK_EQ(cowmap_choose_block(UINT64_C(10) << 40), 65536);
    CHECK_EQ(cowmap_choose_block(UINT64_C(1) << 60), 0);
}

/* Random changes against a model, with closings between. */
TEST(cowmap, a_model_agrees)
{
    uint8_t *model = malloc(DISK);
    unsigned seed = 4711;

    set_up();
    memset(model, 0x11, 1024 * KIB);
    memset(model + 1024 * KIB, 0, 1536);
    for (int i = 0; i < 400; i++) {
        uint64_t offset = (uint64_t)(rand_r(&seed) % (DISK / 512)) * 512;
        uint64_t wish = (uint64_t)(rand_r(&seed) % 80 + 1) * 512;
        uint64_t bytes = MIN_OF(wish, DISK - offset);
        enum blk_verb verb = (enum blk_verb[]){BLK_WRITE, BLK_WRITE, BLK_WRITE_ZEROES,
                                               BLK_DISCARD}[rand_r(&seed) % 4];
        uint8_t fill = verb == BLK_WRITE ? (uint8_t)(i % 250 + 1) : 0;

        CHECK_EQ(change(verb, offset, bytes, rand_r(&seed) % 8 ? 0 : BLK_FUA, fill), 0);
        memset(model + offset, fill, bytes);
        if (i % 100 == 99) {
            close_it();
            open_again();
        }
        for (uint64_t at = offset; at < offset + bytes; at += 512)
            REQUIRE(reads(at, 512, model[at]));
    }
    for (uint64_t at = 0; at < DISK; at += 512)
        REQUIRE(reads(at, 512, model[at]));
    free(model);
    tear_down();
}
