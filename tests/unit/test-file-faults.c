/* SPDX-License-Identifier: BSD-3-Clause */
/* The file node when the file system fails: this program's own fdatasync and fallocate do. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lun-backends/file.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/workers.h"

#define BLOCK 4096u
#define MIB   (1u << 20)

static int sync_error, growth_error;
static int64_t growth_limit; /* of the file; 0: none */

int fdatasync(int fd)
{
    if (!sync_error)
        return (int)syscall(SYS_fdatasync, fd);
    errno = sync_error;
    return -1;
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if (!growth_error || offset + bytes <= growth_limit)
        return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
    errno = growth_error;
    return -1;
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(2);
    blk_init();
}

static uint8_t block[BLOCK] __attribute__((aligned(4096)));

static struct blk_node *co_open(bool create)
{
    struct file_opts o = {.writable = true, .create = create};
    struct error err = ERROR_INIT;
    struct blk_node *node = NULL;
    char path[4096];

    snprintf(path, sizeof(path), "%s/faults.raw", ctest_tmpdir());
    if (create)
        unlink(path);
    CHECK_EQ(co_file_open(path, &o, &node, &err), 0);
    return node;
}

struct test {
    void (*co_fn)(void);
    bool done;
};

static void co_test(void *arg)
{
    struct test *t = arg;

    t->co_fn();
    t->done = true;
}

static void run(void (*co_fn)(void))
{
    struct test t = {co_fn, false};

    sync_error = growth_error = 0;
    growth_limit = 0;
    co_spawn(co_test, &t);
    while (!t.done || blk_closing())
        loop_turn(true);
}

static void co_sync_fails(void)
{
    struct blk_node *node = co_open(true);

    CHECK_EQ(co_blk_write(node, 0, block, BLOCK, 0), 0);
    CHECK_EQ(co_blk_flush(node), 0);
    sync_error = EIO;
    CHECK_EQ(co_blk_flush(node), -EIO);
    sync_error = 0;
    CHECK_EQ(co_blk_flush(node), -EIO);
    CHECK_EQ(co_blk_write(node, 0, block, BLOCK, BLK_FUA), -EIO);
    CHECK_EQ(co_blk_write(node, 0, block, BLOCK, 0), 0);
    CHECK_EQ(co_blk_read(node, 0, block, BLOCK, 0), 0);
    co_blk_node_unref(node);
    node = co_open(false);
    CHECK_EQ(co_blk_flush(node), 0);
    co_blk_node_unref(node);
}

TEST(file_faults, a_failed_fdatasync_is_final_until_the_file_is_opened_again)
{
    run(co_sync_fails);
}

static void co_growth_fails(void)
{
    struct blk_node *node = co_open(true);

    CHECK_EQ(co_blk_write(node, 0, block, BLOCK, 0), 0);
    growth_error = ENOSPC;
    CHECK_EQ(co_blk_write(node, 64 * MIB, block, BLOCK, 0), -ENOSPC);
    CHECK_EQ(co_blk_write(node, 0, block, BLOCK, 0), 0);
    CHECK_EQ(co_blk_flush(node), 0);
    growth_error = 0;
    CHECK_EQ(co_blk_write(node, 64 * MIB, block, BLOCK, 0), 0);
    CHECK_EQ(node->size_bytes, 64 * MIB + BLOCK);
    co_blk_node_unref(node);
}

TEST(file_faults, a_full_disk_fails_what_grows_the_file_and_nothing_for_good)
{
    run(co_growth_fails);
}

static void co_growth_is_limited(void)
{
    struct blk_node *node = co_open(true);

    growth_limit = 256 * 1024;
    growth_error = EFBIG;
    CHECK_EQ(co_blk_write(node, 0, block, BLOCK, 0), 0);
    CHECK_EQ(co_blk_write(node, 128 * 1024, block, BLOCK, 0), 0);
    CHECK_EQ(co_blk_write(node, 256 * 1024, block, BLOCK, 0), -EFBIG);
    co_blk_node_unref(node);
}

/* Files grow in steps; near a limit the last bytes before it can still be had. */
TEST(file_faults, growth_goes_up_to_the_limit)
{
    run(co_growth_is_limited);
}
