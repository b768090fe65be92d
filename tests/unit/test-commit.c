/* SPDX-License-Identifier: BSD-3-Clause */
/* The commit job and its watch over layers in memory. */
#include <errno.h>
#include <string.h>

#include "lun-backends/commit.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define KIB  1024u
#define MIB  (1024u * 1024)
#define UNIT 4096u
#define SIZE (8u * MIB)

static int last_ret;
static bool concluded, was_ready;
static unsigned errors_told;

static void sink(struct job *job, enum job_event ev, const char *detail)
{
    (void)detail;
    if (ev == JOB_EV_ERROR)
        errors_told++;
    if (ev == JOB_EV_READY)
        was_ready = true;
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

/* base <- middle <- top */
struct layers {
    struct mem_node *base, *middle, *top;
};

static void layers_init(struct layers *l)
{
    l->base = mem_node_new(SIZE, UNIT);
    l->middle = mem_node_new(SIZE, UNIT);
    l->top = mem_node_new(SIZE, UNIT);
    blk_set_backing(&l->middle->node, &l->base->node);
    blk_set_backing(&l->top->node, &l->middle->node);
    mem_node_fill(l->base, 0, MIB, BLK_ST_DATA, 'b');
    mem_node_fill(l->middle, 0, 64 * KIB, BLK_ST_DATA, 'm');
    mem_node_fill(l->middle, 512 * KIB, 64 * KIB, BLK_ST_ZERO, 0);
    mem_node_fill(l->top, 32 * KIB, 64 * KIB, BLK_ST_DATA, 't');
    mem_node_fill(l->top, 4 * MIB, 3 * MIB, BLK_ST_DATA, 'T');
    concluded = was_ready = false;
    errors_told = 0;
}

static void layers_release(struct layers *l)
{
    blk_node_unref(&l->top->node);
    blk_node_unref(&l->middle->node);
    blk_node_unref(&l->base->node);
    TURN_UNTIL(!blk_closing());
}

static struct job *new_job(struct layers *l, struct blk_node *watch, bool auto_complete)
{
    struct commit_opts opts = {
        .top = &l->top->node,
        .base = &l->base->node,
        .watch = watch,
        .auto_complete = auto_complete,
    };
    struct error err = ERROR_INIT;

    return commit_job_new("c", "disk", &opts, &err);
}

static bool all_bytes(const uint8_t *p, uint8_t value, size_t n)
{
    while (n && *p == value)
        n--, p++;
    return n == 0;
}

TEST(commit, base_reads_as_the_top_did_and_keeps_what_nobody_above_decides)
{
    struct layers l;

    layers_init(&l);
    job_start(new_job(&l, NULL, false));
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(all_bytes(l.base->data, 'm', 32 * KIB));
    CHECK(all_bytes(l.base->data + 32 * KIB, 't', 64 * KIB));
    CHECK(all_bytes(l.base->data + 96 * KIB, 'b', 416 * KIB));
    CHECK(all_bytes(l.base->data + 512 * KIB, 0, 64 * KIB));
    CHECK(all_bytes(l.base->data + 576 * KIB, 'b', 448 * KIB));
    CHECK_EQ(mem_node_state(l.base, 2 * MIB), BLK_ST_UNALLOCATED);
    CHECK(all_bytes(l.base->data + 4 * MIB, 'T', 3 * MIB));
    CHECK(l.base->flushes > 0);
    CHECK(!was_ready);
    layers_release(&l);
}

TEST(commit, a_write_error_fails_the_job_and_nothing_above_has_changed)
{
    struct layers l;

    layers_init(&l);
    l.base->write_error = -ENOSPC;
    job_start(new_job(&l, NULL, false));
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ENOSPC);
    CHECK_EQ(errors_told, 1);
    CHECK_EQ(l.top->writes + l.middle->writes, 0);
    layers_release(&l);
}

TEST(commit, with_ignore_an_error_is_tried_again_never_passed_over)
{
    struct layers l;
    struct job *job;

    layers_init(&l);
    l.base->write_error = -EIO;
    l.base->faults_left = 2;
    job = new_job(&l, NULL, false);
    job->on_error = JOB_ERR_IGNORE;
    job_start(job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(errors_told >= 1);
    CHECK(all_bytes(l.base->data, 'm', 32 * KIB));
    CHECK(all_bytes(l.base->data + 4 * MIB, 'T', 3 * MIB));
    layers_release(&l);
}

TEST(commit, a_flush_error_fails_the_job)
{
    struct layers l;

    layers_init(&l);
    l.base->flush_error = -EIO;
    job_start(new_job(&l, NULL, false));
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -EIO);
    layers_release(&l);
}

TEST(commit, a_base_that_is_not_below_its_top_is_refused)
{
    struct commit_opts opts = {0};
    struct error err = ERROR_INIT;
    struct layers l;

    layers_init(&l);
    opts.top = &l.middle->node;
    opts.base = &l.top->node;
    CHECK(!commit_job_new("c", "disk", &opts, &err));
    CHECK(strstr(err.msg, "not below"));
    layers_release(&l);
}

/* ---- the active layer ------------------------------------------------------------------- */

struct guest {
    struct blk_head head;
    uint64_t offset;
    uint8_t fill;
    int ret;
    bool done;
};

static void guest_done(struct blk_req *req)
{
    struct guest *g = req->opaque;

    g->ret = req->result;
    g->done = true;
}

static void guest_write(struct guest *g, uint64_t offset, uint8_t fill)
{
    static uint8_t buf[UNIT];
    static struct blk_req req;

    memset(buf, fill, sizeof(buf));
    g->done = false;
    req = (struct blk_req){
        .verb = BLK_WRITE,
        .offset_bytes = offset,
        .length_bytes = UNIT,
        .iov = &req.small_iov,
        .niov = 1,
        .small_iov = {buf, UNIT},
        .done = guest_done,
        .opaque = g,
    };
    blk_head_submit(&g->head, &req);
    CHECK(TURN_UNTIL(g->done));
    CHECK_EQ(g->ret, 0);
}

static void co_end_guest(void *arg)
{
    co_blk_head_fini(arg);
}

struct catching {
    struct layers *l;
    struct blk_node *watch;
    int ret;
};

static void co_catch_up(void *arg)
{
    struct catching *c = arg;

    co_blk_drain_begin(&c->l->top->node);
    c->ret = co_commit_catch_up(c->watch, &c->l->base->node);
    blk_drain_end(&c->l->top->node);
}

TEST(commit, what_is_written_meanwhile_reaches_the_base)
{
    struct blk_node *watch;
    struct guest g = {0};
    struct layers l;
    struct job *job;

    layers_init(&l);
    watch = commit_watch_new(&l.top->node);
    REQUIRE(watch);
    blk_head_init(&g.head, "guest", watch, true);
    job = new_job(&l, watch, false);
    job_start(job);
    CHECK(TURN_UNTIL(was_ready));
    CHECK_EQ(job->status, JOB_READY);
    guest_write(&g, 2 * MIB, 'g');
    guest_write(&g, 0, 'h');
    CHECK(TURN_UNTIL(!commit_watch_dirty_bytes(watch)));
    CHECK(TURN_UNTIL(all_bytes(l.base->data + 2 * MIB, 'g', UNIT)));
    CHECK(TURN_UNTIL(all_bytes(l.base->data, 'h', UNIT)));
    CHECK(!concluded);
    {
        struct error err = ERROR_INIT;

        CHECK_EQ(job_complete(job, &err), 0);
    }
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    mem_node_run(co_end_guest, &g.head);
    blk_node_unref(watch);
    layers_release(&l);
}

TEST(commit, what_comes_after_the_job_is_caught_up_with_drained)
{
    struct blk_node *watch;
    struct catching c;
    struct guest g = {0};
    struct layers l;

    layers_init(&l);
    watch = commit_watch_new(&l.top->node);
    REQUIRE(watch);
    blk_head_init(&g.head, "guest", watch, true);
    job_start(new_job(&l, watch, true));
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    guest_write(&g, 3 * MIB, 'x');
    CHECK(commit_watch_dirty_bytes(watch) > 0);
    c = (struct catching){.l = &l, .watch = watch};
    mem_node_run(co_catch_up, &c);
    CHECK_EQ(c.ret, 0);
    CHECK_EQ(commit_watch_dirty_bytes(watch), 0);
    CHECK(all_bytes(l.base->data + 3 * MIB, 'x', UNIT));
    mem_node_run(co_end_guest, &g.head);
    blk_node_unref(watch);
    layers_release(&l);
}

TEST(commit, what_could_not_be_caught_up_with_stays_marked)
{
    struct blk_node *watch;
    struct catching c;
    struct guest g = {0};
    struct layers l;

    layers_init(&l);
    watch = commit_watch_new(&l.top->node);
    REQUIRE(watch);
    blk_head_init(&g.head, "guest", watch, true);
    guest_write(&g, 3 * MIB, 'x');
    l.base->write_error = -EIO;
    c = (struct catching){.l = &l, .watch = watch};
    mem_node_run(co_catch_up, &c);
    CHECK_EQ(c.ret, -EIO);
    CHECK(commit_watch_dirty_bytes(watch) > 0);
    mem_node_run(co_end_guest, &g.head);
    blk_node_unref(watch);
    layers_release(&l);
}
