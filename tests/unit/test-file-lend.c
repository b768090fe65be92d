/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads answered by where the data lie in the page cache: which are, and that a borrower has what
 * was there when it asked, whatever becomes of the file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lun-backends/file.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/workers.h"

#define KIB        1024u
#define MIB        (1024u * KIB)
#define READ_BYTES (256u * KIB)

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(2);
    blk_init();
}

/* One reader: what a command of the SCSI layer is. */
struct reader {
    struct blk_req req;
    struct blk_loan loan;
    struct iovec iov;
    uint8_t *buf;
    bool done;
    unsigned nr_recalls;
};

static char path[4096];
static struct blk_node *node;
static struct reader r;
static bool finished;

static void on_done(struct blk_req *req)
{
    (void)req;
    r.done = true;
}

static void on_recall(struct blk_loan *loan)
{
    (void)loan;
    r.nr_recalls++;
}

/* Reads into a buffer of 0xee; true if the data are lent. */
static bool co_borrow(uint64_t offset, uint64_t bytes)
{
    memset(r.buf, 0xee, bytes);
    r.iov = (struct iovec){r.buf, bytes};
    r.loan = (struct blk_loan){.recalled = on_recall};
    r.req = (struct blk_req){.verb = BLK_READ,
                             .offset_bytes = offset,
                             .length_bytes = bytes,
                             .iov = &r.iov,
                             .niov = 1,
                             .done = on_done,
                             .loan = &r.loan};
    r.done = false;
    r.nr_recalls = 0;
    blk_submit(node, &r.req);
    while (!r.done)
        co_sleep(1000000);
    CHECK_EQ(r.req.result, 0);
    return r.loan.data;
}

/* The same once more, as a range is lent from its second read on. */
static bool co_borrow_again(uint64_t offset, uint64_t bytes)
{
    CHECK(!co_borrow(offset, bytes));
    return co_borrow(offset, bytes);
}

static bool all_are(const uint8_t *p, uint64_t bytes, uint8_t value)
{
    return *p == value && !memcmp(p, p + 1, bytes - 1);
}

static void co_fill(uint64_t offset, uint64_t bytes, uint8_t value)
{
    uint8_t *data = malloc(bytes);

    memset(data, value, bytes);
    CHECK_EQ(co_blk_write(node, offset, data, bytes, 0), 0);
    free(data);
}

static void co_open(bool writable, enum file_cache cache)
{
    struct file_opts o = {.writable = writable, .cache = cache};
    struct error err = ERROR_INIT;

    if (co_file_open(path, &o, &node, &err))
        ctest_fail(__FILE__, __LINE__, "%s", err.msg);
}

/* The reader's buffer has what was read, and was told of it once. */
static void check_recalled(void)
{
    CHECK(!r.loan.data);
    CHECK_EQ(r.nr_recalls, 1);
    CHECK_EQ(r.loan.result, 0);
    CHECK(all_are(r.buf, READ_BYTES, 0x11));
}

static void co_run(void *fn)
{
    ((void (*)(void))fn)();
    blk_loan_return(&r.loan);
    co_blk_node_unref(node);
    finished = true;
}

/* @fn in a coroutine, over a writable file of 2 MiB of 0x11. */
static void run(void (*fn)(void))
{
    static uint8_t data[2 * MIB];
    FILE *f;

    snprintf(path, sizeof(path), "%s/disk", ctest_tmpdir());
    memset(data, 0x11, sizeof(data));
    f = fopen(path, "w");
    REQUIRE(f && fwrite(data, sizeof(data), 1, f) == 1 && !fclose(f));
    r.buf = aligned_alloc(4096, MIB);
    finished = false;
    co_spawn((void (*)(void *))co_run, (void *)fn);
    while (!finished || blk_closing())
        loop_turn(true);
    free(r.buf);
}

static void co_second_read(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    CHECK(!co_borrow(0, READ_BYTES));
    CHECK(all_are(r.buf, READ_BYTES, 0x11));
    REQUIRE(co_borrow(0, READ_BYTES));
    CHECK(all_are(r.buf, READ_BYTES, 0xee));
    CHECK(all_are(r.loan.data, READ_BYTES, 0x11));
    blk_loan_return(&r.loan);
    CHECK(!r.loan.data);
    CHECK_EQ(r.nr_recalls, 0);
}

TEST(file_lend, the_second_read_of_a_range_is_lent)
{
    run(co_second_read);
}

static void co_too_small(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    CHECK(!co_borrow_again(0, 60 * KIB));
    CHECK(all_are(r.buf, 60 * KIB, 0x11));
}

TEST(file_lend, small_reads_are_copied)
{
    run(co_too_small);
}

static void co_direct(void)
{
    co_open(true, FILE_CACHE_NONE);
    if (file_node_is_direct(node))
        CHECK(!co_borrow_again(0, READ_BYTES));
}

TEST(file_lend, nothing_of_a_file_past_the_page_cache)
{
    run(co_direct);
}

static void co_past_end(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    CHECK(!co_borrow_again(2 * MIB - READ_BYTES / 2, READ_BYTES));
    CHECK(all_are(r.buf, READ_BYTES / 2, 0x11));
    CHECK(all_are(r.buf + READ_BYTES / 2, READ_BYTES / 2, 0));
}

TEST(file_lend, what_goes_past_the_end_is_copied)
{
    run(co_past_end);
}

static void co_two_windows(void)
{
    struct error err = ERROR_INIT;

    co_open(true, FILE_CACHE_WRITEBACK);
    CHECK_EQ(node->drv->co_resize(node, UINT64_C(65) * MIB, &err), 0);
    CHECK(!co_borrow_again(UINT64_C(64) * MIB - READ_BYTES / 2, READ_BYTES));
    CHECK(co_borrow_again(UINT64_C(64) * MIB, READ_BYTES));
    CHECK(all_are(r.loan.data, READ_BYTES, 0));
}

TEST(file_lend, what_crosses_windows_is_copied)
{
    run(co_two_windows);
}

static void co_evicted(void)
{
    unsigned char pages[READ_BYTES / 4096];
    void *map;
    int fd;

    co_open(true, FILE_CACHE_WRITEBACK);
    CHECK(!co_borrow(0, READ_BYTES));
    fd = open(path, O_RDWR);
    REQUIRE(fd >= 0 && !fsync(fd) && !posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    map = mmap(NULL, READ_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    REQUIRE(map != MAP_FAILED && !mincore(map, READ_BYTES, pages));
    munmap(map, READ_BYTES);
    if (pages[0] & 1)
        return; /* a file system that has nothing but the page cache */
    CHECK(!co_borrow(0, READ_BYTES));
    CHECK(all_are(r.buf, READ_BYTES, 0x11));
}

TEST(file_lend, what_has_left_the_page_cache_is_read)
{
    run(co_evicted);
}

static void co_write(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    REQUIRE(co_borrow_again(0, READ_BYTES));
    co_fill(READ_BYTES, MIB, 0x22);
    CHECK_EQ(r.nr_recalls, 0);
    co_fill(READ_BYTES - 4096, 4096, 0x33);
    check_recalled();
}

TEST(file_lend, a_write_into_what_is_lent_leaves_the_reader_what_was_there)
{
    run(co_write);
}

static void co_zeroes(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    CHECK_EQ(co_blk_write_zeroes(node, 0, 2 * MIB, 0), 0);
    check_recalled();
}

TEST(file_lend, zeroing_leaves_the_reader_what_was_there)
{
    run(co_zeroes);
}

static void co_discard(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    CHECK_EQ(co_blk_discard(node, 0, 2 * MIB), 0);
    check_recalled();
}

TEST(file_lend, a_hole_leaves_the_reader_what_was_there)
{
    run(co_discard);
}

static void co_shrink(void)
{
    struct error err = ERROR_INIT;

    co_open(true, FILE_CACHE_WRITEBACK);
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    CHECK_EQ(node->drv->co_resize(node, MIB, &err), 0);
    check_recalled();
}

TEST(file_lend, a_shorter_file_leaves_the_reader_what_was_there)
{
    run(co_shrink);
}

static void co_close_it(void)
{
    co_open(false, FILE_CACHE_AUTO);
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    co_blk_node_unref(node);
    node = NULL;
    check_recalled();
}

TEST(file_lend, a_file_that_is_closed_leaves_the_reader_what_was_there)
{
    run(co_close_it);
}

static void co_unseal(void)
{
    struct error err = ERROR_INIT;

    co_open(false, FILE_CACHE_WRITEBACK);
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    CHECK_EQ(co_blk_reopen(node, true, &err), 0);
    check_recalled();
    co_fill(MIB, READ_BYTES, 0x22);
    CHECK(all_are(r.buf, READ_BYTES, 0x11));
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    CHECK(all_are(r.loan.data, READ_BYTES, 0x22));
}

TEST(file_lend, a_file_that_is_unsealed_leaves_the_reader_what_was_there)
{
    run(co_unseal);
}

static void co_gone(void)
{
    co_open(true, FILE_CACHE_WRITEBACK);
    REQUIRE(co_borrow_again(MIB, READ_BYTES));
    REQUIRE(!truncate(path, 0));
    blk_loan_recall(&r.loan);
    CHECK(!r.loan.data);
    CHECK_EQ(r.nr_recalls, 1);
    CHECK(r.loan.result < 0);
}

TEST(file_lend, a_file_cut_short_behind_our_back_is_an_error_to_the_reader)
{
    run(co_gone);
}

static struct blk_req write_req;
static bool written;

static void on_written(struct blk_req *req)
{
    (void)req;
    written = true;
}

static void co_busy(void)
{
    static uint8_t data[4096];
    struct iovec iov = {data, sizeof(data)};

    co_open(true, FILE_CACHE_WRITEBACK);
    CHECK(!co_borrow(0, READ_BYTES));
    write_req = (struct blk_req){.verb = BLK_WRITE,
                                 .offset_bytes = MIB,
                                 .length_bytes = sizeof(data),
                                 .iov = &iov,
                                 .niov = 1,
                                 .done = on_written};
    written = false;
    blk_submit(node, &write_req);
    CHECK(!co_borrow(0, READ_BYTES));
    while (!written)
        co_sleep(1000000);
    CHECK(co_borrow(0, READ_BYTES));
}

TEST(file_lend, nothing_is_lent_while_a_write_is_under_way)
{
    run(co_busy);
}
