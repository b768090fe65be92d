/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of an initiator session share; nobody else includes this.
 *
 * The context is destroyed in one place, iscsi-conn.c's work(), which never runs inside
 * libiscsi. Callbacks of libiscsi only move commands to `finished` and note what happened;
 * whoever waits is told from work(), so that nobody's code runs inside libiscsi.
 */
#ifndef COWTGT_ISCSI_CONN_INT_H
#define COWTGT_ISCSI_CONN_INT_H

#include <ev.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "lun-backends/iscsi-conn.h"
#include "util/coroutine.h"
#include "util/loop.h"

#define ISCSI_MAX_ACTIVE       64
#define ISCSI_MAX_ACTIVE_BYTES (8u << 20)

enum conn_state {
    CONN_LOGIN, /* resolving, connecting, logging in; in co_iscsi_connect() */
    CONN_UP,
    CONN_DOWN, /* for good */
};

/* What a coroutine waits for, at most one a connection: its phase's end, or its deadline. */
struct conn_wait {
    struct coroutine *co;
    bool fired;
    int status; /* 0, -errno or CONN_REDIRECTED */
    uint64_t deadline_ns;
};
#define CONN_REDIRECTED 1

struct iscsi_conn {
    struct iscsi_context *ctx; /* NULL before and after */
    enum conn_state state;
    bool was_up, told, abandoned;
    bool stale;    /* its LUN may be another disk now: nothing that still comes is believed */
    char why[256]; /* it went down, or the attempt failed */
    char initiator[224], target[224], user[256], secret[256];
    bool digests, discovery;
    uint64_t isid;
    uint64_t timeout_ns;
    void (*on_down)(struct iscsi_conn *c, const char *why, void *opaque);
    void *opaque;

    struct ev_io io;
    struct ev_timer tick;  /* deadlines and keepalive */
    struct ev_timer retry; /* while `delayed` is not empty */
    struct deferred work, flush, reap;
    struct conn_wait *wait;

    struct list_head queued, active, delayed, finished; /* struct iscsi_cmd */
    unsigned nr_active;
    uint64_t active_bytes;
    uint64_t last_rx_ns, nop_sent_ns; /* nop: 0 = none under way */

    struct iscsi_found_target *found; /* SendTargets: where answers go */
    unsigned max_found, nr_found;
};

/* iscsi-conn.c */
struct iscsi_conn *iscsi_conn_new(const struct iscsi_conn_opts *opts);
void conn_down(struct iscsi_conn *c, const char *why);
void conn_rearm(struct iscsi_conn *c);
void conn_destroy_context(struct iscsi_conn *c);
void conn_fire(struct iscsi_conn *c, int status);
int co_conn_wait(struct iscsi_conn *c, uint64_t deadline_ns);
/* Copies libiscsi's last error, printable, without line ends. */
void conn_note_error(struct iscsi_conn *c, const char *fallback);

/* iscsi-cmd.c */
void conn_pump(struct iscsi_conn *c);
void conn_fail_commands(struct iscsi_conn *c);
void conn_retry_due(struct ev_loop *ev, struct ev_timer *t, int revents);

#endif
