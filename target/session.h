/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An iSCSI session in full feature phase: one connection, its tasks, its I_T nexus. Belongs to
 * its connection and is freed with it.
 */
#ifndef COWTGT_SESSION_H
#define COWTGT_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include "target/conn.h"
#include "target/negotiate.h"
#include "target/scsi.h"
#include "target/target-int.h"
#include "target/text.h"
#include "util/bufpool.h"

#define SESSION_ITT_SLOTS 64
/* Incl. those whose response is still queued. More than the window: while there are as many nothing
 * is read, and commands that wait for data must not keep it from being read. */
#define SESSION_MAX_TASKS      (4 * CONN_CMD_WINDOW)
#define SESSION_MAX_IMMEDIATE  16                       /* commands outside of the window */
#define SESSION_DATA_MAX_BYTES (8u << 20)               /* data of started commands; more wait */
#define DATA_TOTAL_BYTES       BUFPOOL_MAIN_LARGE_BYTES /* which they share */
#define SESSION_SCARCE_NS      10000000000ull /* for CONN_STUCK_NS while half of that is taken */
#define SESSION_MAX_TMFS       32
#define SESSION_BLOCKED_NS     1000000000ull /* data-out that SCSI can't take blocks for so long */

/* Else a window full of writes would wait for data that is not read. */
_Static_assert(SESSION_MAX_TASKS / 2 > CONN_CMD_WINDOW + SESSION_MAX_IMMEDIATE, "where it goes on");

struct session {
    struct list_head link;        /* all sessions */
    struct list_head target_link; /* target->sessions */
    struct conn *conn;
    struct target *target; /* NULL: discovery */
    struct nexus nexus;    /* of a normal session */
    uint64_t id;
    uint16_t tsih, cid;
    uint8_t isid[6];
    char initiator[ISCSI_NAME_MAX + 1];
    struct iscsi_params params;
    uint64_t opened_ns;

    struct list_head tasks;
    unsigned nr_tasks, nr_immediate;
    struct task *by_itt[SESSION_ITT_SLOTS];
    struct list_head held; /* tasks not started yet: too much data under way */
    struct deferred start_held;
    uint64_t data_bytes; /* that started tasks hold or will */
    uint64_t stash_bytes;
    unsigned nr_r2t;      /* R2Ts not answered wholly */
    unsigned nr_waiting;  /* tasks with a buffer that waits for data-out */
    uint64_t data_out_ns; /* last progress of data-out */
    unsigned nr_tmfs;     /* task management functions not answered yet */

    struct {
        bool active;
        uint32_t itt, ttt;
        struct text_buf in, out;
        uint32_t out_sent;
    } text;
};

/* ---- session.c ---- */
/*
 * A session over a connection that has finished login; NULL: out of memory or of TSIHs. With @old
 * (or NULL; quiesced) it goes on as that one, whose connection is closed, RFC 7143 6.3.4: TSIH,
 * what leading logins negotiate, and what the nexus knows and holds stay; tasks are gone.
 */
struct session *session_new(struct conn *c, struct target *t, const struct negotiation *n,
                            const uint8_t isid[6], uint16_t cid, struct session *old);
/* Normal sessions of this initiator port with portal group @group of @t, RFC 7143 6.3.5: closes
 * them. */
void session_reinstate(const struct target *t, uint16_t group, const char *initiator,
                       const uint8_t isid[6]);
/* One of these that was closed still has commands under way. */
bool session_lingers(const struct target *t, uint16_t group, const char *initiator,
                     const uint8_t isid[6]);
/* Takes no more commands and aborts those it has; true when none is left. */
bool session_quiesce(struct session *s);
/* The one of these that has the TSIH; NULL. */
struct session *session_find(const struct target *t, uint16_t group, const char *initiator,
                             const uint8_t isid[6], uint16_t tsih);
/* The connection is closed: all tasks are given up. */
void session_lost(struct session *s);
/* Only conn.c, when no task is left. */
void session_free(struct session *s);
/* Closes all sessions with @t, but that of @but (may be NULL). */
void session_close_all_but(const struct target *t, const struct conn *but);
void session_get_info(const struct session *s, struct session_info *info);

/* ---- ffp.c: what a PDU in full feature phase means ---- */
/* The header is there (@rc of pdu_decode()); sets rx.sink, or closes. */
void ffp_begin(struct conn *c, int rc);
/* All of the data segment is there; @digest_ok. */
void ffp_end(struct conn *c, bool digest_ok);
void ffp_reject(struct conn *c, enum pdu_reject_reason reason);
/* Our own NOP-In. */
void ffp_ping(struct conn *c);

/* ---- text-request.c ---- */
void text_request(struct conn *c, const struct pdu *p, const uint8_t *data);
void text_request_reset(struct session *s);

/* ---- login.c ---- */
bool login_begin(struct conn *c);
void login_request(struct conn *c, const struct pdu *p, const uint8_t *data);
/* A request whose header contradicts itself. */
void login_malformed(struct conn *c, const struct pdu *p);
void login_free(struct conn *c);

/* ---- portal.c: for SendTargets ---- */
#define PORTAL_MAX           64
#define PORTAL_DEFAULT_GROUP 1
#define PORTAL_ADDRESS_MAX   264 /* a host's name of 253 bytes, ":65535" */

struct portal_address {
    char text[PORTAL_ADDRESS_MAX]; /* "HOST:PORT" as the initiator is to use it */
    uint16_t group;
};
/*
 * The addresses under which the initiator at @c may reach us, the one it used first, into @out
 * (of PORTAL_MAX); returns how many. Others are told only if they are of the same network.
 */
unsigned portal_addresses(const struct conn *c, struct portal_address *out);
/* "ADDR[:PORT]" with brackets and port as TargetAddress has them; false if it is no address. */
bool portal_address(const char *text, char out[64]);

#endif
