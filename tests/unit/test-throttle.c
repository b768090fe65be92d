/* SPDX-License-Identifier: BSD-3-Clause */
/* Throttle groups over a layer in memory: turns, drains, leaving. */
#include <string.h>

#include "lun-backends/throttle.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define UNIT 4096u
#define NR   8

static struct mem_node *disk;
static struct blk_head heads[2];
static struct throttle_member *members[2];
static char order[2 * NR + 1]; /* whose requests were done, in order */
static unsigned nr_done;

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
}

static struct io {
    struct blk_req req;
    struct iovec iov;
    char who;
} ios[2][NR];

static uint8_t buf[UNIT];

static void io_done(struct blk_req *req)
{
    CHECK_EQ(req->result, 0);
    order[nr_done++] = container_of(req, struct io, req)->who;
}

static void submit(unsigned who, unsigned i, enum blk_verb verb)
{
    struct io *io = &ios[who][i];

    memset(io, 0, sizeof(*io));
    io->who = (char)('a' + who);
    io->iov = (struct iovec){buf, UNIT};
    io->req.verb = verb;
    io->req.length_bytes = verb == BLK_FLUSH ? 0 : UNIT;
    io->req.iov = &io->iov;
    io->req.niov = 1;
    io->req.done = io_done;
    blk_head_submit(&heads[who], &io->req);
}

static void set_up(uint64_t iops)
{
    struct throttle_config cfg = {.op_bytes = 0};

    nr_done = 0;
    memset(order, 0, sizeof(order));
    disk = mem_node_new(1u << 20, UNIT);
    for (unsigned i = 0; i < 2; i++) {
        cfg.limit[THROTTLE_IOPS_TOTAL].average = iops;
        blk_head_init(&heads[i], i ? "b" : "a", &disk->node, true);
        members[i] = throttle_join(&heads[i], "g", &cfg);
    }
}

static void co_close(void *arg)
{
    (void)arg;
    co_blk_head_fini(&heads[0]);
    co_blk_head_fini(&heads[1]);
}

static void tear_down(void)
{
    throttle_leave(members[0]);
    throttle_leave(members[1]);
    mem_node_run(co_close, NULL);
    blk_node_unref(&disk->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

TEST(throttle_group, members_take_turns)
{
    char begin[10] = ""; /* before one of them has nothing left */

    set_up(10); /* two go at once */
    for (unsigned i = 0; i < NR; i++)
        submit(0, i, BLK_READ);
    for (unsigned i = 0; i < NR; i++)
        submit(1, i, BLK_READ);
    CHECK(TURN_UNTIL(nr_done >= 9));
    memcpy(begin, order, sizeof(begin) - 1);
    CHECK(strchr(begin, 'b') && strchr(begin, 'b') <= begin + 5);
    CHECK(!strstr(begin + 4, "aa") && !strstr(begin + 4, "bb"));
    tear_down();
    CHECK_EQ(nr_done, 2 * NR);
}

TEST(throttle_group, leaving_lets_all_go)
{
    set_up(1);
    for (unsigned i = 0; i < NR; i++)
        submit(0, i, i % 2 ? BLK_WRITE : BLK_WRITE_ZEROES);
    CHECK(nr_done < NR);
    throttle_leave(members[0]);
    members[0] = NULL;
    CHECK(TURN_UNTIL(nr_done == NR));
    tear_down();
}

static void co_drain(void *arg)
{
    co_blk_drain_begin(&disk->node);
    blk_drain_end(&disk->node);
    *(bool *)arg = true;
}

TEST(throttle_group, a_drain_does_not_wait_for_a_limit)
{
    bool drained = false;

    set_up(1);
    for (unsigned i = 0; i < NR; i++)
        submit(0, i, BLK_READ);
    mem_node_run(co_drain, &drained);
    CHECK(drained);
    CHECK(nr_done < NR);
    tear_down();
    CHECK_EQ(nr_done, NR);
}

TEST(throttle_group, a_flush_passes)
{
    set_up(1);
    for (unsigned i = 0; i < NR - 1; i++)
        submit(0, i, BLK_WRITE);
    submit(1, 0, BLK_FLUSH);
    CHECK(TURN_UNTIL(strchr(order, 'b')));
    tear_down();
}
