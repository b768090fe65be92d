/* SPDX-License-Identifier: BSD-3-Clause */
/* The file node on a block device: this program's fstat, ioctl and fallocate make a file one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lun-backends/cowmap.h"
#include "lun-backends/file.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/workers.h"

#define KIB      1024u
#define DEV_SIZE (1024u * KIB)

static unsigned nr_punched, nr_zeroed, nr_discarded;
static int punch_error, zero_error; /* positive; 0: as the file does it */

int fstat(int fd, struct stat *st)
{
    int ret = (int)syscall(SYS_fstat, fd, st);

    if (!ret && S_ISREG(st->st_mode) && st->st_size == DEV_SIZE) {
        st->st_mode = (st->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
        st->st_size = 0; /* as of a device */
    }
    return ret;
}

static int zero_range(int fd, const uint64_t *range)
{
    nr_zeroed++;
    if (zero_error) {
        errno = zero_error;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                        (off_t)range[0], (off_t)range[1]);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    switch (request) {
    case BLKGETSIZE64:
        *(uint64_t *)arg = DEV_SIZE;
        return 0;
    case BLKSSZGET:
        *(int *)arg = 4096;
        return 0;
    case BLKZEROOUT:
        return zero_range(fd, arg);
    case BLKDISCARD:
        nr_discarded++;
        return 0;
    default:
        return (int)syscall(SYS_ioctl, fd, request, arg);
    }
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    nr_punched++;
    if (!punch_error)
        return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
    errno = punch_error;
    return -1;
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(2);
    blk_init();
}

static char path[4096], map[4200];
static struct error err;

static void make_device(const char *name)
{
    static uint8_t fill[DEV_SIZE];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", ctest_tmpdir(), name);
    snprintf(map, sizeof(map), "%s.map", path);
    memset(fill, 0xa5, sizeof(fill));
    f = fopen(path, "w");
    CHECK(f && fwrite(fill, sizeof(fill), 1, f) == 1);
    if (f)
        fclose(f);
    nr_punched = nr_zeroed = nr_discarded = 0;
    punch_error = zero_error = 0;
    memset(&err, 0, sizeof(err));
}

static struct blk_node *co_open(void)
{
    struct file_opts o = {.writable = true};
    struct blk_node *node = NULL;

    CHECK_EQ(co_file_open(path, &o, &node, &err), 0);
    return node;
}

/* Every byte of [from, to) is @value. */
static bool co_all(struct blk_node *node, uint64_t from, uint64_t to, uint8_t value)
{
    static uint8_t buf[DEV_SIZE] __attribute__((aligned(4096)));

    if (co_blk_read(node, from, buf, to - from, 0))
        return false;
    for (uint64_t i = 0; i < to - from; i++) {
        if (buf[i] != value)
            return false;
    }
    return true;
}

static void run(void (*fn)(void *))
{
    bool done = false;

    co_spawn(fn, &done);
    while (!done)
        loop_turn(true);
}

static void co_sizes(void *done)
{
    struct blk_node *node = co_open();
    struct file_identity id;

    if (node) {
        CHECK_EQ(node->size_bytes, DEV_SIZE);
        file_node_identity(node, &id);
        CHECK(id.is_device);
        CHECK(node->drv->co_resize(node, DEV_SIZE + 4096u, &err) < 0);
        CHECK_EQ(co_blk_write(node, DEV_SIZE - 512u, "", 0, 0), 0);
        co_blk_node_unref(node);
    }
    *(bool *)done = true;
}

TEST(block_device, its_size_comes_from_the_kernel_and_stays)
{
    make_device("sizes");
    run(co_sizes);
}

static void co_unaligned(void *done)
{
    struct blk_node *node = co_open();
    uint8_t buf[512];

    memset(buf, 7, sizeof(buf));
    if (node) {
        CHECK_EQ(co_blk_write(node, 4096u + 512u, buf, sizeof(buf), 0), 0);
        CHECK(co_all(node, 4096u, 4096u + 512u, 0xa5));
        CHECK(co_all(node, 4096u + 512u, 4096u + 1024u, 7));
        CHECK(co_all(node, 4096u + 1024u, 8192u, 0xa5));
        co_blk_node_unref(node);
    }
    *(bool *)done = true;
}

TEST(block_device, writes_below_its_sector_change_nothing_else)
{
    make_device("unaligned");
    run(co_unaligned);
}

static void co_zeroes(void *done)
{
    struct blk_node *node = co_open();

    if (node) {
        CHECK_EQ(co_blk_write_zeroes(node, 64 * KIB, 64 * KIB, 0), 0);
        CHECK(co_all(node, 64 * KIB, 128 * KIB, 0));
        CHECK_EQ(co_blk_write_zeroes(node, 256 * KIB, 64 * KIB, BLK_MAY_UNMAP), 0);
        CHECK(co_all(node, 256 * KIB, 320 * KIB, 0));
        CHECK(co_all(node, 128 * KIB, 256 * KIB, 0xa5));
        co_blk_node_unref(node);
    }
    *(bool *)done = true;
}

TEST(block_device, zeros_come_by_zeroout)
{
    make_device("zeroout");
    run(co_zeroes);
    CHECK_EQ(nr_zeroed, 1u);
    CHECK_EQ(nr_punched, 1u);
    CHECK_EQ(nr_discarded, 0u);
}

TEST(block_device, one_that_can_not_punch_is_zeroed)
{
    make_device("nopunch");
    punch_error = EOPNOTSUPP;
    run(co_zeroes);
    CHECK_EQ(nr_zeroed, 2u);
    CHECK_EQ(nr_discarded, 0u);
}

TEST(block_device, one_that_can_do_neither_gets_zeros_written)
{
    make_device("neither");
    punch_error = EOPNOTSUPP;
    zero_error = ENOTTY;
    run(co_zeroes);
    CHECK_EQ(nr_discarded, 0u);
}

static void co_discard(void *done)
{
    struct blk_node *node = co_open();

    if (node) {
        CHECK_EQ(co_blk_discard(node, 64 * KIB, 64 * KIB), 0);
        CHECK(co_all(node, 64 * KIB, 128 * KIB, punch_error ? 0xa5 : 0));
        co_blk_node_unref(node);
    }
    *(bool *)done = true;
}

TEST(block_device, a_discard_is_never_blkdiscard_alone)
{
    make_device("discard");
    run(co_discard);
    CHECK_EQ(nr_discarded, 0u);
    make_device("discard-not");
    punch_error = EOPNOTSUPP;
    run(co_discard); /* a hint that is not taken: the data stays, whole */
    CHECK_EQ(nr_discarded, 0u);
}

/* ---- as what a pull copies into ---- */

static void co_partial(void *done)
{
    struct blk_node *node = NULL;
    uint8_t buf[4096];

    memset(buf, 3, sizeof(buf));
    unlink(map);
    CHECK(co_cowmap_create(path, map, DEV_SIZE / 2, 0, "iscsi://h/t/0", &err) < 0);
    CHECK(strstr(err.msg, "exactly as large"));
    CHECK(access(map, F_OK) != 0);
    CHECK_EQ(co_cowmap_create(path, map, DEV_SIZE, 0, "iscsi://h/t/0", &err), 0);
    CHECK_EQ(co_cowmap_open(path, map, &node, &err), 0);
    if (node) {
        CHECK_STR(cowmap_backing(node), "iscsi://h/t/0");
        CHECK_EQ(co_blk_write(node, 8192, buf, sizeof(buf), 0), 0);
        CHECK_EQ(node->drv->co_change_backing(node, NULL, NULL, &err), 0);
        CHECK(co_all(node, 0, 8192, 0)); /* what nobody decided reads zeros, not what was there */
        CHECK(co_all(node, 8192, 12288, 3));
        CHECK(co_all(node, 12288, DEV_SIZE, 0));
        co_blk_node_unref(node);
    }
    *(bool *)done = true;
}

TEST(block_device, becomes_a_plain_disk_when_it_is_complete)
{
    make_device("partial");
    run(co_partial);
    CHECK(access(map, F_OK) != 0);
}

static void co_after(void *done)
{
    struct blk_node *node = NULL;

    CHECK_EQ(co_cowmap_open(path, map, &node, &err), 0);
    if (node) {
        CHECK(!cowmap_backing(node));
        co_blk_node_unref(node);
    }
    co_cowmap_tidy(map);
    CHECK(co_cowmap_open(path, map, &node, &err) < 0); /* now a map that is lost looks like this */
    CHECK(strstr(err.msg, "missing"));
    *(bool *)done = true;
}

TEST(block_device, a_lost_map_is_not_taken_for_completion)
{
    make_device("after");
    run(co_partial);
    run(co_after);
}
