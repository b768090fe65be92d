/* SPDX-License-Identifier: BSD-3-Clause */
/* Events: what jobs and sessions report, in QMP's words. Also keeps how the last jobs ended. */
#define LOG_AREA "events"
#include "admin/events.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "admin/chains.h"
#include "admin/control.h"
#include "admin/json-util.h"
#include "lun-backends/job.h"
#include "lun-backends/qcow2.h"
#include "target/target.h"
#include "util/log.h"

#define MEMBER(name_, type_)         \
    {                                \
        .name = name_, .type = type_ \
    }
#define OPTIONAL(name_, type_)                         \
    {                                                  \
        .name = name_, .type = type_, .optional = true \
    }
#define MEMBERS(...) ((const struct event_member[]){__VA_ARGS__, {.name = NULL}})

#define BLOCK_JOB_MEMBERS                                                                          \
    MEMBER("type", "str"), MEMBER("device", "str"), MEMBER("len", "int"), MEMBER("offset", "int"), \
        MEMBER("speed", "int")

const struct event_schema event_schemas[] = {
    {"BLOCK_JOB_COMPLETED", MEMBERS(BLOCK_JOB_MEMBERS, OPTIONAL("error", "str"))},
    {"BLOCK_JOB_CANCELLED", MEMBERS(BLOCK_JOB_MEMBERS)},
    {"BLOCK_JOB_READY", MEMBERS(BLOCK_JOB_MEMBERS)},
    {"BLOCK_JOB_PENDING", MEMBERS(MEMBER("type", "str"), MEMBER("id", "str"))},
    {"BLOCK_JOB_ERROR",
     MEMBERS(MEMBER("device", "str"), MEMBER("operation", "str"), MEMBER("action", "str"))},
    {"BLOCK_IO_ERROR",
     MEMBERS(MEMBER("device", "str"), OPTIONAL("node-name", "str"), MEMBER("operation", "str"),
             MEMBER("action", "str"), OPTIONAL("nospace", "bool"), MEMBER("reason", "str"))},
    {"BLOCK_WRITE_THRESHOLD", MEMBERS(MEMBER("node-name", "str"), MEMBER("amount-exceeded", "int"),
                                      MEMBER("write-threshold", "int"))},
    {"JOB_STATUS_CHANGE", MEMBERS(MEMBER("id", "str"), MEMBER("status", "str"))},
    {"BLOCK_IMAGE_CORRUPTED", MEMBERS(MEMBER("device", "str"), MEMBER("node-name", "str"),
                                      MEMBER("msg", "str"), MEMBER("fatal", "bool"))},
    {"CHAIN_LAYER_DROPPED", MEMBERS(MEMBER("chain", "str"), MEMBER("layer", "str"),
                                    MEMBER("uuid", "str"), MEMBER("target", "str"))},
    {"SESSION_OPENED", MEMBERS(MEMBER("id", "int"), MEMBER("initiator", "str"),
                               OPTIONAL("target", "str"), MEMBER("peer", "str"))},
    {"SESSION_CLOSED", MEMBERS(MEMBER("id", "int"), MEMBER("initiator", "str"),
                               OPTIONAL("target", "str"), MEMBER("peer", "str"))},
    {"SHUTDOWN", MEMBERS(MEMBER("guest", "bool"), MEMBER("reason", "str"))},
    {NULL, NULL},
};

static struct daemon *listener; /* the sinks of jobs and sessions have no opaque */

void event_emit(struct daemon *d, const char *name, json_t *data)
{
    struct timespec ts;
    json_t *msg;

    clock_gettime(CLOCK_REALTIME, &ts);
    msg = json_pack("{s:s, s:o, s:{s:I, s:I}}", "event", name, "data", data, "timestamp", "seconds",
                    (json_int_t)ts.tv_sec, "microseconds", (json_int_t)(ts.tv_nsec / 1000));
    if (!msg) {
        log_err("event %s is lost: out of memory or a text that is no UTF-8", name);
        return;
    }
    if (d->control)
        control_broadcast(d->control, msg);
    json_decref(msg);
}

static json_t *block_job_data(const struct job *job)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "type", job->drv->type, "device", job->id, "len",
                     (json_int_t)job->len, "offset", (json_int_t)job->offset, "speed",
                     (json_int_t)job->speed);
}

/* QMP's BlockErrorAction of what the job's policy has just decided. */
static const char *error_action(const struct job *job)
{
    if (job->on_error == JOB_ERR_IGNORE)
        return "ignore";
    return job->io_error ? "stop" : "report";
}

static void remember(struct daemon *d, const struct job *job, enum job_event ev)
{
    json_t *entry = block_job_data(job);

    json_object_set_new(entry, "chain", json_string(job->device));
    json_object_set_new(entry, "result",
                        json_string(ev == JOB_EV_CANCELLED ? "cancelled"
                                    : job->ret < 0         ? "failed"
                                                           : "completed"));
    if (job->ret < 0 && ev != JOB_EV_CANCELLED)
        json_object_set_new(entry, "error", json_text(job->err.msg));
    while (json_array_size(d->job_history) >= JOB_HISTORY_MAX)
        json_array_remove(d->job_history, 0);
    json_array_append_new(d->job_history, entry);
}

static void log_end(const struct job *job, enum job_event ev)
{
    if (ev == JOB_EV_CANCELLED)
        log_notice("job %s: cancelled at %" PRIu64 " of %" PRIu64 " bytes", job->id, job->offset,
                   job->len);
    else if (job->ret < 0)
        log_err("job %s: failed: %s", job->id, job->err.msg);
    else
        log_notice("job %s: completed", job->id);
}

static void on_job_event(struct job *job, enum job_event ev, const char *detail)
{
    static const char *const names[] = {
        [JOB_EV_STATUS_CHANGE] = "JOB_STATUS_CHANGE", [JOB_EV_COMPLETED] = "BLOCK_JOB_COMPLETED",
        [JOB_EV_CANCELLED] = "BLOCK_JOB_CANCELLED",   [JOB_EV_READY] = "BLOCK_JOB_READY",
        [JOB_EV_PENDING] = "BLOCK_JOB_PENDING",       [JOB_EV_ERROR] = "BLOCK_JOB_ERROR",
    };
    json_t *data = NULL;

    switch (ev) {
    case JOB_EV_STATUS_CHANGE:
        data = json_pack("{s:s, s:s}", "id", job->id, "status", job_status_name(job->status));
        break;
    case JOB_EV_COMPLETED:
    case JOB_EV_CANCELLED:
        log_end(job, ev);
        remember(listener, job, ev);
        data = block_job_data(job);
        if (ev == JOB_EV_COMPLETED && job->ret < 0)
            json_object_set_new(data, "error", json_text(job->err.msg));
        break;
    case JOB_EV_READY:
        data = block_job_data(job);
        break;
    case JOB_EV_PENDING:
        data = json_pack("{s:s, s:s}", "type", job->drv->type, "id", job->id);
        break;
    case JOB_EV_ERROR:
        data = json_pack("{s:s, s:s, s:s}", "device", job->id, "operation", detail, "action",
                         error_action(job));
        break;
    }
    event_emit(listener, names[ev], data);
}

static void on_session(const struct session_info *s, bool opened)
{
    json_t *data = json_pack("{s:I, s:o, s:s*, s:s}", "id", (json_int_t)s->id, "initiator",
                             json_text(s->initiator), "target", s->target, "peer", s->peer);

    event_emit(listener, opened ? "SESSION_OPENED" : "SESSION_CLOSED", data);
}

static void on_corrupt(struct blk_node *node, const char *what, bool fatal)
{
    const char *device = "";
    struct chain *c;

    list_for_each_entry (c, &listener->chains, link) {
        for (unsigned i = 0; i < c->nr_layers; i++) {
            if (c->layers[i].node == node)
                device = c->rec->name;
        }
    }
    event_emit(listener, "BLOCK_IMAGE_CORRUPTED",
               json_pack("{s:s, s:s, s:o, s:b}", "device", device, "node-name", node->name, "msg",
                         json_text(what), "fatal", fatal));
}

/* Initiators always hear of it: "report" is the one action there is. */
static void on_lun_error(const struct lun_error *e)
{
    const struct blk_node *node = e->node;
    const char *device = "";
    struct chain *c;

    while (node->drv->is_filter && node->file.child)
        node = node->file.child;
    list_for_each_entry (c, &listener->chains, link) {
        if (!strcmp(c->rec->target, e->target))
            device = c->rec->name;
    }
    event_emit(listener, "BLOCK_IO_ERROR",
               json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "device", device, "node-name",
                         node->name, "operation", e->write ? "write" : "read", "action", "report",
                         "nospace", e->no_space, "reason", strerror(e->error)));
}

static void on_threshold(const struct blk_node *node, uint64_t threshold_bytes,
                         uint64_t exceeded_bytes)
{
    event_emit(listener, "BLOCK_WRITE_THRESHOLD",
               json_pack("{s:s, s:I, s:I}", "node-name", node->name, "amount-exceeded",
                         (json_int_t)exceeded_bytes, "write-threshold",
                         (json_int_t)threshold_bytes));
}

void events_init(struct daemon *d)
{
    listener = d;
    qcow2_set_corrupt_sink(on_corrupt);
    lun_set_error_sink(on_lun_error);
    job_set_event_sink(on_job_event);
    blk_set_threshold_sink(on_threshold);
    session_set_event_sink(on_session);
}
