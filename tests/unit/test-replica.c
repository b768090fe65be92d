/* SPDX-License-Identifier: BSD-3-Clause */
/* Mirror and backup jobs and the filter below guests, over layers in memory. */
#include <errno.h>
#include <string.h>

#include "lun-backends/replica.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define KIB   1024u
#define MIB   (1024u * 1024)
#define UNIT  4096u
#define SIZE  (8u * MIB)
#define CHUNK (64u * KIB)

static int last_ret;
static bool concluded, was_ready, was_left;
static unsigned errors_told, writes_told;

static void sink(struct job *job, enum job_event ev, const char *detail)
{
    if (ev == JOB_EV_ERROR) {
        errors_told++;
        writes_told += !strcmp(detail, "write");
    }
    if (ev == JOB_EV_READY)
        was_ready = true;
    if (ev == JOB_EV_STATUS_CHANGE && job->status == JOB_CONCLUDED) {
        last_ret = job->ret;
        was_left = job->left;
        concluded = true;
    }
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
    job_set_event_sink(sink);
}

/* base <- top, a filter over top, a guest over the filter; and the copy. */
struct disk {
    struct mem_node *base, *top, *copy;
    struct blk_node *replica;
    struct blk_head head;
    struct job *job;
};

struct how {
    enum replica_kind kind;
    unsigned levels;
    bool none, write_blocking, below, auto_complete;
    bool fine; /* top and base have units of a sector */
    enum job_on_error on_error;
    uint32_t granularity_bytes;
};

static void disk_init(struct disk *d, const struct how *how)
{
    struct replica_job_opts opts = {.on_source = how->on_error, .on_target = how->on_error};
    struct replica_opts ro;
    struct error err = ERROR_INIT;

    d->base = mem_node_new(SIZE, how->fine ? 512 : UNIT);
    d->top = mem_node_new(SIZE, how->fine ? 512 : UNIT);
    d->copy = mem_node_new(SIZE, UNIT);
    blk_set_backing(&d->top->node, &d->base->node);
    if (how->below)
        blk_set_backing(&d->copy->node, &d->base->node);
    mem_node_fill(d->base, 0, 2 * MIB, BLK_ST_DATA, 'b');
    mem_node_fill(d->top, 512 * KIB, MIB, BLK_ST_DATA, 't');
    mem_node_fill(d->top, 256 * KIB, 64 * KIB, BLK_ST_ZERO, 0);
    mem_node_fill(d->top, 4 * MIB, MIB, BLK_ST_DATA, 'T');
    concluded = was_ready = was_left = false;
    errors_told = writes_told = 0;
    ro = (struct replica_opts){
        .kind = how->kind,
        .source = &d->top->node,
        .target = &d->copy->node,
        .levels = how->levels,
        .all = !how->none,
        .write_blocking = how->write_blocking,
        .granularity_bytes = how->granularity_bytes,
    };
    d->replica = replica_new(&ro);
    blk_head_init(&d->head, "guest", d->replica, true);
    opts.replica = d->replica;
    opts.auto_complete = how->auto_complete;
    d->job = replica_job_new("r", "disk", &opts, &err);
}

static void co_end_guest(void *arg)
{
    co_blk_head_fini(arg);
}

static void disk_release(struct disk *d)
{
    mem_node_run(co_end_guest, &d->head);
    blk_node_unref(d->replica);
    blk_node_unref(&d->copy->node);
    blk_node_unref(&d->top->node);
    blk_node_unref(&d->base->node);
    TURN_UNTIL(!blk_closing());
}

static bool all_bytes(const uint8_t *p, uint8_t value, size_t n)
{
    while (n && *p == value)
        n--, p++;
    return n == 0;
}

struct change {
    struct blk_req req;
    uint8_t buf[UNIT];
    bool done;
};

static void change_done(struct blk_req *req)
{
    ((struct change *)req->opaque)->done = true;
}

static void change_start(struct disk *d, struct change *c, enum blk_verb verb, uint64_t offset,
                         uint8_t fill)
{
    memset(c, 0, sizeof(*c));
    memset(c->buf, fill, sizeof(c->buf));
    c->req.verb = verb;
    c->req.offset_bytes = offset;
    c->req.length_bytes = UNIT;
    if (verb == BLK_WRITE) {
        c->req.small_iov = (struct iovec){c->buf, UNIT};
        c->req.iov = &c->req.small_iov;
        c->req.niov = 1;
    }
    c->req.done = change_done;
    c->req.opaque = c;
    blk_head_submit(&d->head, &c->req);
}

static int change(struct disk *d, enum blk_verb verb, uint64_t offset, uint8_t fill)
{
    static struct change c;

    change_start(d, &c, verb, offset, fill);
    return TURN_UNTIL(c.done) ? c.req.result : -ETIMEDOUT;
}

static void complete(struct disk *d)
{
    struct error err = ERROR_INIT;

    CHECK_EQ(job_complete(d->job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
}

static void check_as_at_first(const struct disk *d)
{
    const uint8_t *p = d->copy->data;

    CHECK(all_bytes(p, 'b', 256 * KIB));
    CHECK(all_bytes(p + 256 * KIB, 0, 64 * KIB));
    CHECK(all_bytes(p + 320 * KIB, 'b', 192 * KIB));
    CHECK(all_bytes(p + 512 * KIB, 't', MIB));
    CHECK(all_bytes(p + 1536 * KIB, 'b', 512 * KIB));
    CHECK(all_bytes(p + 2 * MIB, 0, 2 * MIB));
    CHECK(all_bytes(p + 4 * MIB, 'T', MIB));
    CHECK(all_bytes(p + 5 * MIB, 0, 3 * MIB));
}

/* ---- mirror --------------------------------------------------------------------------------- */

TEST(replica, a_mirror_is_ready_with_all_copied_and_ends_when_told_to)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    job_start(d.job);
    CHECK(TURN_UNTIL(was_ready));
    check_as_at_first(&d);
    CHECK(d.copy->flushes > 0);
    CHECK_EQ(replica_dirty_bytes(d.replica), 0);
    CHECK(!concluded);
    complete(&d);
    CHECK_EQ(last_ret, 0);
    CHECK(!was_left);
    disk_release(&d);
}

TEST(replica, what_reads_zeros_on_both_sides_is_not_written)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR, .auto_complete = true});
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(d.copy->zeroes, 0);
    CHECK_EQ(mem_node_state(d.copy, 3 * MIB), BLK_ST_UNALLOCATED);
    disk_release(&d);
}

TEST(replica, zeros_go_over_what_the_copy_held)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR, .auto_complete = true});
    mem_node_fill(d.copy, 0, SIZE, BLK_ST_DATA, 'x');
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    check_as_at_first(&d);
    disk_release(&d);
}

TEST(replica, a_mirror_of_the_top_leaves_the_rest_to_what_is_below)
{
    struct disk d;

    disk_init(&d, &(struct how){
                      .kind = REPLICA_MIRROR, .levels = 1, .below = true, .auto_complete = true});
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(mem_node_state(d.copy, 0), BLK_ST_UNALLOCATED);
    CHECK_EQ(mem_node_state(d.copy, 256 * KIB), BLK_ST_ZERO);
    CHECK(all_bytes(d.copy->data + 512 * KIB, 't', MIB));
    CHECK_EQ(mem_node_state(d.copy, 1536 * KIB), BLK_ST_UNALLOCATED);
    disk_release(&d);
}

/* Sectors of every sort side by side, and a copy that takes whole units of eight. */
TEST(replica, sectors_that_differ_are_told_apart)
{
    static const enum blk_state sorts[] = {BLK_ST_ZERO, BLK_ST_UNALLOCATED, BLK_ST_DATA,
                                           BLK_ST_ZERO, BLK_ST_UNALLOCATED};
    unsigned wrong = 0;
    struct disk d;

    for (unsigned levels = 0; levels < 2; levels++) {
        disk_init(&d, &(struct how){.kind = REPLICA_MIRROR,
                                    .levels = levels,
                                    .below = levels == 1,
                                    .fine = true,
                                    .auto_complete = true});
        d.copy->node.limits.align_bytes = UNIT;
        for (unsigned i = 0; i < 256 * KIB / 512; i++)
            mem_node_fill(d.top, i * 512, 512, sorts[i % 7 % 5],
                          sorts[i % 7 % 5] == BLK_ST_DATA ? 't' : 0);
        job_start(d.job);
        CHECK(TURN_UNTIL(concluded));
        CHECK_EQ(last_ret, 0);
        for (unsigned i = 0; i < 256 * KIB / 512; i++) {
            enum blk_state s = sorts[i % 7 % 5];
            bool below = mem_node_state(d.copy, i * 512) == BLK_ST_UNALLOCATED;
            uint8_t want = s == BLK_ST_DATA ? 't' : s == BLK_ST_ZERO ? 0 : 'b';

            wrong += below ? want != 'b' || !levels : !all_bytes(d.copy->data + i * 512, want, 512);
        }
        CHECK_EQ(wrong, 0);
        disk_release(&d);
    }
}

TEST(replica, what_is_changed_meanwhile_reaches_the_copy)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    job_start(d.job);
    CHECK(TURN_UNTIL(was_ready));
    CHECK_EQ(change(&d, BLK_WRITE, 6 * MIB, 'g'), 0);
    CHECK_EQ(change(&d, BLK_WRITE_ZEROES, 0, 0), 0);
    CHECK_EQ(change(&d, BLK_WRITE_ZEROES, 4 * MIB, 0), 0);
    CHECK(TURN_UNTIL(!replica_dirty_bytes(d.replica)));
    CHECK(all_bytes(d.copy->data + 6 * MIB, 'g', UNIT));
    CHECK(all_bytes(d.copy->data, 0, UNIT));
    CHECK(all_bytes(d.copy->data + 4 * MIB, 0, UNIT));
    complete(&d);
    disk_release(&d);
}

TEST(replica, with_nothing_marked_at_first_only_changes_are_copied)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR, .none = true});
    job_start(d.job);
    CHECK(TURN_UNTIL(was_ready));
    CHECK_EQ(d.copy->writes + d.copy->zeroes, 0);
    CHECK_EQ(change(&d, BLK_WRITE, 6 * MIB, 'g'), 0);
    complete(&d);
    CHECK(all_bytes(d.copy->data + 6 * MIB, 'g', UNIT));
    CHECK_EQ(mem_node_state(d.copy, 0), BLK_ST_UNALLOCATED);
    disk_release(&d);
}

TEST(replica, write_blocking_ends_a_write_when_the_copy_has_it)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR, .write_blocking = true});
    d.job->user_paused = true; /* nobody else copies */
    job_start(d.job);
    CHECK_EQ(change(&d, BLK_WRITE, 6 * MIB, 'g'), 0);
    CHECK(all_bytes(d.copy->data + 6 * MIB, 'g', UNIT));
    d.copy->write_error = -EIO;
    d.copy->faults_left = 1;
    CHECK_EQ(change(&d, BLK_WRITE, 6 * MIB, 'h'), 0);
    {
        struct error err = ERROR_INIT;

        CHECK_EQ(job_resume(d.job, &err), 0);
    }
    CHECK(TURN_UNTIL(was_ready));
    CHECK(all_bytes(d.copy->data + 6 * MIB, 'h', UNIT));
    complete(&d);
    CHECK_EQ(errors_told, 0);
    disk_release(&d);
}

struct catching {
    struct disk *d;
    int ret;
};

static void co_catch_up(void *arg)
{
    struct catching *c = arg;

    co_blk_drain_begin(&c->d->top->node);
    c->ret = co_replica_catch_up(c->d->replica);
    blk_drain_end(&c->d->top->node);
}

TEST(replica, what_comes_after_the_job_is_caught_up_with_drained)
{
    struct catching c;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR, .auto_complete = true});
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(change(&d, BLK_WRITE, 3 * MIB, 'x'), 0);
    CHECK_EQ(replica_dirty_bytes(d.replica), CHUNK);
    d.copy->write_error = -EIO;
    d.copy->faults_left = 1;
    c = (struct catching){.d = &d};
    mem_node_run(co_catch_up, &c);
    CHECK_EQ(c.ret, -EIO);
    CHECK_EQ(replica_dirty_bytes(d.replica), CHUNK);
    mem_node_run(co_catch_up, &c);
    CHECK_EQ(c.ret, 0);
    CHECK_EQ(replica_dirty_bytes(d.replica), 0);
    CHECK(all_bytes(d.copy->data + 3 * MIB, 'x', UNIT));
    disk_release(&d);
}

TEST(replica, a_ready_mirror_that_is_left_ends_well_one_that_is_not_ready_is_cancelled)
{
    struct error err = ERROR_INIT;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    job_start(d.job);
    CHECK(TURN_UNTIL(was_ready));
    CHECK_EQ(job_leave(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(was_left);
    disk_release(&d);

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    d.job->speed = 1;
    job_start(d.job);
    CHECK_EQ(job_leave(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ECANCELED);
    CHECK(!was_left);
    disk_release(&d);
}

TEST(replica, a_ready_mirror_is_cancelled_by_force)
{
    struct error err = ERROR_INIT;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    job_start(d.job);
    CHECK(TURN_UNTIL(was_ready));
    CHECK_EQ(job_cancel(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ECANCELED);
    disk_release(&d);
}

TEST(replica, the_side_that_fails_is_told_and_its_policy_holds)
{
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    d.copy->write_error = -ENOSPC;
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ENOSPC);
    CHECK_EQ(errors_told, 1);
    CHECK_EQ(writes_told, 1);
    disk_release(&d);

    disk_init(&d, &(struct how){.kind = REPLICA_MIRROR});
    d.top->read_error = -EIO;
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -EIO);
    CHECK_EQ(writes_told, 0);
    disk_release(&d);
}

TEST(replica, with_ignore_an_error_is_tried_again_with_stop_after_a_resume)
{
    struct error err = ERROR_INIT;
    struct disk d;

    disk_init(&d, &(struct how){
                      .kind = REPLICA_MIRROR, .on_error = JOB_ERR_IGNORE, .auto_complete = true});
    d.copy->write_error = -EIO;
    d.copy->faults_left = 2;
    job_start(d.job);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    check_as_at_first(&d);
    disk_release(&d);

    disk_init(&d, &(struct how){
                      .kind = REPLICA_MIRROR, .on_error = JOB_ERR_ENOSPC, .auto_complete = true});
    d.copy->write_error = -ENOSPC;
    job_start(d.job);
    CHECK(TURN_UNTIL(d.job->status == JOB_PAUSED));
    CHECK(d.job->io_no_space);
    d.copy->write_error = 0;
    CHECK_EQ(job_resume(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    check_as_at_first(&d);
    disk_release(&d);
}

TEST(replica, a_smaller_granularity_marks_less)
{
    struct disk d;

    disk_init(&d,
              &(struct how){.kind = REPLICA_MIRROR, .none = true, .granularity_bytes = 2 * UNIT});
    d.job->user_paused = true;
    job_start(d.job);
    CHECK_EQ(change(&d, BLK_WRITE, 3 * MIB, 'x'), 0);
    CHECK_EQ(replica_dirty_bytes(d.replica), 2 * UNIT);
    {
        struct error err = ERROR_INIT;

        CHECK_EQ(job_cancel(d.job, &err), 0);
    }
    CHECK(TURN_UNTIL(concluded));
    disk_release(&d);
}

/* ---- backup --------------------------------------------------------------------------------- */

TEST(replica, a_backup_is_the_disk_as_it_was_at_the_start)
{
    struct error err = ERROR_INIT;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_BACKUP});
    d.job->user_paused = true;
    job_start(d.job);
    CHECK_EQ(change(&d, BLK_WRITE, 512 * KIB, 'g'), 0);
    CHECK(all_bytes(d.copy->data + 512 * KIB, 't', CHUNK)); /* saved before it was changed */
    CHECK_EQ(change(&d, BLK_WRITE, 512 * KIB, 'h'), 0);
    CHECK_EQ(change(&d, BLK_WRITE_ZEROES, 4 * MIB, 0), 0);
    CHECK_EQ(change(&d, BLK_DISCARD, 0, 0), -ENOTSUP); /* as the layer says */
    CHECK_EQ(change(&d, BLK_WRITE, 6 * MIB, 'g'), 0);
    CHECK(all_bytes(d.top->data + 512 * KIB, 'h', UNIT));
    CHECK(all_bytes(d.top->data + 6 * MIB, 'g', UNIT));
    CHECK_EQ(job_resume(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    check_as_at_first(&d);
    CHECK(!was_ready);
    disk_release(&d);
}

TEST(replica, a_write_waits_for_the_copy_that_is_under_way)
{
    static struct change c;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_BACKUP});
    d.copy->hold_writes = true;
    job_start(d.job);
    CHECK(TURN_UNTIL(d.copy->writes > 0 || d.copy->running > 0));
    change_start(&d, &c, BLK_WRITE, 512 * KIB, 'g');
    for (int i = 0; i < 20; i++)
        mem_node_turn();
    CHECK(!c.done);
    CHECK(all_bytes(d.top->data + 512 * KIB, 't', UNIT));
    d.copy->hold_writes = false;
    mem_node_release(d.copy);
    CHECK(TURN_UNTIL(c.done && concluded));
    CHECK_EQ(c.req.result, 0);
    check_as_at_first(&d);
    disk_release(&d);
}

TEST(replica, a_backup_that_cannot_save_fails_and_no_guest_does)
{
    struct error err = ERROR_INIT;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_BACKUP, .on_error = JOB_ERR_IGNORE});
    d.job->user_paused = true;
    job_start(d.job);
    d.copy->write_error = -ENOSPC;
    CHECK_EQ(change(&d, BLK_WRITE, 512 * KIB, 'g'), 0);
    CHECK_EQ(change(&d, BLK_WRITE, 4 * MIB, 'g'), 0);
    CHECK_EQ(job_resume(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ENOSPC);
    disk_release(&d);
}

TEST(replica, a_backup_of_nothing_saves_what_is_changed_until_it_is_cancelled)
{
    struct error err = ERROR_INIT;
    struct disk d;

    disk_init(&d, &(struct how){.kind = REPLICA_BACKUP, .none = true});
    job_start(d.job);
    CHECK_EQ(change(&d, BLK_WRITE, 512 * KIB, 'g'), 0);
    CHECK(all_bytes(d.copy->data + 512 * KIB, 't', CHUNK));
    CHECK_EQ(mem_node_state(d.copy, 4 * MIB), BLK_ST_UNALLOCATED);
    CHECK(!concluded);
    CHECK_EQ(job_leave(d.job, &err), 0);
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, -ECANCELED);
    CHECK_EQ(change(&d, BLK_WRITE, 4 * MIB, 'g'), 0);
    CHECK_EQ(mem_node_state(d.copy, 4 * MIB), BLK_ST_UNALLOCATED);
    disk_release(&d);
}
