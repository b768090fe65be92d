/* SPDX-License-Identifier: BSD-3-Clause */
/* The upper layers of a source whose chain changes: they are counted anew, or no more. The source
 * is a layer in memory that is said to be on another host. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "lun-backends/remote.h"
#include "lun-backends/stream.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define UNIT 4096u
#define MIB  (1u << 20)
#define DISK (4u * MIB)

static struct mem_node *source, *base;
static struct blk_node *upper;
static struct blk_driver source_driver;

/* ---- the source --------------------------------------------------------------------------- */

static uint32_t chain_generation;
static unsigned depth_of_base, asked_deepest, questions;
static bool restless; /* its chain changes with each answer */

bool blk_node_is_remote(const struct blk_node *node)
{
    return source && node == &source->node;
}

bool remote_tells_layers(const struct blk_node *node, uint32_t *generation)
{
    (void)node;
    *generation = chain_generation;
    return true;
}

/* The first MiB is the topmost layer's, the next the one's above the base, the rest the base's. */
static int say(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
               struct blk_extent *ext, unsigned max)
{
    unsigned n = 0;

    (void)node;
    questions++;
    asked_deepest = deepest;
    for (uint64_t end = offset + bytes; offset < end && n < max; n++) {
        uint64_t next = MIN_OF(end, (offset / MIB + 1) * MIB);
        unsigned depth = offset < MIB ? 0 : offset < 2 * MIB ? depth_of_base - 1 : depth_of_base;

        ext[n] = (struct blk_extent){offset, next - offset, BLK_ST_DATA, (uint16_t)depth, false};
        if (deepest && depth >= deepest)
            ext[n].state = BLK_ST_UNALLOCATED;
        offset = next;
    }
    chain_generation += restless;
    return (int)n;
}

/* ---- the owner ---------------------------------------------------------------------------- */

static unsigned counts, waits;
static int count_ret;

static int co_count(void *opaque, unsigned *layers, uint32_t *generation, struct error *err)
{
    CHECK(opaque == &counts);
    counts++;
    for (unsigned i = 0; i < waits; i++)
        co_pause();
    *layers = depth_of_base;
    *generation = chain_generation;
    return count_ret ? error_set(err, -count_ret, "as told") : 0;
}

static uint8_t *buf;

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
}

static void set_up(void)
{
    source = mem_node_new(DISK, UNIT);
    base = mem_node_new(DISK, UNIT);
    mem_node_fill(source, 0, DISK, BLK_ST_DATA, 0x22);
    mem_node_fill(base, 0, DISK, BLK_ST_DATA, 0x11); /* to be told apart */
    source_driver = *source->node.drv;
    source_driver.co_status_many = say;
    source->node.drv = &source_driver;
    chain_generation = 7;
    depth_of_base = 3;
    restless = false;
    counts = waits = questions = 0;
    count_ret = 0;
    upper = upper_node_new(&source->node, 3, &base->node, 7);
    upper_set_count(upper, co_count, &counts);
    buf = calloc(1, DISK);
    if (!buf)
        abort();
}

static void tear_down(void)
{
    free(buf);
    blk_node_unref(upper);
    blk_node_unref(&source->node);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

static void read_all(void *arg)
{
    (void)arg;
    CHECK_EQ(co_blk_read(upper, 0, buf, DISK, 0), 0);
}

/* What is above the base came from the source, the rest from the base. */
static void check_parts(void)
{
    CHECK_EQ(buf[0], 0x22);
    CHECK_EQ(buf[2 * MIB - 1], 0x22);
    CHECK_EQ(buf[2 * MIB], 0x11);
    CHECK_EQ(buf[DISK - 1], 0x11);
}

/* The source committed a layer that was given back into the base. */
static void commit_there(void)
{
    depth_of_base = 2;
    chain_generation++;
}

TEST(upper, the_chain_whose_layers_were_counted_needs_no_count)
{
    set_up();
    mem_node_run(read_all, NULL);
    check_parts();
    CHECK_EQ(asked_deepest, 3);
    CHECK_EQ(counts, 0);
    tear_down();
}

TEST(upper, layers_are_counted_anew_when_the_chain_has_changed)
{
    set_up();
    commit_there();
    mem_node_run(read_all, NULL);
    check_parts();
    CHECK_EQ(counts, 1);
    CHECK_EQ(questions, 2);
    CHECK_EQ(asked_deepest, 2);
    tear_down();
}

TEST(upper, what_was_learned_before_a_change_stays_true)
{
    set_up();
    mem_node_run(read_all, NULL);
    commit_there();
    questions = 0;
    mem_node_run(read_all, NULL);
    check_parts();
    CHECK_EQ(questions, 0);
    CHECK_EQ(counts, 0);
    tear_down();
}

static unsigned ended;

static void read_one(void *arg)
{
    uint8_t *to = arg;

    CHECK_EQ(co_blk_read(upper, 0, to, DISK, 0), 0);
    ended++;
}

TEST(upper, who_comes_while_layers_are_counted_waits_for_it)
{
    uint8_t *mine[3];

    set_up();
    commit_there();
    waits = 5;
    ended = 0;
    for (unsigned i = 0; i < 3; i++) {
        mine[i] = malloc(DISK);
        if (!mine[i])
            abort();
        co_spawn(read_one, mine[i]);
    }
    CHECK(TURN_UNTIL(ended == 3));
    CHECK_EQ(counts, 1);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(mine[i][MIB], 0x22);
        CHECK_EQ(mine[i][3 * MIB], 0x11);
        free(mine[i]);
    }
    tear_down();
}

static void ask_status(void *arg)
{
    struct blk_extent ext;

    *(int *)arg = upper->drv->co_status_many(upper, 0, DISK, 0, &ext, 1);
}

TEST(upper, not_now_holds_a_job_and_no_guest)
{
    int ret = 0;

    set_up();
    commit_there();
    count_ret = -EAGAIN;
    mem_node_run(ask_status, &ret);
    CHECK_EQ(ret, -EAGAIN);
    mem_node_run(read_all, NULL);
    CHECK_EQ(buf[3 * MIB], 0x22); /* the source has it, too */
    count_ret = 0;
    mem_node_run(ask_status, &ret);
    CHECK_EQ(ret, 1);
    mem_node_run(read_all, NULL);
    check_parts();
    tear_down();
}

TEST(upper, a_chain_that_changes_all_the_time_is_asked_later)
{
    int ret = 0;

    set_up();
    restless = true;
    mem_node_run(ask_status, &ret);
    CHECK_EQ(ret, -EAGAIN);
    CHECK(counts > 1 && counts < 10);
    restless = false;
    mem_node_run(ask_status, &ret);
    CHECK_EQ(ret, 1);
    mem_node_run(read_all, NULL);
    check_parts();
    tear_down();
}

TEST(upper, layers_that_nobody_can_count_are_all_read_from_the_source)
{
    set_up();
    mem_node_run(read_all, NULL);
    check_parts();
    commit_there();
    upper_set_count(upper, NULL, NULL);
    blk_node_unref(upper);
    upper = upper_node_new(&source->node, 3, &base->node, 7); /* knows nothing yet */
    mem_node_run(read_all, NULL);
    CHECK_EQ(buf[DISK - 1], 0x22);
    questions = 0;
    mem_node_run(read_all, NULL);
    CHECK_EQ(questions, 0);
    tear_down();
}

TEST(upper, a_count_that_holds_for_any_chain_is_kept)
{
    set_up();
    blk_node_unref(upper);
    upper = upper_node_new(&source->node, 3, &base->node, UPPER_ANY_GENERATION);
    chain_generation = 99;
    mem_node_run(read_all, NULL);
    check_parts();
    tear_down();
}

TEST(upper, its_source_can_be_asked_for)
{
    set_up();
    CHECK(upper_source(upper) == &source->node);
    CHECK(upper_source(&base->node) == NULL);
    tear_down();
}

/* ---- a stream over it --------------------------------------------------------------------- */

static uint64_t end_of[3];
static int found = 1;
static bool concluded;

static uint64_t co_passed(struct job *job, uint64_t durable_bytes)
{
    uint32_t generation;

    if (!durable_bytes && found == 1)
        found = co_stream_last_needed(job, end_of, 3, &generation);
    return UINT64_MAX;
}

static void sink(struct job *job, enum job_event ev, const char *detail)
{
    (void)job;
    (void)detail;
    concluded = concluded || ev == JOB_EV_COMPLETED || ev == JOB_EV_CANCELLED;
}

TEST(upper, what_is_needed_of_each_layer_is_asked_below_it)
{
    struct mem_node *overlay = mem_node_new(DISK, UNIT);
    struct stream_plan_opts opts = {.first = {.overlay = &overlay->node, .layers = 1},
                                    .co_passed = co_passed};
    struct error err = ERROR_INIT;
    struct job *job;

    set_up();
    job_set_event_sink(sink);
    mem_node_fill(overlay, 0, MIB, BLK_ST_DATA, 0x33);
    blk_set_backing(&overlay->node, upper);
    job = stream_job_new("s", "vm1", &opts, &err);
    CHECK_STR(err.msg, "");
    end_of[1] = UINT64_MAX; /* there is none: not looked for */
    overlay->hold_writes = true;
    job_start(job);
    CHECK(TURN_UNTIL(found != 1));
    overlay->hold_writes = false;
    mem_node_release(overlay);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(found, 0);
    CHECK_EQ(end_of[0], 0); /* all of it is here */
    CHECK_EQ(end_of[2], 2 * MIB);
    CHECK_EQ(overlay->written_bytes, MIB); /* and nothing of the base is copied */
    blk_set_backing(&overlay->node, NULL);
    blk_node_unref(&overlay->node);
    tear_down();
}
