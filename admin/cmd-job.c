/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs on the control socket, with QEMU's two families of names: block-job-* takes "device" and
 * knows class DeviceNotActive, job-* takes "id".
 */
#include <errno.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "lun-backends/job.h"
#include "util/size.h"

static struct job *find_job(const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device"), *id = arg_string(args, "id");
    struct job *job = job_find(device ? device : id);

    if (job)
        return job;
    if (device)
        error_set_class(err, ERR_DEVICE_NOT_ACTIVE, ENOENT, "Block job '%s' not found", device);
    else
        error_set(err, ENOENT, "Job '%s' not found", id);
    return NULL;
}

typedef int ask_fn(struct job *job, struct error *err);

static json_t *co_ask(struct daemon *d, const json_t *args, ask_fn *ask, struct error *err)
{
    struct job *job = find_job(args, err);

    if (!job || ask(job, err))
        return NULL;
    co_chain_note_job(d, job);
    return json_object();
}

static json_t *run_pause(struct daemon *d, const json_t *args, struct error *err)
{
    return co_ask(d, args, job_pause, err);
}

static json_t *run_resume(struct daemon *d, const json_t *args, struct error *err)
{
    return co_ask(d, args, job_resume, err);
}

static json_t *run_job_cancel(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);

    (void)d;
    return job && !job_cancel(job, err) ? json_object() : NULL;
}

static json_t *run_block_job_cancel(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);
    bool force = arg_bool(args, "force", false);

    (void)d;
    if (job && job->user_paused && !force) {
        error_set(err, EBUSY, "The block job for device '%s' is currently paused", job->id);
        return NULL;
    }
    return job && !(force ? job_cancel(job, err) : job_leave(job, err)) ? json_object() : NULL;
}

static json_t *run_set_speed(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);

    if (!job || job_set_speed(job, arg_size(args, "speed", 0), err))
        return NULL;
    co_chain_note_job(d, job);
    return json_object();
}

static json_t *run_set_group(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);
    struct chain *c;

    if (!job)
        return NULL;
    list_for_each_entry (c, &d->chains, link) {
        if (c->stream != job)
            continue;
        if (chain_set_stream_group(c, arg_string(args, "group"), err))
            return NULL;
        chain_pace_stream(c);
        return co_state_save(d->state, err) ? NULL : json_object();
    }
    error_set(err, EINVAL, "job '%s' (%s) can't be in a throttle group: only streams can", job->id,
              job->drv->type);
    return NULL;
}

/* Only jobs that reach "ready" (mirror, active commit) have something to complete. */
static json_t *run_complete(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);

    (void)d;
    if (job && job->status != JOB_READY) {
        error_set(err, EINVAL, "The active block job '%s' cannot be completed", job->id);
        return NULL;
    }
    return job && !job_complete(job, err) ? json_object() : NULL;
}

/* By "id", but with the class of the family. */
static struct job *find_block_job(const json_t *args, struct error *err)
{
    struct job *job = job_find(arg_string(args, "id"));

    if (!job)
        error_set_class(err, ERR_DEVICE_NOT_ACTIVE, ENOENT, "Block job '%s' not found",
                        arg_string(args, "id"));
    return job;
}

static json_t *run_block_job_finalize(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_block_job(args, err);

    (void)d;
    return job && !job_finalize(job, err) ? json_object() : NULL;
}

static json_t *run_block_job_dismiss(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_block_job(args, err);

    (void)d;
    return job && !job_dismiss(job, err) ? json_object() : NULL;
}

static json_t *run_finalize(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);

    (void)d;
    return job && !job_finalize(job, err) ? json_object() : NULL;
}

static json_t *run_dismiss(struct daemon *d, const json_t *args, struct error *err)
{
    struct job *job = find_job(args, err);

    (void)d;
    return job && !job_dismiss(job, err) ? json_object() : NULL;
}

static json_t *run_query_jobs(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();

    (void)d;
    (void)args;
    (void)err;
    for (const struct job *job = job_first(); job; job = job_next((struct job *)job)) {
        json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", job->id, "type", job->drv->type,
                              "status", job_status_name(job->status), "current-progress",
                              (json_int_t)job->offset, "total-progress", (json_int_t)job->len);

        if (job->ret < 0)
            json_put(j, "error", json_text(job->err.msg));
        json_array_append_new(list, j);
    }
    return list;
}

/* QMP's BlockDeviceIoStatus. */
static const char *io_status(const struct job *job)
{
    if (!job->io_error)
        return "ok";
    return job->io_no_space ? "nospace" : "failed";
}

/* Members of ours: bytes a second of late, and how long the rest takes at that. */
static void put_rate(json_t *j, struct job *job)
{
    uint64_t rate = job_rate(job);

    json_put(j, "rate", json_integer((json_int_t)rate));
    if (rate)
        json_put(j, "seconds-left",
                 json_integer((json_int_t)((job->len - MIN_OF(job->offset, job->len)) / rate)));
}

static json_t *run_query_block_jobs(struct daemon *d, const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device");
    json_t *list = json_array();

    (void)d;
    (void)err;
    for (const struct job *job = job_first(); job; job = job_next((struct job *)job)) {
        json_t *j;

        if (device && strcmp(device, job->id))
            continue;
        j = json_pack("{s:s, s:s, s:I, s:I, s:b, s:b, s:I, s:s, s:b, s:s, s:b, s:b}", "type",
                      job->drv->type, "device", job->id, "len", (json_int_t)job->len, "offset",
                      (json_int_t)job->offset, "busy", job->busy, "paused", job->user_paused,
                      "speed", (json_int_t)job->speed, "io-status", io_status(job), "ready",
                      job->status == JOB_READY || job->status == JOB_STANDBY, "status",
                      job_status_name(job->status), "auto-finalize", job->auto_finalize,
                      "auto-dismiss", job->auto_dismiss);

        put_rate(j, (struct job *)job);
        if (job->ret < 0)
            json_put(j, "error", json_text(job->err.msg));
        json_array_append_new(list, j);
    }
    return list;
}

/* Of one name: how its last job ended, in a list of one. */
static json_t *run_query_job_history(struct daemon *d, const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device");

    if (!device)
        return json_copy(d->job_history);
    for (size_t i = json_array_size(d->job_history); i-- > 0;) {
        json_t *entry = json_array_get(d->job_history, i);

        if (!strcmp(json_string_value(json_object_get(entry, "device")), device))
            return json_pack("[O]", entry);
    }
    error_set_class(err, ERR_DEVICE_NOT_ACTIVE, ENOENT, "no job is named '%s'", device);
    return NULL;
}

static const struct cmd_arg device_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = NULL},
};

static const struct cmd_arg maybe_device_args[] = {
    {.name = "device", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

static const struct cmd_arg id_args[] = {
    {.name = "id", .type = ARG_STRING},
    {.name = NULL},
};

static const struct cmd_arg cancel_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "force", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static const struct cmd_arg speed_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "speed", .type = ARG_SIZE},
    {.name = NULL},
};

static const struct cmd_arg group_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "group", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

const struct command job_commands[] = {
    {"block-job-pause", "pauses a job", device_args, run_pause},
    {"block-job-resume", "lets a paused job go on", device_args, run_resume},
    {"block-job-cancel", "ends a job early; an event follows", cancel_args, run_block_job_cancel},
    {"block-job-set-speed", "limits a job's bytes per second; 0: no limit", speed_args,
     run_set_speed},
    {"block-job-set-throttle-group", "a stream's throttle group; none: limited by no group",
     group_args, run_set_group},
    {"block-job-complete", "completes a job that is ready", device_args, run_complete},
    {"block-job-finalize", "finalizes a job that is pending", id_args, run_block_job_finalize},
    {"block-job-dismiss", "forgets a concluded job", id_args, run_block_job_dismiss},
    {"job-pause", "pauses a job", id_args, run_pause},
    {"job-resume", "lets a paused job go on", id_args, run_resume},
    {"job-cancel", "ends a job early; an event follows", id_args, run_job_cancel},
    {"job-complete", "completes a job that is ready", id_args, run_complete},
    {"job-finalize", "finalizes a job that is pending", id_args, run_finalize},
    {"job-dismiss", "forgets a concluded job", id_args, run_dismiss},
    {"query-jobs", "all jobs", NULL, run_query_jobs},
    {"query-block-jobs", "all jobs, or one, as block jobs", maybe_device_args,
     run_query_block_jobs},
    {"query-job-history", "how the last jobs ended, oldest first; or the last of a name",
     maybe_device_args, run_query_job_history},
    {NULL, NULL, NULL, NULL},
};
