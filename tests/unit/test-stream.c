/* SPDX-License-Identifier: BSD-3-Clause */
/* The stream job over layers in memory, and its planner as a pure thing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/stream-plan.h"
#include "lun-backends/stream.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define KIB  1024u
#define MIB  (1024u * 1024)
#define UNIT 4096u

static int last_ret;
static bool concluded, done_called;
static unsigned errors_told;

static void sink(struct job *job, enum job_event ev, const char *detail)
{
    (void)detail;
    if (ev == JOB_EV_ERROR)
        errors_told++;
    if (ev == JOB_EV_STATUS_CHANGE && job->status == JOB_CONCLUDED) {
        last_ret = job->ret;
        concluded = true;
    }
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
    job_set_event_sink(sink);
}

/* ---- the planner ------------------------------------------------------------------- */

/* Feeds "kind:bytes ..." and tells the runs the same way. */
static void plan_text(const char *in, char *out, size_t len)
{
    struct plan p;
    struct plan_run run;
    uint64_t at = 0, next_start = 0;
    const char *kinds = "szc";
    unsigned bytes;
    char kind;
    int used;

    plan_init(&p, UNIT);
    out[0] = '\0';
    for (; sscanf(in, " %c:%u%n", &kind, &bytes, &used) == 2; in += used) {
        enum plan_kind k = (enum plan_kind)(strchr(kinds, kind) - kinds);

        if (plan_feed(&p, at, at + bytes, k, &run)) {
            CHECK_EQ(run.start, next_start);
            next_start = run.end;
            snprintf(out + strlen(out), len - strlen(out), "%c:%u ", kinds[run.kind],
                     (unsigned)(run.end - run.start));
        }
        at += bytes;
    }
    if (plan_finish(&p, &run)) {
        CHECK_EQ(run.start, next_start);
        CHECK_EQ(run.end, at);
        snprintf(out + strlen(out), len - strlen(out), "%c:%u ", kinds[run.kind],
                 (unsigned)(run.end - run.start));
    }
}

TEST(stream_plan, neighbours_of_one_kind_are_one_run)
{
    char out[256];

    plan_text("c:4096 c:4096 s:8192 z:4096 z:4096", out, sizeof(out));
    CHECK_STR(out, "c:8192 s:8192 z:8192 ");
}

TEST(stream_plan, a_shared_unit_goes_to_the_kind_that_moves_more)
{
    char out[256];

    plan_text("s:4608 c:512 s:3072", out, sizeof(out));
    CHECK_STR(out, "s:4096 c:4096 ");
    plan_text("z:512 c:4096 z:3584 s:4096", out, sizeof(out));
    CHECK_STR(out, "c:8192 s:4096 ");
    plan_text("c:512 z:512 s:3072 z:4096", out, sizeof(out));
    CHECK_STR(out, "c:4096 z:4096 ");
    plan_text("s:512 z:512 s:512 c:512 s:2048", out, sizeof(out));
    CHECK_STR(out, "c:4096 ");
}

TEST(stream_plan, a_short_last_unit_keeps_its_end)
{
    char out[256];

    plan_text("z:4096 c:700", out, sizeof(out));
    CHECK_STR(out, "z:4096 c:700 ");
}

TEST(stream_plan, random_extents_never_lose_data)
{
    for (unsigned seed = 1; seed <= 200; seed++) {
        static uint8_t want[64], got[64];
        struct plan p;
        struct plan_run run;
        uint64_t at = 0;

        srand(seed);
        memset(want, PLAN_SKIP, sizeof(want));
        memset(got, 0xff, sizeof(got));
        plan_init(&p, UNIT);
        while (at < 64 * UNIT) {
            uint64_t bytes = 512 * (1 + (unsigned)rand() % 40);
            uint64_t end = MIN_OF(at + bytes, 64 * UNIT);
            enum plan_kind kind = (enum plan_kind)(rand() % 3);

            for (uint64_t u = at / UNIT; u <= (end - 1) / UNIT; u++)
                want[u] = MAX_OF(want[u], (uint8_t)kind);
            if (plan_feed(&p, at, end, kind, &run))
                memset(got + run.start / UNIT, run.kind, (run.end - run.start) / UNIT);
            while (plan_take(&p, 2 * UNIT, UNIT, 1 << 30, &run))
                memset(got + run.start / UNIT, run.kind, (run.end - run.start) / UNIT);
            at = end;
        }
        if (plan_finish(&p, &run))
            memset(got + run.start / UNIT, run.kind, (run.end - run.start) / UNIT);
        CHECK(!memcmp(want, got, sizeof(want)));
    }
}

TEST(stream_plan, what_is_mixed_ends_with_its_unit_or_its_extent)
{
    struct plan p;
    struct plan_run run;

    plan_init(&p, UNIT);
    CHECK_EQ(plan_mixed_end(&p, 0, 512, PLAN_ZERO), 0); /* the first one */
    CHECK(!plan_feed(&p, 0, UNIT + 512, PLAN_SKIP, &run));
    CHECK_EQ(plan_mixed_end(&p, UNIT + 512, 4 * UNIT, PLAN_ZERO), 2 * UNIT);
    CHECK_EQ(plan_mixed_end(&p, UNIT + 512, UNIT + 1024, PLAN_ZERO), UNIT + 1024);
    CHECK_EQ(plan_mixed_end(&p, UNIT + 512, 4 * UNIT, PLAN_SKIP), UNIT + 512);
    CHECK_EQ(plan_mixed_end(&p, UNIT + 512, 4 * UNIT, PLAN_COPY), UNIT + 512);
    CHECK(plan_feed(&p, UNIT + 512, 2 * UNIT, PLAN_COPY, &run));
    CHECK_EQ(run.end, UNIT);
    CHECK_EQ(plan_mixed_end(&p, 2 * UNIT, 4 * UNIT, PLAN_ZERO), 2 * UNIT);
}

TEST(stream_plan, vast_zeros_are_left_alone_short_ones_are_not)
{
    struct plan p;
    struct plan_run run;
    uint64_t gib = UINT64_C(1) << 30;

    plan_init(&p, UNIT);
    CHECK(!plan_feed(&p, 0, gib - UNIT, PLAN_ZERO, &run));
    CHECK(!plan_take(&p, MIB, MIB, gib, &run));
    CHECK(!plan_feed(&p, gib - UNIT, gib, PLAN_ZERO, &run));
    CHECK(plan_take(&p, MIB, MIB, gib, &run));
    CHECK_EQ(run.kind, PLAN_SKIP);
    CHECK_EQ(run.end, gib);
    CHECK(!plan_feed(&p, gib, gib + MIB, PLAN_ZERO, &run)); /* still the same zeros */
    CHECK(plan_feed(&p, gib + MIB, gib + 2 * MIB, PLAN_COPY, &run));
    CHECK_EQ(run.kind, PLAN_SKIP);
    CHECK(plan_feed(&p, gib + 2 * MIB, gib + 3 * MIB, PLAN_ZERO, &run));
    CHECK_EQ(run.kind, PLAN_COPY);
    CHECK(plan_finish(&p, &run));
    CHECK_EQ(run.kind, PLAN_ZERO);
}

/* ---- the job ----------------------------------------------------------------------- */

static struct mem_node *base, *top;
static struct job *job;

static void drop_backing(struct job *j, void *opaque)
{
    (void)opaque;
    done_called = true;
    if (j->ret)
        return;
    co_blk_drain_begin(&top->node);
    blk_set_backing(&top->node, NULL);
    blk_drain_end(&top->node);
}

/* base: a mix of data, zeros and nothing; top: empty over it. */
static void set_up(uint64_t size_bytes)
{
    base = mem_node_new(size_bytes, UNIT);
    top = mem_node_new(size_bytes, UNIT);
    blk_set_backing(&top->node, &base->node);
    last_ret = 1;
    concluded = done_called = false;
    errors_told = 0;
}

static void mixed_base(unsigned seed)
{
    srand(seed);
    for (uint64_t u = 0; u < base->nr_units;) {
        uint64_t n = 1 + (uint64_t)rand() % 64;
        enum blk_state state = (enum blk_state)(rand() % 3);

        n = MIN_OF(n, base->nr_units - u);
        mem_node_fill(base, u * UNIT, n * UNIT, state, (uint8_t)(1 + rand() % 255));
        u += n;
    }
}

static void new_job(void)
{
    struct error err = ERROR_INIT;

    job = stream_job_new("s", "vm1", &(struct stream_plan_opts){.first.overlay = &top->node}, &err);
    if (!job) {
        CHECK_STR(err.msg, "");
        abort();
    }
    job->on_done = drop_backing;
}

static void tear_down(void)
{
    if (top->node.backing.child)
        blk_set_backing(&top->node, NULL);
    blk_node_unref(&top->node);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

/* What a reader of top would get, with the backing gone, equals @want. */
static bool top_reads(const uint8_t *want)
{
    for (uint64_t u = 0; u < top->nr_units; u++) {
        static const uint8_t zeros[UNIT];
        bool data = top->state[u] == BLK_ST_DATA;
        uint64_t len = MIN_OF(UNIT, top->node.size_bytes - u * UNIT);

        if (memcmp(data ? top->data + u * UNIT : zeros, want + u * UNIT, len))
            return false;
    }
    return true;
}

TEST(stream, copies_a_mixed_base_and_reads_only_data)
{
    uint64_t data_bytes = 0;
    struct stream_stats st;

    set_up(24 * MIB + 3 * 512);
    mixed_base(7);
    for (uint64_t u = 0; u < base->nr_units; u++)
        data_bytes += base->state[u] == BLK_ST_DATA ? UNIT : 0;
    new_job();
    job->auto_dismiss = false;
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    stream_get_stats(job, &st);
    CHECK_EQ(last_ret, 0);
    CHECK(done_called);
    CHECK_EQ(job->offset, job->len);
    CHECK_EQ(job->len, top->node.size_bytes);
    CHECK(base->read_bytes <= data_bytes);
    CHECK_EQ(st.copied_bytes + st.zeroed_bytes + st.skipped_bytes, job->len);
    CHECK(top_reads(base->data));
    CHECK(top->flushes >= 1);
    for (uint64_t u = 0; u < base->nr_units; u++) {
        if (base->state[u] == BLK_ST_UNALLOCATED)
            CHECK_EQ(top->state[u], BLK_ST_UNALLOCATED);
    }
    job_dismiss(job, &(struct error)ERROR_INIT);
    tear_down();
}

TEST(stream, what_is_local_is_neither_read_nor_written)
{
    set_up(8 * MIB);
    mem_node_fill(base, 0, 8 * MIB, BLK_ST_DATA, 0x11);
    mem_node_fill(top, 0, 4 * MIB, BLK_ST_DATA, 0x22);
    mem_node_fill(top, 6 * MIB, MIB, BLK_ST_ZERO, 0);
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(base->read_bytes, 3 * MIB);
    CHECK_EQ(top->overwritten_bytes, 0);
    CHECK_EQ(top->data[0], 0x22);
    CHECK_EQ(top->data[5 * MIB], 0x11);
    CHECK_EQ(mem_node_state(top, 6 * MIB), BLK_ST_ZERO);
    tear_down();
}

TEST(stream, data_that_is_all_zeros_becomes_zero_clusters)
{
    set_up(4 * MIB);
    mem_node_fill(base, 0, 4 * MIB, BLK_ST_DATA, 0);
    mem_node_fill(base, MIB + UNIT, UNIT, BLK_ST_DATA, 0x33);
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(mem_node_state(top, 0), BLK_ST_ZERO);
    CHECK_EQ(mem_node_state(top, MIB + UNIT), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, 3 * MIB), BLK_ST_ZERO);
    CHECK_EQ(top->writes, 1);
    tear_down();
}

TEST(stream, a_shorter_source_and_units_cut_by_its_end)
{
    base = mem_node_new(MIB + 512, UNIT);
    top = mem_node_new(2 * MIB, UNIT);
    blk_set_backing(&top->node, &base->node);
    concluded = done_called = false;
    mem_node_fill(base, 0, MIB + 512, BLK_ST_DATA, 0x44);
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(top->data[MIB + 511], 0x44);
    CHECK_EQ(top->data[MIB + 512], 0);
    CHECK_EQ(mem_node_state(top, MIB), BLK_ST_DATA);
    CHECK_EQ(mem_node_state(top, MIB + UNIT), BLK_ST_UNALLOCATED);
    tear_down();
}

TEST(stream, clusters_bigger_than_a_buffer_are_copied_whole)
{
    base = mem_node_new(8 * MIB, 2 * MIB);
    top = mem_node_new(8 * MIB, 2 * MIB);
    blk_set_backing(&top->node, &base->node);
    concluded = false;
    mem_node_fill(base, 2 * MIB, 4 * MIB, BLK_ST_DATA, 0x55);
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(base->read_bytes, 4 * MIB);
    CHECK(!memcmp(top->data + 2 * MIB, base->data + 2 * MIB, 4 * MIB));
    CHECK_EQ(top->overwritten_bytes, 0);
    tear_down();
}

static void co_guest_write(void *arg)
{
    struct iovec iov;
    uint8_t *buf = malloc(UNIT);
    uint64_t offset = *(uint64_t *)arg;

    memset(buf, 0xee, UNIT);
    iov = (struct iovec){buf, UNIT};
    CHECK_EQ(co_blk_rw(&top->node, BLK_WRITE, offset, &iov, 1, 0), 0);
    free(buf);
}

TEST(stream, a_guest_write_during_a_copy_wins)
{
    uint64_t offset = 3 * UNIT;

    set_up(2 * MIB);
    mem_node_fill(base, 0, 2 * MIB, BLK_ST_DATA, 0x11);
    base->hold_reads = true;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(base->running > 0)); /* the source's data is under way */
    mem_node_run(co_guest_write, &offset);
    mem_node_release(base);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(top->data[offset], 0xee);
    CHECK_EQ(top->data[offset + UNIT], 0x11);
    tear_down();
}

TEST(stream, pause_leaves_nothing_in_flight_and_stops_copying)
{
    struct error err = ERROR_INIT;
    uint64_t written;

    set_up(64 * MIB);
    mem_node_fill(base, 0, 64 * MIB, BLK_ST_DATA, 0x11);
    base->delay_ns = 5000000;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(top->written_bytes > 0));
    job_pause(job, &err);
    CHECK(TURN_UNTIL(job->status == JOB_PAUSED));
    CHECK_EQ(base->running + top->running, 0);
    written = top->written_bytes;
    CHECK(written < 64 * MIB);
    for (int i = 0; i < 30; i++)
        mem_node_turn();
    CHECK_EQ(top->written_bytes, written);
    job_resume(job, &err);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(base->read_bytes, 64 * MIB); /* nothing was copied twice */
    CHECK(top_reads(base->data));
    tear_down();
}

TEST(stream, cancel_keeps_the_backing_and_a_second_job_copies_only_the_rest)
{
    struct error err = ERROR_INIT;

    set_up(64 * MIB);
    mem_node_fill(base, 0, 64 * MIB, BLK_ST_DATA, 0x11);
    base->delay_ns = 5000000;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(top->written_bytes > 0));
    job_cancel(job, &err);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ECANCELED);
    CHECK(done_called);
    CHECK(top->node.backing.child == &base->node);
    CHECK(top->written_bytes < 64 * MIB);
    CHECK_EQ(base->running + top->running, 0);
    concluded = false;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(base->read_bytes, 64 * MIB);
    CHECK(top_reads(base->data));
    tear_down();
}

TEST(stream, waits_for_a_source_that_is_down_and_goes_on)
{
    uint64_t offset;

    set_up(32 * MIB);
    mem_node_fill(base, 0, 32 * MIB, BLK_ST_DATA, 0x11);
    base->delay_ns = 2000000;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(top->written_bytes > 0));
    base->down = true;
    for (uint64_t end = now_ns() + 500000000; now_ns() < end;)
        mem_node_turn();
    CHECK(job_find("s") == job);
    CHECK_EQ(job->status, JOB_RUNNING);
    CHECK_EQ(errors_told, 0);
    offset = job->offset;
    CHECK(offset < 32 * MIB);
    base->down = false;
    blk_node_notify(&base->node, BLK_EV_SOURCE_UP);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(top_reads(base->data));
    tear_down();
}

TEST(stream, cancel_acts_while_the_source_is_down)
{
    struct error err = ERROR_INIT;

    set_up(MIB);
    mem_node_fill(base, 0, MIB, BLK_ST_DATA, 0x11);
    base->down = true;
    new_job();
    job_start(job);
    for (int i = 0; i < 10; i++)
        mem_node_turn();
    job_cancel(job, &err);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ECANCELED);
    tear_down();
}

TEST(stream, enospc_with_policy_enospc_stops_and_resume_finishes)
{
    struct error err = ERROR_INIT;

    set_up(8 * MIB);
    mem_node_fill(base, 0, 8 * MIB, BLK_ST_DATA, 0x11);
    top->write_error = -ENOSPC;
    new_job();
    job->on_error = JOB_ERR_ENOSPC;
    job_start(job);
    CHECK(TURN_UNTIL(job->status == JOB_PAUSED));
    CHECK(job->io_error);
    CHECK_EQ(errors_told, 1);
    top->write_error = 0;
    job_resume(job, &err);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(top_reads(base->data));
    tear_down();
}

TEST(stream, an_error_with_policy_report_fails_the_job_and_keeps_the_backing)
{
    set_up(8 * MIB);
    mem_node_fill(base, 0, 8 * MIB, BLK_ST_DATA, 0x11);
    base->read_error = -EIO;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -EIO);
    CHECK_EQ(errors_told, 1);
    CHECK(top->node.backing.child != NULL);
    tear_down();
}

TEST(stream, an_ignored_error_goes_on_but_never_drops_the_backing)
{
    set_up(8 * MIB);
    mem_node_fill(base, 0, 8 * MIB, BLK_ST_DATA, 0x11);
    base->read_error = -EIO;
    base->faults_left = 1;
    new_job();
    job->on_error = JOB_ERR_IGNORE;
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -EIO);
    CHECK_EQ(errors_told, 1);
    CHECK(top->written_bytes >= 7 * MIB && top->written_bytes < 8 * MIB);
    CHECK(top->node.backing.child != NULL);
    tear_down();
}

TEST(stream, an_ignored_flush_error_still_ends_the_job)
{
    set_up(MIB);
    mem_node_fill(base, 0, MIB, BLK_ST_DATA, 0x11);
    top->flush_error = -EIO;
    new_job();
    job->on_error = JOB_ERR_IGNORE;
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -EIO);
    tear_down();
}

TEST(stream, a_source_without_status_is_read_and_its_zeros_found)
{
    set_up(4 * MIB);
    mem_node_fill(base, MIB, MIB, BLK_ST_DATA, 0x11);
    base->status_error = -EIO;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK_EQ(base->read_bytes, 4 * MIB);
    CHECK(top_reads(base->data));
    CHECK_EQ(mem_node_state(top, 2 * MIB), BLK_ST_ZERO);
    tear_down();
}

static bool drained, undrain;

static void co_drain_a_while(void *arg)
{
    (void)arg;
    co_blk_drain_begin(&base->node);
    drained = true;
    while (!undrain)
        co_sleep(1000000);
    CHECK_EQ(base->running + top->running, 0);
    blk_drain_end(&base->node);
}

TEST(stream, stands_still_in_a_drain_and_goes_on_after_it)
{
    uint64_t written;

    set_up(32 * MIB);
    mem_node_fill(base, 0, 32 * MIB, BLK_ST_DATA, 0x11);
    base->delay_ns = 2000000;
    drained = undrain = false;
    new_job();
    job_start(job);
    CHECK(TURN_UNTIL(top->written_bytes > 0));
    co_spawn(co_drain_a_while, NULL);
    CHECK(TURN_UNTIL(drained));
    written = top->written_bytes;
    for (int i = 0; i < 20; i++)
        mem_node_turn();
    CHECK_EQ(top->written_bytes, written);
    undrain = true;
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(top_reads(base->data));
    tear_down();
}

TEST(stream, memory_in_flight_is_bounded)
{
    set_up(64 * MIB);
    mem_node_fill(base, 0, 64 * MIB, BLK_ST_DATA, 0x11);
    base->hold_reads = true;
    new_job();
    job_start(job);
    for (int i = 0; i < 30; i++)
        mem_node_turn();
    CHECK(base->running >= 1 && base->running <= 32);
    mem_node_release(base);
    CHECK(TURN_UNTIL(concluded));
    tear_down();
}

TEST(stream, refuses_what_it_cant_stream_into)
{
    struct error err = ERROR_INIT;

    set_up(MIB);
    top->node.read_only = true;
    CHECK(
        !stream_job_new("s", "vm1", &(struct stream_plan_opts){.first.overlay = &top->node}, &err));
    CHECK_EQ(err.errnum, EROFS);
    top->node.read_only = false;
    top->node.limits.subunit_bytes = 0;
    CHECK(
        !stream_job_new("s", "vm1", &(struct stream_plan_opts){.first.overlay = &top->node}, &err));
    CHECK_EQ(err.class, ERR_NOT_SUPPORTED);
    top->node.limits.subunit_bytes = UNIT;
    blk_set_backing(&top->node, NULL);
    CHECK(
        !stream_job_new("s", "vm1", &(struct stream_plan_opts){.first.overlay = &top->node}, &err));
    CHECK(!job_find("s"));
    tear_down();
}
