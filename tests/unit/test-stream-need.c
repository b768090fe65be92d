/* SPDX-License-Identifier: BSD-3-Clause */
/* What a stream tells its owner on the way: which layers are needed up to where, and how far all is
 * durable. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/stream.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define UNIT 4096u
#define MIB  (UINT64_C(1) << 20)
#define DISK (160 * MIB) /* more than one window of the search */

static bool concluded;
static struct mem_node *base, *mid, *top, *overlay;

static void sink(struct job *j, enum job_event ev, const char *detail)
{
    (void)j;
    (void)detail;
    if (ev == JOB_EV_COMPLETED || ev == JOB_EV_CANCELLED)
        concluded = true;
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
    job_set_event_sink(sink);
}

static void set_up(void)
{
    concluded = false;
    base = mem_node_new(DISK, UNIT);
    mid = mem_node_new(DISK, UNIT);
    top = mem_node_new(DISK, UNIT);
    overlay = mem_node_new(DISK, UNIT);
    blk_set_backing(&mid->node, &base->node);
    blk_set_backing(&top->node, &mid->node);
    blk_set_backing(&overlay->node, &top->node);
    mem_node_fill(base, MIB, 8 * MIB, BLK_ST_DATA, 0x11);
    mem_node_fill(mid, 4 * MIB, MIB, BLK_ST_ZERO, 0);
    mem_node_fill(mid, 100 * MIB, MIB, BLK_ST_DATA, 0x22);
    mem_node_fill(top, 150 * MIB, MIB, BLK_ST_DATA, 0x33);
}

static void tear_down(void)
{
    struct mem_node *all[] = {overlay, top, mid, base};

    for (unsigned i = 0; i < 3; i++)
        blk_set_backing(&all[i]->node, NULL);
    for (unsigned i = 0; i < 4; i++)
        blk_node_unref(&all[i]->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

/* ---- the owner -------------------------------------------------------------------------- */

static unsigned calls, flushes_before;
static uint64_t told[8], next_from[8], end_of[3];
static int found;
static bool look, linger, left;

static uint64_t co_passed(struct job *job, uint64_t durable_bytes)
{
    uint32_t generation;
    unsigned i = calls++;

    told[i] = durable_bytes;
    flushes_before = overlay->flushes;
    if (look && !i)
        found = co_stream_last_needed(job, end_of, 3, &generation);
    for (unsigned n = 0; linger && n < 20; n++)
        co_pause();
    left = true;
    return next_from[i];
}

static struct job *make_job(void)
{
    struct stream_plan_opts opts = {.first = {.overlay = &overlay->node}, .co_passed = co_passed};
    struct error err = ERROR_INIT;
    struct job *job = stream_job_new("s", "vm1", &opts, &err);

    CHECK_STR(err.msg, "");
    if (!job)
        abort();
    calls = 0;
    look = linger = left = false;
    for (unsigned i = 0; i < 8; i++)
        next_from[i] = UINT64_MAX;
    memset(end_of, 0, sizeof(end_of));
    return job;
}

static void run(struct job *job)
{
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
}

/* What it finds as long as nothing is copied. */
static void find(void)
{
    struct job *job = make_job();

    look = true;
    overlay->hold_writes = true;
    job_start(job);
    CHECK(TURN_UNTIL(left));
    overlay->hold_writes = false;
    mem_node_release(overlay);
    CHECK(TURN_UNTIL(concluded));
}

TEST(stream_need, the_last_range_of_each_layer)
{
    set_up();
    find();
    CHECK_EQ(found, 0);
    CHECK_EQ(end_of[0], 151 * MIB);
    CHECK_EQ(end_of[1], 101 * MIB);
    CHECK_EQ(end_of[2], 9 * MIB);
    tear_down();
}

TEST(stream_need, what_is_here_needs_no_layer)
{
    set_up();
    mem_node_fill(overlay, 100 * MIB, MIB, BLK_ST_DATA, 0x44);
    mem_node_fill(overlay, 150 * MIB, MIB, BLK_ST_ZERO, 0);
    find();
    CHECK_EQ(end_of[0], 0);
    CHECK_EQ(end_of[1], 5 * MIB); /* decided zeros count */
    CHECK_EQ(end_of[2], 9 * MIB);
    tear_down();
}

TEST(stream_need, what_an_upper_layer_hides_is_not_needed)
{
    set_up();
    mem_node_fill(top, 5 * MIB, 10 * MIB, BLK_ST_DATA, 0x33);
    find();
    CHECK_EQ(end_of[2], 4 * MIB);
    tear_down();
}

TEST(stream_need, all_are_met_in_the_first_window)
{
    set_up();
    mem_node_fill(base, 155 * MIB, MIB, BLK_ST_DATA, 0x11);
    mem_node_fill(mid, 156 * MIB, MIB, BLK_ST_DATA, 0x22);

    struct job *job = make_job();

    look = true;
    mid->hold_reads = true;
    top->hold_reads = true;
    base->hold_reads = true;
    job_start(job);
    CHECK(TURN_UNTIL(left));
    CHECK_EQ(end_of[0], 151 * MIB);
    CHECK_EQ(end_of[1], 157 * MIB);
    CHECK_EQ(end_of[2], 156 * MIB);
    mid->hold_reads = top->hold_reads = base->hold_reads = false;
    mem_node_release(base);
    mem_node_release(mid);
    mem_node_release(top);
    CHECK(TURN_UNTIL(concluded));
    tear_down();
}

TEST(stream_need, layers_not_asked_about_stay_as_they_are)
{
    set_up();

    struct job *job = make_job();

    look = true;
    end_of[0] = UINT64_MAX;
    run(job);
    CHECK_EQ(end_of[0], UINT64_MAX);
    CHECK(end_of[1] && end_of[1] != UINT64_MAX);
    tear_down();
}

TEST(stream_need, told_at_once_and_from_where_it_was_asked_for)
{
    set_up();

    struct job *job = make_job();

    next_from[0] = 50 * MIB;
    next_from[1] = 120 * MIB;
    run(job);
    CHECK_EQ(job_first(), NULL);
    CHECK_EQ(calls, 3u);
    CHECK_EQ(told[0], 0);
    CHECK(told[1] >= 50 * MIB);
    CHECK(told[2] >= 120 * MIB);
    tear_down();
}

TEST(stream_need, it_is_durable_before_it_is_told)
{
    set_up();

    struct job *job = make_job();

    next_from[0] = 9 * MIB;
    overlay->flush_error = -EIO; /* of the one before the first call */
    overlay->faults_left = 1;
    run(job);
    CHECK_EQ(calls, 2u);
    CHECK(told[0] > 0);
    CHECK(flushes_before >= 2);
    tear_down();
}

TEST(stream_need, the_job_does_not_end_before_its_owner_has_heard)
{
    set_up();

    struct job *job = make_job();

    linger = true;
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK(left);
    tear_down();
}

TEST(stream_need, behind_a_part_that_was_passed_over_nothing_is_told)
{
    set_up();

    struct job *job = make_job();

    job->on_error = JOB_ERR_IGNORE;
    base->read_error = -EIO;
    base->faults_left = 1;
    next_from[0] = 9 * MIB;
    next_from[1] = 9 * MIB;
    run(job);
    CHECK_EQ(calls, 1u);
    tear_down();
}
