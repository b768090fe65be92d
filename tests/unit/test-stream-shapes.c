/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams that leave a base where it is, and several stages in one job. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "lun-backends/stream.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define UNIT 4096u
#define MIB  (1u << 20)

static bool concluded;
static int last_ret;
static struct mem_node *base, *mid, *top;

static void sink(struct job *j, enum job_event ev, const char *detail)
{
    (void)detail;
    if (ev == JOB_EV_COMPLETED || ev == JOB_EV_CANCELLED) {
        last_ret = j->ret;
        concluded = true;
    }
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
    job_set_event_sink(sink);
}

/* base <- mid <- top: base all data, mid with data, zeros and nothing in turn. */
static void set_up(uint64_t base_bytes, uint64_t mid_bytes)
{
    concluded = false;
    last_ret = 1;
    base = mem_node_new(base_bytes, UNIT);
    mid = mem_node_new(mid_bytes, UNIT);
    top = mem_node_new(8 * MIB, UNIT);
    blk_set_backing(&mid->node, &base->node);
    blk_set_backing(&top->node, &mid->node);
    mem_node_fill(base, 0, base_bytes, BLK_ST_DATA, 0x11);
    mem_node_fill(mid, MIB, MIB, BLK_ST_DATA, 0x22);
    mem_node_fill(mid, 2 * MIB, MIB, BLK_ST_ZERO, 0);
}

static void tear_down(void)
{
    blk_set_backing(&top->node, NULL);
    blk_set_backing(&mid->node, NULL);
    blk_node_unref(&top->node);
    blk_node_unref(&mid->node);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

static void run_job(const struct stream_plan_opts *opts)
{
    struct error err = ERROR_INIT;
    struct job *job = stream_job_new("s", "vm1", opts, &err);

    CHECK_STR(err.msg, "");
    if (!job)
        abort();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
}

TEST(stream_shapes, only_what_the_layers_above_the_base_decide)
{
    set_up(8 * MIB, 8 * MIB);
    run_job(&(struct stream_plan_opts){.first = {.overlay = &top->node, .layers = 1}});
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(base->read_bytes, 0);
    CHECK_EQ(mid->read_bytes, MIB);
    CHECK_EQ(mem_node_state(top, 0), BLK_ST_UNALLOCATED);
    CHECK_EQ(mem_node_state(top, MIB), BLK_ST_DATA);
    CHECK_EQ(top->data[MIB], 0x22);
    CHECK_EQ(mem_node_state(top, 2 * MIB), BLK_ST_ZERO);
    CHECK_EQ(mem_node_state(top, 3 * MIB), BLK_ST_UNALLOCATED);
    tear_down();
}

/* A layer with smaller units than the top's: neither all of such a unit is zeros, nor is it left.
 */
TEST(stream_shapes, a_unit_of_zeros_and_of_what_the_base_has_is_copied)
{
    set_up(8 * MIB, 8 * MIB);
    mem_node_fill(mid, 3 * MIB, UNIT, BLK_ST_ZERO, 0);
    blk_set_backing(&top->node, NULL);
    blk_node_unref(&top->node);
    top = mem_node_new(8 * MIB, 4 * UNIT);
    blk_set_backing(&top->node, &mid->node);
    mem_node_fill(mid, 4 * MIB + UNIT, UNIT, BLK_ST_ZERO, 0);
    mem_node_fill(mid, 5 * MIB - UNIT, 9 * UNIT, BLK_ST_ZERO, 0);
    run_job(&(struct stream_plan_opts){.first = {.overlay = &top->node, .layers = 1}});
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(mem_node_state(top, 2 * MIB), BLK_ST_ZERO); /* whole units stay what they are */
    CHECK_EQ(top->data[3 * MIB], 0);
    CHECK_EQ(top->data[3 * MIB + UNIT], 0x11);
    CHECK_EQ(mem_node_state(top, 3 * MIB + 4 * UNIT), BLK_ST_UNALLOCATED);
    CHECK_EQ(top->data[4 * MIB], 0x11);
    CHECK_EQ(top->data[4 * MIB + UNIT], 0);
    CHECK_EQ(top->data[4 * MIB + 2 * UNIT], 0x11);
    CHECK_EQ(top->data[5 * MIB - 2 * UNIT], 0x11);
    CHECK_EQ(top->data[5 * MIB - UNIT], 0);
    CHECK_EQ(mem_node_state(top, 5 * MIB), BLK_ST_ZERO);
    CHECK_EQ(mem_node_state(top, 5 * MIB + 8 * UNIT), BLK_ST_UNALLOCATED);
    tear_down();
}

TEST(stream_shapes, past_a_shorter_layer_a_longer_base_stays_hidden)
{
    set_up(8 * MIB, 4 * MIB);
    run_job(&(struct stream_plan_opts){.first = {.overlay = &top->node, .layers = 1}});
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(mem_node_state(top, 4 * MIB), BLK_ST_ZERO);
    CHECK_EQ(mem_node_state(top, 8 * MIB - UNIT), BLK_ST_ZERO);
    CHECK_EQ(mem_node_state(top, 3 * MIB), BLK_ST_UNALLOCATED);
    tear_down();
}

TEST(stream_shapes, what_reads_as_the_base_does_is_left_to_it)
{
    set_up(8 * MIB, 8 * MIB);
    mem_node_fill(mid, 0, 8 * MIB, BLK_ST_DATA, 0x11); /* a source that can't tell layers */
    mem_node_fill(mid, 5 * MIB, 3 * UNIT, BLK_ST_DATA, 0x33);
    mem_node_fill(mid, 6 * MIB, UNIT, BLK_ST_DATA, 0);
    run_job(&(struct stream_plan_opts){.first = {.overlay = &top->node, .differ = &base->node}});
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(mem_node_state(top, 5 * MIB - UNIT), BLK_ST_UNALLOCATED);
    CHECK_EQ(top->data[5 * MIB + 2 * UNIT], 0x33);
    CHECK_EQ(mem_node_state(top, 5 * MIB + 3 * UNIT), BLK_ST_UNALLOCATED);
    CHECK_EQ(mem_node_state(top, 6 * MIB), BLK_ST_ZERO);
    CHECK_EQ(top->written_bytes, 4 * UNIT);
    tear_down();
}

static int next_is_mid(struct job *job, struct stream_stage *next, struct error *err)
{
    static int asked;

    (void)err;
    CHECK_EQ(job->offset, (asked + 1) * 8 * MIB);
    *next = (struct stream_stage){.overlay = &mid->node, .as_is = true};
    return ++asked == 1;
}

TEST(stream_shapes, stages_follow_each_other_in_one_job)
{
    struct stream_stats st;
    struct error err = ERROR_INIT;
    struct job *job;

    set_up(8 * MIB, 8 * MIB);
    mem_node_fill(base, 0, MIB, BLK_ST_DATA, 0);
    job = stream_job_new("s", "vm1",
                         &(struct stream_plan_opts){
                             .first = {.overlay = &top->node, .layers = 1},
                             .total_bytes = 16 * MIB,
                             .co_next = next_is_mid,
                         },
                         &err);
    job->auto_dismiss = false;
    CHECK_EQ(job->len, 16 * MIB);
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(job->offset, 16 * MIB);
    CHECK_EQ(mem_node_state(mid, 0), BLK_ST_DATA); /* as is, zeros or not */
    CHECK_EQ(mem_node_state(mid, 7 * MIB), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, 0), BLK_ST_UNALLOCATED);
    stream_get_stats(job, &st);
    CHECK_EQ(st.copied_bytes, MIB + 6 * MIB);
    CHECK_EQ(st.copied_bytes + st.zeroed_bytes + st.skipped_bytes, 16 * MIB);
    job_dismiss(job, &err);
    tear_down();
}

/* ---- a walk that asks sources ------------------------------------------------------------ */

static int asked_deepest = -1;

static int two_layers(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                      struct blk_extent *ext, unsigned max)
{
    (void)node;
    (void)max;
    asked_deepest = (int)deepest;
    ext[0] = (struct blk_extent){offset, MIN_OF(bytes, MIB), BLK_ST_DATA, 1, false};
    return 1;
}

static int busy(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                struct blk_extent *ext, unsigned max)
{
    (void)node, (void)offset, (void)bytes, (void)deepest, (void)ext, (void)max;
    return -EAGAIN;
}

static struct blk_driver source_driver;
static struct blk_extent found[4];
static int nr_found, nr_guest;

static void walk_both(void *arg)
{
    (void)arg;
    nr_found = co_blk_job_status_walk(&top->node, 0, 4 * MIB, 4, found, 4);
    nr_guest = co_blk_status_walk(&top->node, 0, MIB, 4, &found[3], 1);
}

TEST(job_walk, a_source_below_local_layers_is_asked_and_counts_its_layers)
{
    set_up(8 * MIB, 8 * MIB);
    source_driver = *base->node.drv;
    source_driver.co_status_many = two_layers;
    base->node.drv = &source_driver;
    mem_node_run(walk_both, NULL);
    CHECK_EQ(asked_deepest, 2);
    CHECK_EQ(nr_found, 4);
    CHECK_EQ(found[0].depth, 3);
    CHECK_EQ(found[1].depth, 1);
    CHECK_EQ(nr_guest, 1);
    CHECK_EQ(found[3].depth, 2);
    source_driver.co_status_many = busy;
    mem_node_run(walk_both, NULL);
    CHECK_EQ(nr_found, -EAGAIN);
    tear_down();
}

/* ---- the upper layers of a source ---------------------------------------------------------- */

static uint8_t *buf;

static int upper_third(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                       struct blk_extent *ext, unsigned max)
{
    static const enum blk_state states[] = {BLK_ST_UNALLOCATED, BLK_ST_DATA, BLK_ST_ZERO};
    unsigned n = 0;

    (void)node;
    asked_deepest = (int)deepest;
    for (uint64_t end = offset + bytes; offset < end && n < max; n++) {
        uint64_t next = MIN_OF(end, (offset / MIB + 1) * MIB);

        ext[n] = (struct blk_extent){offset, next - offset, states[offset / MIB % 3], 0, false};
        offset = next;
    }
    return (int)n;
}

static void read_upper(void *arg)
{
    CHECK_EQ(co_blk_read(arg, 0, buf, 4 * MIB, 0), 0);
}

TEST(upper, reads_come_from_where_they_are_decided)
{
    struct blk_node *upper;

    set_up(2 * MIB, 8 * MIB);
    buf = malloc(4 * MIB);
    memset(buf, 0xee, 4 * MIB);
    mem_node_fill(mid, 0, 8 * MIB, BLK_ST_DATA, 0x22);
    source_driver = *mid->node.drv;
    source_driver.co_status_many = upper_third;
    mid->node.drv = &source_driver;
    blk_set_backing(&mid->node, NULL);
    upper = upper_node_new(&mid->node, 2, &base->node, 0);
    mem_node_run(read_upper, upper);
    CHECK_EQ(asked_deepest, 2);
    CHECK_EQ(buf[0], 0x11);
    CHECK_EQ(buf[MIB], 0x22);
    CHECK_EQ(buf[2 * MIB], 0);
    CHECK_EQ(buf[3 * MIB], 0); /* past the end of the base */
    CHECK_EQ(mid->read_bytes, MIB);
    asked_deepest = -1;
    mem_node_run(read_upper, upper);
    CHECK_EQ(asked_deepest, -1); /* remembered */
    blk_node_unref(upper);
    free(buf);
    tear_down();
}
