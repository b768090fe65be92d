/* SPDX-License-Identifier: BSD-3-Clause */
/* Copy-on-read over layers in memory: the reader first, the guest wins, bounded, out of the way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define MIB  (1024u * 1024)
#define UNIT 4096u

static struct mem_node *base, *top;
static struct blk_node *cor;
static struct blk_head disk; /* what a LUN would have */

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
}

static void set_up(uint64_t size_bytes)
{
    base = mem_node_new(size_bytes, UNIT);
    mem_node_fill(base, 0, round_up_pow2(size_bytes, UNIT), BLK_ST_DATA, 0x11);
    top = mem_node_new(size_bytes, UNIT);
    blk_set_backing(&top->node, &base->node);
    cor = copy_on_read_new(&top->node);
    blk_head_init(&disk, "disk", cor, true);
}

static void co_head_close(void *arg)
{
    co_blk_head_fini(arg);
}

static void tear_down(void)
{
    mem_node_run(co_head_close, &disk);
    blk_node_unref(cor);
    CHECK(TURN_UNTIL(!blk_closing()));
    if (top->node.backing.child)
        blk_set_backing(&top->node, NULL);
    blk_node_unref(&top->node);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

/* A request through the head, started at once and looked at later. */
struct io {
    struct blk_req req;
    struct iovec iov;
    uint8_t *buf;
    bool done;
};

static void io_done(struct blk_req *req)
{
    container_of(req, struct io, req)->done = true;
}

static void io_start(struct io *io, enum blk_verb verb, uint64_t offset, size_t bytes, uint8_t fill)
{
    memset(io, 0, sizeof(*io));
    io->buf = malloc(bytes);
    memset(io->buf, fill, bytes);
    io->iov = (struct iovec){io->buf, bytes};
    io->req.verb = verb;
    io->req.offset_bytes = offset;
    io->req.length_bytes = bytes;
    io->req.iov = &io->iov;
    io->req.niov = 1;
    io->req.done = io_done;
    blk_head_submit(&disk, &io->req);
}

static int io_end(struct io *io)
{
    CHECK(TURN_UNTIL(io->done));
    free(io->buf);
    return io->req.result;
}

static int do_io(enum blk_verb verb, uint64_t offset, size_t bytes)
{
    struct io io;

    io_start(&io, verb, offset, bytes, 0);
    return io_end(&io);
}

static uint64_t kept_bytes(void)
{
    struct copy_on_read_stats st;

    copy_on_read_get_stats(cor, &st);
    return st.kept_bytes;
}

static uint64_t skipped_bytes(void)
{
    struct copy_on_read_stats st;

    copy_on_read_get_stats(cor, &st);
    return st.skipped_bytes;
}

TEST(copy_on_read, what_was_read_is_kept_and_the_source_not_asked_again)
{
    set_up(4 * MIB);
    CHECK_EQ(do_io(BLK_READ, MIB, 64 * UNIT), 0);
    CHECK(TURN_UNTIL(kept_bytes() == 64 * UNIT));
    CHECK_EQ(mem_node_state(top, MIB), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, MIB + 63 * UNIT), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, MIB + 64 * UNIT), BLK_ST_UNALLOCATED);
    CHECK(!memcmp(top->data + MIB, base->data + MIB, 64 * UNIT));
    CHECK_EQ(base->reads, 1);
    CHECK_EQ(do_io(BLK_READ, MIB, 64 * UNIT), 0);
    CHECK_EQ(base->reads, 1);
    tear_down();
}

TEST(copy_on_read, the_reader_does_not_wait_for_the_write)
{
    struct io io;

    set_up(4 * MIB);
    top->hold_writes = true;
    io_start(&io, BLK_READ, 0, UNIT, 0);
    CHECK(TURN_UNTIL(io.done));
    CHECK_EQ(io.buf[0], 0x11);
    memset(io.buf, 0x99, UNIT); /* the buffer is the reader's again */
    CHECK_EQ(io_end(&io), 0);
    CHECK(TURN_UNTIL(top->running == 1));
    CHECK_EQ(kept_bytes(), 0);
    mem_node_release(top);
    CHECK(TURN_UNTIL(kept_bytes() == UNIT));
    CHECK_EQ(top->data[0], 0x11);
    tear_down();
}

TEST(copy_on_read, a_part_of_a_unit_is_kept_too)
{
    set_up(4 * MIB);
    CHECK_EQ(do_io(BLK_READ, MIB + 512, 512), 0);
    CHECK(TURN_UNTIL(kept_bytes() == UNIT));
    CHECK(!memcmp(top->data + MIB, base->data + MIB, UNIT));
    CHECK_EQ(mem_node_state(top, MIB - 1), BLK_ST_UNALLOCATED);
    CHECK_EQ(mem_node_state(top, MIB + UNIT), BLK_ST_UNALLOCATED);
    tear_down();
}

TEST(copy_on_read, both_ragged_ends_and_the_middle_are_kept)
{
    set_up(4 * MIB);
    CHECK_EQ(do_io(BLK_READ, MIB - 512, 512 + 4 * UNIT + 1024), 0);
    CHECK(TURN_UNTIL(kept_bytes() == 6 * UNIT));
    CHECK_EQ(mem_node_state(top, MIB - UNIT), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, MIB + 4 * UNIT), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, MIB + 5 * UNIT), BLK_ST_UNALLOCATED);
    tear_down();
}

TEST(copy_on_read, a_short_last_unit_is_kept)
{
    set_up(MIB + 1024);
    CHECK_EQ(do_io(BLK_READ, MIB + 512, 512), 0);
    CHECK(TURN_UNTIL(kept_bytes() == 1024));
    CHECK_EQ(do_io(BLK_READ, MIB - UNIT, UNIT + 1024), 0);
    CHECK(TURN_UNTIL(mem_node_state(top, MIB - UNIT) == BLK_ST_DATA));
    tear_down();
}

TEST(copy_on_read, a_guest_write_wins)
{
    struct io read, write;

    set_up(4 * MIB);
    base->hold_reads = true;
    io_start(&read, BLK_READ, 0, 4 * UNIT, 0);
    CHECK(TURN_UNTIL(base->running == 1));
    io_start(&write, BLK_WRITE, UNIT, UNIT, 0xee);
    CHECK_EQ(io_end(&write), 0);
    mem_node_release(base);
    CHECK_EQ(io_end(&read), 0);
    CHECK(TURN_UNTIL(top->writes == 2));
    CHECK_EQ(top->data[0], 0x11);
    CHECK_EQ(top->data[UNIT], 0xee);
    CHECK_EQ(top->data[2 * UNIT], 0x11);
    tear_down();
}

TEST(copy_on_read, the_same_range_is_not_written_twice_at_once)
{
    struct io a, b;

    set_up(4 * MIB);
    top->hold_writes = true;
    io_start(&a, BLK_READ, 0, 8 * UNIT, 0);
    io_start(&b, BLK_READ, UNIT, 2 * UNIT, 0);
    CHECK_EQ(io_end(&a), 0);
    CHECK_EQ(io_end(&b), 0);
    mem_node_release(top);
    CHECK(TURN_UNTIL(kept_bytes() == 8 * UNIT));
    CHECK_EQ(top->writes, 1);
    tear_down();
}

TEST(copy_on_read, memory_is_bounded_and_what_does_not_fit_is_not_kept)
{
    set_up(48 * MIB);
    top->hold_writes = true;
    for (unsigned i = 0; i < 48; i++)
        CHECK_EQ(do_io(BLK_READ, (uint64_t)i * MIB, MIB), 0);
    CHECK_EQ(skipped_bytes(), 32 * MIB);
    mem_node_release(top);
    CHECK(TURN_UNTIL(kept_bytes() == 16 * MIB));
    CHECK_EQ(do_io(BLK_READ, 40 * MIB, MIB), 0);
    CHECK(TURN_UNTIL(kept_bytes() == 17 * MIB));
    tear_down();
}

TEST(copy_on_read, a_read_bigger_than_a_buffer_is_kept_in_pieces)
{
    set_up(8 * MIB);
    CHECK_EQ(do_io(BLK_READ, UNIT, 5 * MIB), 0);
    CHECK(TURN_UNTIL(kept_bytes() == 5 * MIB));
    CHECK(!memcmp(top->data + UNIT, base->data + UNIT, 5 * MIB));
    tear_down();
}

TEST(copy_on_read, zeros_are_kept_as_zeros)
{
    set_up(4 * MIB);
    mem_node_fill(base, 0, MIB, BLK_ST_DATA, 0);
    CHECK_EQ(do_io(BLK_READ, 0, 8 * UNIT), 0);
    CHECK(TURN_UNTIL(kept_bytes() == 8 * UNIT));
    CHECK_EQ(mem_node_state(top, 0), BLK_ST_ZERO);
    CHECK_EQ(top->writes, 0);
    tear_down();
}

TEST(copy_on_read, switched_off_it_keeps_nothing)
{
    set_up(4 * MIB);
    copy_on_read_enable(cor, false);
    CHECK_EQ(do_io(BLK_READ, 0, UNIT), 0);
    for (int i = 0; i < 5; i++)
        mem_node_turn();
    CHECK_EQ(top->writes, 0);
    copy_on_read_enable(cor, true);
    CHECK_EQ(do_io(BLK_READ, 0, UNIT), 0);
    CHECK(TURN_UNTIL(kept_bytes() == UNIT));
    tear_down();
}

TEST(copy_on_read, an_error_of_the_write_is_not_the_readers)
{
    set_up(4 * MIB);
    top->write_error = -ENOSPC;
    CHECK_EQ(do_io(BLK_READ, 0, UNIT), 0);
    CHECK_EQ(do_io(BLK_READ, UNIT, UNIT), 0);
    CHECK(TURN_UNTIL(skipped_bytes() == 2 * UNIT));
    CHECK_EQ(kept_bytes(), 0);
    tear_down();
}

TEST(copy_on_read, a_source_that_is_down_is_the_readers_news)
{
    set_up(4 * MIB);
    base->down = true;
    CHECK_EQ(do_io(BLK_READ, 0, UNIT), -EHOSTDOWN);
    base->down = false;
    CHECK_EQ(do_io(BLK_READ, 0, UNIT), 0);
    CHECK(TURN_UNTIL(kept_bytes() == UNIT));
    tear_down();
}

static bool drained;

static void co_drop_inside_a_drain(void *arg)
{
    (void)arg;
    co_blk_drain_begin(&top->node);
    drained = true;
    CHECK_EQ(top->running + base->running, 0);
    blk_replace_node(cor, &top->node);
    co_blk_node_unref(cor);
    cor = NULL;
    blk_set_backing(&top->node, NULL);
    blk_drain_end(&top->node);
}

TEST(copy_on_read, a_drain_waits_for_a_write_and_the_filter_can_go_inside_it)
{
    set_up(4 * MIB);
    top->hold_writes = true;
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(do_io(BLK_READ, i * UNIT, UNIT), 0);
    drained = false;
    co_spawn(co_drop_inside_a_drain, NULL);
    for (int i = 0; i < 5; i++)
        mem_node_turn();
    CHECK(!drained);
    mem_node_release(top);
    CHECK(TURN_UNTIL(!cor));
    CHECK(top->writes < 20); /* those that had not started were left out */
    CHECK_EQ(do_io(BLK_READ, 0, UNIT), 0);
    tear_down();
}

TEST(copy_on_read, close_waits_for_writes_under_way)
{
    set_up(4 * MIB);
    top->hold_writes = true;
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(do_io(BLK_READ, i * UNIT, UNIT), 0);
    mem_node_run(co_head_close, &disk);
    blk_node_unref(cor);
    for (int i = 0; i < 5; i++)
        mem_node_turn();
    CHECK(blk_closing());
    mem_node_release(top);
    CHECK(TURN_UNTIL(!blk_closing()));
    CHECK_EQ(top->writes, 8);
    blk_set_backing(&top->node, NULL);
    blk_node_unref(&top->node);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

TEST(copy_on_read, other_verbs_pass)
{
    struct io io;

    set_up(4 * MIB);
    io_start(&io, BLK_WRITE, 0, UNIT, 0x77);
    CHECK_EQ(io_end(&io), 0);
    CHECK_EQ(top->data[0], 0x77);
    CHECK_EQ(do_io(BLK_WRITE_ZEROES, UNIT, UNIT), 0);
    CHECK_EQ(mem_node_state(top, UNIT), BLK_ST_ZERO);
    io_start(&io, BLK_STATUS, 2 * UNIT, MIB, 0);
    CHECK(TURN_UNTIL(io.done));
    CHECK_EQ(io.req.extent.state, BLK_ST_UNALLOCATED);
    CHECK_EQ(io_end(&io), 0);
    CHECK_EQ(do_io(BLK_DISCARD, 0, UNIT), -ENOTSUP); /* the layer in memory has none */
    tear_down();
}
