/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs by QMP's rules. A job's status changes only along QEMU's transitions, each told to the
 * sink; what may be asked of a job in which status is one table. The job's coroutine is the only
 * one that ends it: it runs the work, lets the owner finish (on_done), sends the last event, and
 * frees the job unless somebody has to dismiss it.
 */
#include "lun-backends/job.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/loop.h"
#include "util/size.h"

#define NS_PER_S 1000000000u
#define SLICE_NS (50 * 1000000u) /* bound on how late a sleeping job sees what it is told */

static struct list_head jobs = LIST_HEAD_INIT(jobs);
static uint64_t last_serial;
static void (*event_sink)(struct job *job, enum job_event ev, const char *detail);

static const char *const status_names[JOB_NR_STATUS] = {
    [JOB_CREATED] = "created", [JOB_RUNNING] = "running",   [JOB_PAUSED] = "paused",
    [JOB_READY] = "ready",     [JOB_STANDBY] = "standby",   [JOB_WAITING] = "waiting",
    [JOB_PENDING] = "pending", [JOB_ABORTING] = "aborting", [JOB_CONCLUDED] = "concluded",
    [JOB_NULL] = "null",
};

const char *const job_on_error_names[] = {
    [JOB_ERR_REPORT] = "report",
    [JOB_ERR_IGNORE] = "ignore",
    [JOB_ERR_STOP] = "stop",
    [JOB_ERR_ENOSPC] = "enospc",
    [JOB_ERR_AUTO] = "auto", /* as enospc: QEMU's jobs have nothing else to go by either */
    NULL,
};

enum job_on_error job_on_error_from(const char *name, enum job_on_error fallback)
{
    for (int i = 0; name && job_on_error_names[i]; i++) {
        if (!strcmp(job_on_error_names[i], name))
            return (enum job_on_error)i;
    }
    return fallback;
}

/* What may be asked, as bits of enum job_status. */
enum job_ask {
    ASK_CANCEL,
    ASK_PAUSE,
    ASK_RESUME,
    ASK_SET_SPEED,
    ASK_COMPLETE,
    ASK_FINALIZE,
    ASK_DISMISS
};
#define IN(status) (1u << JOB_##status)
#define IN_WORK    (IN(CREATED) | IN(RUNNING) | IN(PAUSED) | IN(READY) | IN(STANDBY))

static const struct {
    const char *name;
    unsigned allowed;
} asks[] = {
    [ASK_CANCEL] = {"cancel", IN_WORK | IN(WAITING) | IN(PENDING)},
    [ASK_PAUSE] = {"pause", IN_WORK},
    [ASK_RESUME] = {"resume", IN_WORK},
    [ASK_SET_SPEED] = {"set-speed", IN_WORK},
    [ASK_COMPLETE] = {"complete", IN(READY)},
    [ASK_FINALIZE] = {"finalize", IN(PENDING)},
    [ASK_DISMISS] = {"dismiss", IN(CONCLUDED)},
};

const char *job_status_name(enum job_status s)
{
    return (unsigned)s < JOB_NR_STATUS ? status_names[s] : "unknown";
}

void job_set_event_sink(void (*fn)(struct job *job, enum job_event ev, const char *detail))
{
    event_sink = fn;
}

static void emit(struct job *job, enum job_event ev, const char *detail)
{
    if (event_sink)
        event_sink(job, ev, detail);
}

static void set_status(struct job *job, enum job_status s)
{
    job->status = s;
    emit(job, JOB_EV_STATUS_CHANGE, NULL);
}

static int may_ask(const struct job *job, enum job_ask ask, struct error *err)
{
    if (asks[ask].allowed >> job->status & 1)
        return 0;
    return error_set(err, EPERM, "job '%s' in state '%s' can't take '%s'", job->id,
                     job_status_name(job->status), asks[ask].name);
}

/* ---- the list --------------------------------------------------------------------- */

static int id_check(const char *id, struct error *err)
{
    size_t len = strlen(id);

    if (len == 0 || len >= sizeof(((struct job *)0)->id))
        return error_set(err, EINVAL, "a job's id has 1 to 64 characters");
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)id[i]) && !strchr("._-", id[i]))
            return error_set(err, EINVAL, "job id: only letters, digits, '.', '_' and '-'");
    }
    return 0;
}

static struct job *job_on_device(const char *device)
{
    struct job *job;

    list_for_each_entry (job, &jobs, link) {
        if (!strcmp(job->device, device) && job->status != JOB_CONCLUDED)
            return job;
    }
    return NULL;
}

struct job *job_new(const struct job_driver *drv, const char *id, const char *device,
                    struct error *err)
{
    struct job *job;

    if (!id)
        id = device;
    if (id_check(id, err))
        return NULL;
    if (strlen(device) >= sizeof(job->device)) {
        error_set(err, EINVAL, "device name longer than 64 characters");
        return NULL;
    }
    if (job_find(id)) {
        error_set(err, EEXIST, "job id '%s' is in use", id);
        return NULL;
    }
    job = job_on_device(device);
    if (job) {
        error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "%s job '%s' works on '%s'", job->drv->type,
                        job->id, device);
        return NULL;
    }
    job = calloc(1, drv->instance_bytes);
    if (!job) {
        error_set(err, ENOMEM, "no memory for job '%s'", id);
        return NULL;
    }
    job->drv = drv;
    strcpy(job->id, id);
    strcpy(job->device, device);
    job->serial = ++last_serial;
    job->auto_finalize = job->auto_dismiss = true;
    co_queue_init(&job->waiters);
    list_add_tail(&jobs, &job->link);
    set_status(job, JOB_CREATED);
    return job;
}

uint64_t job_rate(struct job *job)
{
    uint64_t now = now_ns(), since = job->rated_ns ? job->rated_ns : job->started_ns;
    uint64_t bytes = job->offset - MIN_OF(job->rated_offset, job->offset);

    if (!since || now <= since || job->status == JOB_PAUSED)
        return 0;
    if (job->rated_ns && now - since < NS_PER_S)
        return job->rate;
    job->rate = (uint64_t)((double)bytes * NS_PER_S / (double)(now - since));
    if (now - since >= NS_PER_S) {
        job->rated_ns = now;
        job->rated_offset = job->offset;
    }
    return job->rate;
}

struct job *job_find(const char *id)
{
    struct job *job;

    list_for_each_entry (job, &jobs, link) {
        if (!strcmp(job->id, id))
            return job;
    }
    return NULL;
}

struct job *job_first(void)
{
    return list_empty(&jobs) ? NULL : list_first_entry(&jobs, struct job, link);
}

struct job *job_next(struct job *job)
{
    return job->link.next == &jobs ? NULL : list_first_entry(&job->link, struct job, link);
}

/* ---- from start to end ------------------------------------------------------------- */

static void forget(struct job *job)
{
    set_status(job, JOB_NULL);
    list_del(&job->link);
    free(job);
}

static void fail(struct job *job, int ret)
{
    job->ret = job->cancelled ? -ECANCELED : ret;
    if (!job->err.msg[0])
        error_set(&job->err, -job->ret, "%s", strerror(-job->ret));
}

/* Success has to be finalized, by itself or by somebody; until then it can be cancelled. */
static void co_settle(struct job *job)
{
    set_status(job, JOB_WAITING);
    set_status(job, JOB_PENDING);
    if (!job->auto_finalize) {
        emit(job, JOB_EV_PENDING, NULL);
        while (!job->finalize_asked && !job->cancelled)
            co_queue_wait(&job->waiters);
        if (job->cancelled)
            fail(job, -ECANCELED);
    }
}

static void co_run_job(void *arg)
{
    struct job *job = arg;
    bool auto_dismiss = job->auto_dismiss;

    if (!job->cancelled) {
        job->busy = true;
        job->started_ns = now_ns();
        set_status(job, JOB_RUNNING);
        job->ret = job->drv->co_run(job);
    }
    if (job->cancelled || job->ret < 0)
        fail(job, job->ret);
    job->drv->co_cleanup(job);
    if (job->ret == 0)
        co_settle(job);
    job->finalizing = true;
    if (job->ret < 0)
        set_status(job, JOB_ABORTING);
    if (job->on_done)
        job->on_done(job, job->opaque);
    if (job->ret < 0 && job->status == JOB_PENDING) {
        fail(job, job->ret);
        set_status(job, JOB_ABORTING);
    }
    job->busy = false;
    emit(job, job->ret == -ECANCELED ? JOB_EV_CANCELLED : JOB_EV_COMPLETED, NULL);
    co_queue_wake_all(&job->waiters);
    set_status(job, JOB_CONCLUDED); /* a job not auto-dismissed may be gone after this */
    if (auto_dismiss)
        forget(job);
}

void job_start(struct job *job)
{
    co_spawn(co_run_job, job);
}

void co_job_wait(const char *id)
{
    struct job *job = job_find(id);
    uint64_t serial = job ? job->serial : 0;

    while (job && job->serial == serial && job->status != JOB_CONCLUDED) {
        co_queue_wait(&job->waiters);
        job = job_find(id);
    }
}

/* ---- what is asked of a job -------------------------------------------------------- */

int job_pause(struct job *job, struct error *err)
{
    int ret = may_ask(job, ASK_PAUSE, err);

    if (ret)
        return ret;
    if (job->user_paused)
        return error_set(err, EALREADY, "job '%s' is paused already", job->id);
    job->user_paused = true;
    return 0;
}

int job_resume(struct job *job, struct error *err)
{
    int ret = may_ask(job, ASK_RESUME, err);

    if (ret)
        return ret;
    if (!job->user_paused)
        return error_set(err, EPERM, "job '%s' is not paused", job->id);
    job->user_paused = job->io_error = false;
    co_queue_wake_all(&job->waiters);
    return 0;
}

int job_cancel(struct job *job, struct error *err)
{
    int ret = may_ask(job, ASK_CANCEL, err);

    if (ret)
        return ret;
    if (job->finalizing)
        return error_set(err, EBUSY, "job '%s' is completing, it can't be cancelled now", job->id);
    if (job->cancelled)
        return 0;
    job->cancelled = true;
    job->user_paused = job->io_error = false;
    if (job->drv->on_cancel)
        job->drv->on_cancel(job);
    if (job->status == JOB_CREATED)
        co_spawn(co_run_job, job);
    else
        co_queue_wake_all(&job->waiters);
    return 0;
}

int job_leave(struct job *job, struct error *err)
{
    if (!job->drv->can_leave || job->cancelled ||
        (job->status != JOB_READY && job->status != JOB_STANDBY))
        return job_cancel(job, err);
    job->left = job->complete_asked = true;
    job->user_paused = job->io_error = false;
    co_queue_wake_all(&job->waiters);
    return 0;
}

int job_set_speed(struct job *job, uint64_t bytes_per_s, struct error *err)
{
    int ret = may_ask(job, ASK_SET_SPEED, err);

    if (ret)
        return ret;
    job->speed = bytes_per_s;
    job->tokens_ns = 0;
    return 0;
}

int job_complete(struct job *job, struct error *err)
{
    int ret = may_ask(job, ASK_COMPLETE, err);

    if (ret)
        return ret;
    job->complete_asked = true;
    co_queue_wake_all(&job->waiters);
    return 0;
}

int job_finalize(struct job *job, struct error *err)
{
    int ret = may_ask(job, ASK_FINALIZE, err);

    if (ret)
        return ret;
    job->finalize_asked = true;
    co_queue_wake_all(&job->waiters);
    return 0;
}

int job_dismiss(struct job *job, struct error *err)
{
    int ret = may_ask(job, ASK_DISMISS, err);

    if (ret)
        return ret;
    if (job->auto_dismiss)
        return error_set(err, EPERM, "job '%s' goes away by itself", job->id);
    forget(job);
    return 0;
}

/* ---- for the job's own coroutines -------------------------------------------------- */

bool job_wants_attention(const struct job *job)
{
    return job->user_paused || job->cancelled;
}

bool co_job_pause_point(struct job *job)
{
    if (job->user_paused && !job->cancelled) {
        job->busy = false;
        set_status(job, job->ready ? JOB_STANDBY : JOB_PAUSED);
        while (job->user_paused && !job->cancelled)
            co_queue_wait(&job->waiters);
        job->busy = true;
        set_status(job, job->ready ? JOB_READY : JOB_RUNNING);
    }
    return job->cancelled;
}

void job_set_ready(struct job *job)
{
    if (job->ready)
        return;
    job->ready = true;
    set_status(job, JOB_READY);
    emit(job, JOB_EV_READY, NULL);
}

bool co_job_sleep(struct job *job, uint64_t ns)
{
    uint64_t end = now_ns() + ns;

    while (!job_wants_attention(job)) {
        uint64_t now = now_ns();

        if (now >= end)
            return true;
        co_sleep(MIN_OF(end - now, SLICE_NS));
    }
    return false;
}

/*
 * What is moved is charged behind the next free slot. That may lie a slice in the past, so that a
 * timer's lateness costs no rate, but no more: an idle job saves nothing up. Waiting is in slices
 * too, so that a new speed (which frees the slot) is seen.
 */
bool co_job_throttle(struct job *job, uint64_t bytes)
{
    uint64_t now = now_ns();

    while (job->speed && job->tokens_ns > now) {
        if (!co_job_sleep(job, MIN_OF(job->tokens_ns - now, SLICE_NS)))
            return false;
        now = now_ns();
    }
    if (job_wants_attention(job))
        return false;
    if (job->speed) {
        double ns = (double)bytes / (double)job->speed * NS_PER_S;

        job->tokens_ns = MAX_OF(job->tokens_ns, now - SLICE_NS);
        job->tokens_ns += ns < 1e18 ? (uint64_t)ns : (uint64_t)1e18;
    }
    return true;
}

void job_fault_note(struct job_fault *f, uint64_t pos_bytes, int ret, bool in_write)
{
    if (!f->ret || pos_bytes < f->pos_bytes)
        *f = (struct job_fault){.ret = ret, .in_write = in_write, .pos_bytes = pos_bytes};
}

bool co_job_handle_error(struct job *job, int error, bool is_write)
{
    bool no_space = error == ENOSPC || error == EDQUOT;
    bool at_no_space = job->on_error == JOB_ERR_ENOSPC || job->on_error == JOB_ERR_AUTO;
    bool stop = job->on_error == JOB_ERR_STOP || (at_no_space && no_space);

    if (stop)
        job->user_paused = job->io_error = true;
    job->io_no_space = no_space;
    emit(job, JOB_EV_ERROR, is_write ? "write" : "read");
    if (stop)
        return !co_job_pause_point(job);
    return job->on_error == JOB_ERR_IGNORE;
}
