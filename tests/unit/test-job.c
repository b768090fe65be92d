/* SPDX-License-Identifier: BSD-3-Clause */
/* Jobs: QEMU's order of events, what may be asked when, pause, cancel, speed, error policies. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lun-backends/job.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

static char trace[1024];

static void note(const char *what)
{
    size_t len = strlen(trace);

    snprintf(trace + len, sizeof(trace) - len, "%s%s", len ? " " : "", what);
}

static void sink(struct job *job, enum job_event ev, const char *detail)
{
    static const char *const names[] = {
        [JOB_EV_COMPLETED] = "COMPLETED",
        [JOB_EV_CANCELLED] = "CANCELLED",
        [JOB_EV_READY] = "READY",
        [JOB_EV_PENDING] = "PENDING",
    };

    if (ev == JOB_EV_STATUS_CHANGE)
        note(job_status_name(job->status));
    else if (ev == JOB_EV_ERROR)
        note(detail);
    else
        note(names[ev]);
}

/* A job that counts rounds of a millisecond until it is told to end. */
struct counter {
    struct job job;
    unsigned rounds;
    uint64_t round_bytes;
    bool end;
    int ret, fault; /* positive: met once */
};

static int co_count(struct job *job)
{
    struct counter *c = container_of(job, struct counter, job);

    while (!c->end) {
        if (co_job_pause_point(job))
            return -ECANCELED;
        if (c->fault) {
            int fault = c->fault;

            c->fault = 0;
            if (!co_job_handle_error(job, fault, true))
                return -fault;
        }
        if (c->round_bytes && !co_job_throttle(job, c->round_bytes))
            continue;
        if (!c->round_bytes)
            co_sleep(1000000);
        c->rounds++;
        job->offset += c->round_bytes;
    }
    return c->ret;
}

static unsigned cleanups;

static void co_count_cleanup(struct job *job)
{
    (void)job;
    cleanups++;
}

static const struct job_driver counter_driver = {
    .type = "count",
    .instance_bytes = sizeof(struct counter),
    .co_run = co_count,
    .co_cleanup = co_count_cleanup,
};

static void __attribute__((constructor)) start(void)
{
    loop_init();
    job_set_event_sink(sink);
}

static struct counter *new_counter(const char *id)
{
    struct error err = ERROR_INIT;
    struct job *job;

    trace[0] = '\0';
    job = job_new(&counter_driver, id, "vm1", &err);
    return job ? container_of(job, struct counter, job) : NULL;
}

TEST(job, events_of_a_success_come_in_qemus_order)
{
    struct counter *c = new_counter("j");

    c->end = true;
    job_start(&c->job);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running waiting pending COMPLETED concluded null");
}

TEST(job, events_of_a_failure)
{
    struct counter *c = new_counter("j");

    c->end = true;
    c->ret = -EIO;
    job_start(&c->job);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running aborting COMPLETED concluded null");
}

TEST(job, cancel_ends_with_the_cancelled_event)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    job_start(&c->job);
    CHECK_EQ(job_cancel(&c->job, &err), 0);
    CHECK(job_find("j") != NULL); /* it returns at once */
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running aborting CANCELLED concluded null");
}

TEST(job, cancel_before_start_still_cleans_up)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;
    unsigned before = cleanups;

    CHECK_EQ(job_cancel(&c->job, &err), 0);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_EQ(cleanups, before + 1);
    CHECK_STR(trace, "created aborting CANCELLED concluded null");
}

TEST(job, pause_stops_the_work_and_resume_goes_on)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;
    unsigned rounds;

    job_start(&c->job);
    CHECK(TURN_UNTIL(c->rounds > 3));
    CHECK_EQ(job_pause(&c->job, &err), 0);
    CHECK_EQ(job_pause(&c->job, &err), -EALREADY);
    CHECK(TURN_UNTIL(c->job.status == JOB_PAUSED));
    CHECK(!c->job.busy);
    rounds = c->rounds;
    for (int i = 0; i < 20; i++)
        mem_node_turn();
    CHECK_EQ(c->rounds, rounds);
    CHECK_EQ(job_resume(&c->job, &err), 0);
    CHECK_EQ(job_resume(&c->job, &err), -EPERM);
    CHECK(TURN_UNTIL(c->rounds > rounds + 3));
    c->end = true;
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running paused running waiting pending COMPLETED concluded null");
}

TEST(job, cancel_wakes_a_paused_job)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    job_start(&c->job);
    job_pause(&c->job, &err);
    CHECK(TURN_UNTIL(c->job.status == JOB_PAUSED));
    CHECK_EQ(job_cancel(&c->job, &err), 0);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running paused running aborting CANCELLED concluded null");
}

TEST(job, one_job_a_device_and_one_of_an_id)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    CHECK(!job_new(&counter_driver, "k", "vm1", &err));
    CHECK_EQ(err.class, ERR_DEVICE_IN_USE);
    err = (struct error)ERROR_INIT;
    CHECK(!job_new(&counter_driver, "j", "vm2", &err));
    CHECK_EQ(err.class, ERR_GENERIC);
    CHECK(!job_new(&counter_driver, "a/b", "vm2", &err));
    CHECK(!job_new(&counter_driver, "", "vm2", &err));
    c->end = true;
    job_start(&c->job);
    CHECK(TURN_UNTIL(!job_find("j")));
}

TEST(job, without_auto_dismiss_stays_concluded_until_dismissed)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    c->end = true;
    c->job.auto_dismiss = false;
    CHECK_EQ(job_dismiss(&c->job, &err), -EPERM);
    job_start(&c->job);
    CHECK(TURN_UNTIL(c->job.status == JOB_CONCLUDED));
    CHECK_EQ(job_cancel(&c->job, &err), -EPERM);
    CHECK_EQ(job_dismiss(&c->job, &err), 0);
    CHECK(!job_find("j"));
}

TEST(job, without_auto_finalize_waits_in_pending)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    c->end = true;
    c->job.auto_finalize = false;
    job_start(&c->job);
    CHECK(TURN_UNTIL(c->job.status == JOB_PENDING));
    CHECK_EQ(job_pause(&c->job, &err), -EPERM);
    CHECK_EQ(job_finalize(&c->job, &err), 0);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running waiting pending PENDING COMPLETED concluded null");
}

TEST(job, pending_can_still_be_cancelled)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    c->end = true;
    c->job.auto_finalize = false;
    job_start(&c->job);
    CHECK(TURN_UNTIL(c->job.status == JOB_PENDING));
    CHECK_EQ(job_cancel(&c->job, &err), 0);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running waiting pending PENDING aborting CANCELLED concluded null");
}

static void fail_the_end(struct job *job, void *opaque)
{
    struct error err = ERROR_INIT;

    (void)opaque;
    note("done");
    CHECK_EQ(job->ret, 0);
    CHECK_EQ(job_cancel(job, &err), -EBUSY);
    co_sleep(1000000);
    job->ret = error_set(&job->err, EIO, "the last step failed");
}

TEST(job, the_owner_may_fail_the_end)
{
    struct counter *c = new_counter("j");

    c->end = true;
    c->job.on_done = fail_the_end;
    job_start(&c->job);
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace, "created running waiting pending done aborting COMPLETED concluded null");
}

static bool waited;

static void co_wait_for_j(void *arg)
{
    (void)arg;
    co_job_wait("j");
    waited = true;
}

TEST(job, wait_returns_when_the_job_has_ended_even_if_its_id_is_reused)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    waited = false;
    c->end = true;
    c->job.auto_finalize = false;
    job_start(&c->job);
    co_spawn(co_wait_for_j, NULL);
    for (int i = 0; i < 5; i++)
        mem_node_turn();
    CHECK(!waited);
    job_finalize(&c->job, &err);
    CHECK(TURN_UNTIL(!job_find("j") || waited));
    c = new_counter("j");
    CHECK(TURN_UNTIL(waited));
    job_cancel(&c->job, &err);
    CHECK(TURN_UNTIL(!job_find("j")));
}

TEST(job, speed_is_kept_to)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;
    uint64_t start_ns = now_ns();

    c->round_bytes = 10000;
    job_set_speed(&c->job, 1000000, &err);
    job_start(&c->job);
    CHECK(TURN_UNTIL(c->job.offset >= 500000));
    CHECK(now_ns() - start_ns > 400000000); /* later on a busy machine, never earlier */
    job_cancel(&c->job, &err);
    CHECK(TURN_UNTIL(!job_find("j")));
}

/* What it had to wait for else is days. */
TEST(job, a_slow_job_hears_of_a_new_speed_and_of_cancel_while_it_waits)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;
    unsigned rounds;

    c->round_bytes = 1 << 20;
    job_set_speed(&c->job, 1, &err);
    job_start(&c->job);
    rounds = c->rounds;
    for (int i = 0; i < 10; i++)
        mem_node_turn();
    CHECK_EQ(c->rounds, rounds);
    job_set_speed(&c->job, UINT64_C(100) << 20, &err);
    CHECK(TURN_UNTIL(c->rounds > rounds));
    job_set_speed(&c->job, 1, &err);
    rounds = c->rounds;
    CHECK(TURN_UNTIL(c->rounds > rounds));
    job_cancel(&c->job, &err);
    CHECK(TURN_UNTIL(!job_find("j")));
}

TEST(job, on_error_stop_pauses_until_resumed)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    c->job.on_error = JOB_ERR_ENOSPC;
    c->fault = ENOSPC;
    job_start(&c->job);
    CHECK(TURN_UNTIL(c->job.status == JOB_PAUSED));
    CHECK(c->job.io_error);
    CHECK_EQ(job_resume(&c->job, &err), 0);
    CHECK(!c->job.io_error);
    CHECK(TURN_UNTIL(c->rounds > 2));
    c->fault = EIO; /* is not what enospc stops for */
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK_STR(trace,
              "created running write paused running write aborting COMPLETED concluded null");
}

TEST(job, on_error_auto_stops_for_a_full_disk_only)
{
    struct counter *c = new_counter("j");
    struct error err = ERROR_INIT;

    c->job.on_error = job_on_error_from("auto", JOB_ERR_REPORT);
    c->fault = ENOSPC;
    job_start(&c->job);
    CHECK(TURN_UNTIL(c->job.status == JOB_PAUSED));
    CHECK_EQ(job_resume(&c->job, &err), 0);
    c->fault = EIO;
    CHECK(TURN_UNTIL(!job_find("j")));
    CHECK(strstr(trace, "aborting"));
}

TEST(job, policies_have_their_names_and_a_fallback)
{
    CHECK_EQ(job_on_error_from("stop", JOB_ERR_REPORT), JOB_ERR_STOP);
    CHECK_EQ(job_on_error_from(NULL, JOB_ERR_ENOSPC), JOB_ERR_ENOSPC);
    CHECK_EQ(job_on_error_from("halt", JOB_ERR_REPORT), JOB_ERR_REPORT);
}
