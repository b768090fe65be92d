/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Long work on nodes, by QMP's rules: an id, a status, progress, pause, resume, cancel, speed,
 * and events. A job's work is a coroutine that comes to a pause point often.
 */
#ifndef COWTGT_JOB_H
#define COWTGT_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include "util/coroutine.h"
#include "util/error.h"
#include "util/list.h"

enum job_status { /* QMP JobStatus, in its order */
                  JOB_CREATED,
                  JOB_RUNNING,
                  JOB_PAUSED,
                  JOB_READY,
                  JOB_STANDBY,
                  JOB_WAITING,
                  JOB_PENDING,
                  JOB_ABORTING,
                  JOB_CONCLUDED,
                  JOB_NULL,
                  JOB_NR_STATUS,
};
const char *job_status_name(enum job_status s); /* "created", "running", ... */

enum job_on_error { JOB_ERR_REPORT, JOB_ERR_IGNORE, JOB_ERR_STOP, JOB_ERR_ENOSPC, JOB_ERR_AUTO };
/* QMP's BlockdevOnError by enum job_on_error; NULL at the end. */
extern const char *const job_on_error_names[];
/* @fallback where @name is NULL or none of them. */
enum job_on_error job_on_error_from(const char *name, enum job_on_error fallback);

/* Of several pieces under way, the failure at the lowest position: what lies before it is done. */
struct job_fault {
    int ret; /* -errno; 0: none */
    bool in_write;
    uint64_t pos_bytes;
};

struct job;
struct job_driver {
    const char *type;      /* "stream" */
    size_t instance_bytes; /* of the struct that starts with struct job */
    /* The work. Returns 0, -ECANCELED, or -errno with job->err filled. */
    int (*co_run)(struct job *job);
    /* After co_run (or instead of it), before on_done: lets go of what the driver holds. */
    void (*co_cleanup)(struct job *job);
    /* It was cancelled a moment ago, co_run has not heard of it yet: what it waits for may be let
     * go at once. NULL: nothing to do. */
    void (*on_cancel)(struct job *job);
    bool can_leave; /* see job_leave() */
};

struct job {
    const struct job_driver *drv;
    char id[65];
    char device[65]; /* chain or node name it works on */
    enum job_status status;
    bool cancelled, user_paused, busy;
    bool io_error;        /* stopped by on-error; resume tries again */
    bool io_no_space;     /* with io_error: for want of space */
    uint64_t speed;       /* bytes/s, 0 = no limit */
    uint64_t offset, len; /* progress as QMP has it: bytes done, bytes in all */
    enum job_on_error on_error;
    bool auto_finalize, auto_dismiss;      /* both true unless changed before job_start() */
    bool finalize_asked, finalizing;       /* pending: told to go on; in on_done, past cancelling */
    bool ready, complete_asked;            /* a job that runs until it is told to complete */
    bool left;                             /* ... and was told to leave it at that */
    uint64_t serial;                       /* tells jobs that had the same id apart */
    uint64_t rated_ns, rated_offset, rate; /* job_rate()'s */
    uint64_t started_ns, tokens_ns;        /* monotonic; rate limiter's next free slot */
    int ret;
    struct error err;
    struct list_head link;   /* all jobs */
    struct co_queue waiters; /* coroutines in co_job_wait() or at a pause point */
    /* Once, in the job's coroutine, with job->ret, before the job's last event; may wait. After a
     * success it may set job->ret and job->err: then the job has failed. */
    void (*on_done)(struct job *job, void *opaque);
    void *opaque;
};

enum job_event {
    JOB_EV_STATUS_CHANGE, /* JOB_STATUS_CHANGE */
    JOB_EV_COMPLETED,     /* BLOCK_JOB_COMPLETED (with error, if ret < 0) */
    JOB_EV_CANCELLED,     /* BLOCK_JOB_CANCELLED */
    JOB_EV_READY,
    JOB_EV_PENDING,
    JOB_EV_ERROR, /* BLOCK_JOB_ERROR */
};

/* Where news of jobs goes (admin); one sink. @detail: for JOB_EV_ERROR "read" or "write". */
void job_set_event_sink(void (*fn)(struct job *job, enum job_event ev, const char *detail));

/* Zeroed instance, status created, on the list. @id NULL: the device's name. NULL with @err if
 * the id is taken or bad, or (ERR_DEVICE_IN_USE) another job works on the device. */
struct job *job_new(const struct job_driver *drv, const char *id, const char *device,
                    struct error *err);
void job_start(struct job *job); /* spawns the coroutine */
/* Bytes a second of late: since it was last asked, if that was a second ago at least. */
uint64_t job_rate(struct job *job);
struct job *job_find(const char *id);
struct job *job_first(void);
struct job *job_next(struct job *job);
int job_pause(struct job *job, struct error *err);
int job_resume(struct job *job, struct error *err);
int job_cancel(struct job *job, struct error *err); /* returns at once, event follows */
/* Cancelled without force: one that can leave and is ready comes to its end, with job->left, as if
 * it had been told to complete; any other job is cancelled. */
int job_leave(struct job *job, struct error *err);
int job_set_speed(struct job *job, uint64_t bytes_per_s, struct error *err);
/* A ready job goes on to its end. */
int job_complete(struct job *job, struct error *err);
/* A pending job without auto_finalize goes on to its end. */
int job_finalize(struct job *job, struct error *err);
/* A concluded job that was not dismissed automatically goes away. */
int job_dismiss(struct job *job, struct error *err);
/* In a coroutine: until the job is concluded (or gone). */
void co_job_wait(const char *id);

/* ---- for the job's own coroutines -------------------------------------------------- */
/* Waits while paused; true if the job is to end (cancelled). */
bool co_job_pause_point(struct job *job);
/* True when the next pause point would wait or end the job: come to one soon. */
bool job_wants_attention(const struct job *job);
/* All is done but what still comes: from here on job->complete_asked ends the work. */
void job_set_ready(struct job *job);
/* Sleeps @ns in slices of at most 50 ms; false at once when attention is wanted. */
bool co_job_sleep(struct job *job, uint64_t ns);
/*
 * Sleeps as long as speed demands before @bytes are moved; set-speed acts within a slice.
 * False when attention is wanted: nothing was charged, call it again after the pause point.
 */
bool co_job_throttle(struct job *job, uint64_t bytes);
/* Kept unless one at a lower or the same position was met. */
void job_fault_note(struct job_fault *f, uint64_t pos_bytes, int ret, bool in_write);
/*
 * Policy at an I/O error (positive errno): emits JOB_EV_ERROR; where the policy is to stop
 * (job->io_error is set then), waits for resume or cancel. True = go on: with JOB_ERR_IGNORE
 * past the failed part, otherwise by trying it again. False = fail with it.
 */
bool co_job_handle_error(struct job *job, int error, bool is_write);

#endif
