/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An iSCSI connection: a non-blocking socket, PDUs in, PDUs out. It knows framing, digests and
 * flow, not what a PDU means.
 *
 * Lifetime: conn_close() makes the socket go at once and tells the session; the memory goes when
 * no task of the session is left (conn_put_if_done(), the one place). So whoever is on the stack
 * may look at conn->state after any call.
 */
#ifndef COWTGT_CONN_H
#define COWTGT_CONN_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include "target/pdu.h"
#include "util/list.h"
#include "util/loop.h"

struct conn;
struct login;
struct portal;
struct session;
struct task;

#define CONN_CMD_WINDOW   256         /* MaxCmdSN - ExpCmdSN + 1 when idle */
#define CONN_TX_MAX_BYTES (16u << 20) /* queued for the peer: above it nothing new is read */
#define CONN_TX_MAX_OPS   1024
/* A turn's, while others are at work as well: nobody waits for more than that. */
#define CONN_SHARE_BYTES    (512u << 10) /* sent */
#define CONN_SHARE_PDUS     64           /* received */
#define CONN_COMPANY_NS     10000000u
#define CONN_LOGIN_LIMIT_NS 15000000000ull
#define CONN_STUCK_NS       60000000000ull /* without progress: closed */
#define CONN_SLOW_BYTES     (16u << 10)    /* less in SESSION_SCARCE_NS is too slow then */
#define CONN_PING_NS        15000000000ull
#define CONN_LOGOUT_S       5             /* to log out when asked to */
#define CONN_DISMISS_NS     1000000000ull /* to read that it is sent away */

/*
 * Something to send: one PDU, or a series of Data-In PDUs over one buffer, cut only when it
 * leaves. The memory is the submitter's until done(); @sent false: the connection is closed.
 */
struct tx_op {
    struct list_head link;
    void (*done)(struct tx_op *op, bool sent);
    uint8_t bhs[PDU_BHS_BYTES]; /* with sequence numbers */
    const uint8_t *data;        /* may move until done() */
    struct blk_loan *loan;      /* that @data are of, or were when queued; NULL: none */
    uint32_t data_bytes;
    uint32_t segment_bytes, burst_bytes; /* a series; multiples of 4; 0: one PDU */

    bool lost; /* the data are gone, and the connection with them; by a recall after conn_send() */

    /* conn-tx.c's */
    bool header_digest, data_digest;
    bool crc_known;
    uint32_t crc;             /* of the PDU at @at_bytes */
    uint32_t at_bytes, index; /* the first PDU not wholly sent */
    uint32_t pdu_sent_bytes;  /* of that one */
};

enum conn_state {
    CONN_LOGIN,
    CONN_FULL,
    CONN_ENDING, /* nothing more is read; closed when all is sent */
    CONN_CLOSED,
};

enum rx_state { RX_HEADER, RX_DATA, RX_TRAILER };

/* Where the data segment that comes in goes. */
enum rx_sink {
    RX_DISCARD,
    RX_SEGMENT, /* rx.segment, malloc()ed, for whoever handles the PDU */
    RX_TASK,    /* rx.task says where, task_rx_room() */
};

struct conn {
    struct list_head link;
    enum conn_state state;
    int fd;
    char peer[64], local[64];
    const struct portal *portal; /* where it came in; may be gone, only to be compared */
    uint16_t portal_group;
    uint64_t opened_ns;
    uint64_t dismissed_ns; /* 0: not */
    uint64_t logout_by_ns; /* it was asked to log out until then; 0: not */
    struct ev_io readable, writable;
    struct deferred rx_defer, tx_defer, free_defer;
    struct login *login;     /* CONN_LOGIN only */
    struct session *session; /* from CONN_FULL to the end */

    uint32_t statsn; /* of the next response */
    uint32_t exp_cmdsn, max_cmdsn;
    uint32_t next_ttt;
    bool header_digest, data_digest; /* from the next PDU on, either way */
    bool draining;                   /* takes no new commands, but the data of old ones */

    struct {
        enum rx_state state;
        enum rx_sink sink;
        bool blocked;        /* until conn_rx_kick() */
        uint64_t blocked_ns; /* since when, without progress; 0: not */
        uint64_t last_ns;    /* something came */
        uint64_t turn;       /* of the loop, in which */
        unsigned turn_pdus;  /* came */
        uint8_t bhs[PDU_BHS_BYTES];
        struct pdu pdu;
        uint32_t placed_bytes; /* of the data segment */
        uint32_t digest;
        uint8_t *segment;
        struct task *task;
        bool ignore;    /* of no effect: outside of the command window, or unknown */
        uint8_t reject; /* enum pdu_reject_reason, 0: none */
        uint8_t *kept;  /* bytes read and not yet parsed: kept_small, or malloc()ed */
        uint32_t kept_bytes;
        uint8_t kept_small[PDU_BHS_BYTES + 16];
    } rx;

    struct {
        struct list_head ops;
        unsigned nr_ops;
        uint64_t bytes;
        uint64_t progress_ns;
        uint64_t sent_bytes; /* in all */
        uint64_t turn;       /* of the loop, in which */
        size_t turn_bytes;   /* were sent */
        uint64_t slow_since_ns,
            slow_at_bytes; /* fewer than CONN_SLOW_BYTES since; 0: none queued */
        uint64_t pinged_ns;
    } tx;
};

/* ---- conn.c ---- */
/* Takes @fd, accepted at @portal of @group. NULL: out of memory or a dead socket; @fd is closed. */
struct conn *conn_new(int fd, const struct portal *portal, uint16_t group);
/* With @why for the log (NULL: the peer left in good order). Harmless on a closed one. */
void conn_close(struct conn *c, const char *why);
/* Sends what is queued, reads no more, closes. */
void conn_end(struct conn *c);
/* Tells the initiator that its session is dropped, and closes when that is sent, or soon. */
void conn_dismiss(struct conn *c, const char *why);
/* Asks the initiator to log out; one that does not in CONN_LOGOUT_S is dismissed. */
void conn_ask_logout(struct conn *c, const char *why);
/* Frees the connection and its session later this turn, if it is closed and no task is left. */
void conn_put_if_done(struct conn *c);
/* Login is over, well or not. */
void conn_left_login(struct conn *c);
unsigned conns_in_login(void);
/* fn returns false to stop. fn may close the connection it is given. */
void conn_for_each(bool (*fn)(struct conn *, void *), void *arg);
/* Called when the number of connections in login shrinks, or on each tick; portal.c's. */
extern void (*conn_on_room)(void);

/* ---- conn-rx.c ---- */
void conn_rx_start(struct conn *c);
void conn_rx_stop(struct conn *c);
/* Frees what was read and not yet parsed. */
void conn_rx_forget(struct conn *c);
/* What blocked reading may be over: look again, later this turn. */
void conn_rx_kick(struct conn *c);

/* Several connections have received something in the last CONN_COMPANY_NS. */
bool conn_has_company(void);

/* ---- conn-tx.c ---- */
void conn_tx_init(struct conn *c);
/* Queues @op; the connection is not closed. Sent at the end of the turn. */
void conn_send(struct conn *c, struct tx_op *op);
/* All queued ops: done(op, false). */
void conn_tx_drop(struct conn *c);
/* StatSN (counted up if @counts), ExpCmdSN and MaxCmdSN into a header. */
void conn_stamp(struct conn *c, uint8_t *bhs, bool counts);
/*
 * Sends a PDU that belongs to no task, with a data segment of malloc()ed memory (or NULL) that is
 * freed when sent. False: the connection is closed, or was closed for want of memory.
 */
bool conn_send_pdu(struct conn *c, const uint8_t *bhs, void *data, uint32_t data_bytes,
                   bool counts);

static inline uint32_t conn_new_ttt(struct conn *c)
{
    if (c->next_ttt == PDU_NO_TAG)
        c->next_ttt = 0;
    return c->next_ttt++;
}

#endif
