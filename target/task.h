/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A SCSI command on its way through the transport.
 *
 * A task is freed in task_put() only: when SCSI has completed it, nothing of it is queued for
 * sending, no data segment is being received for it, and its response was sent or none is due. A
 * response is withheld until all data that the initiator still owes was taken (RFC 7143 11.17.1).
 */
#ifndef COWTGT_TASK_H
#define COWTGT_TASK_H

#include <stdbool.h>
#include <stdint.h>
#include "target/conn.h"
#include "target/scsi.h"
#include "target/session.h"

/* Of one command at a time; what is negotiated is never more. */
#define TASK_MAX_R2TS NEGOTIATE_MAX_R2TS
#define TASK_AWAIT_NS 1000000000ull
#define TASK_LOAN_NS  1000000000ull

struct task;

/* An R2T that has not been answered wholly. Its data is [end of the one before, end). */
struct task_r2t {
    struct tx_op op;
    struct task *task;
    uint32_t ttt, end;
};

enum task_failure {
    TASK_OK,
    TASK_FAIL_CRC,  /* ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR */
    TASK_FAIL_DATA, /* ABORTED COMMAND, data not as the protocol has it */
    TASK_FAIL_FULL, /* TASK SET FULL */
};

struct task {
    struct scsi_cmd cmd;
    struct list_head link; /* session->tasks */
    struct list_head held_link;
    struct task *itt_next;
    struct session *session;
    uint64_t serial; /* order of arrival, process-wide */
    uint32_t itt;
    bool immediate;
    bool started; /* SCSI has it, or had it */
    bool scsi_done;
    bool aborted;   /* no response */
    bool awaits;    /* aborted, and goes when the data that was asked for has come */
    bool responded; /* response queued, or none is due */
    bool credited;  /* its place in the command window was given back */
    enum task_failure failure;
    uint64_t ended_ns;       /* when SCSI was through with it, or it was aborted */
    uint32_t data_claim;     /* counted in session->data_bytes */
    bool failure_descriptor; /* D_SENSE of the unit it was for */

    /* data-out, [0, received) is there and verified */
    uint8_t *buf; /* SCSI's, for [buf_at, buf_at + buf_len); NULL: it waits for nothing */
    uint32_t buf_at, buf_len;
    uint32_t received;
    uint32_t datasn;  /* expected in this burst */
    bool unsolicited; /* unsolicited Data-Out is still to come */
    uint32_t r2tsn;
    unsigned first_r2t, nr_r2ts; /* in r2ts, a ring: those whose data is still to come */
    uint8_t *stash; /* bytes [stash_at, stash_at + stash_len) that came before their buffer */
    uint32_t stash_at, stash_len, stash_alloc;

    /* data-in and response */
    uint32_t datasn_in;
    void *in_buf;
    uint32_t in_alloc;
    void *last_buf;
    uint32_t last_alloc;
    struct tx_op data_op, rsp_op;
    struct tx_op *lent_op; /* whose data is cmd.loan's; NULL: none, or not queued yet */
    unsigned ops_queued;
    struct deferred defer;
    bool tell_ready, tell_sent;
    uint8_t sense[2 + SCSI_MAX_SENSE];   /* as a data segment */
    struct task_r2t r2ts[TASK_MAX_R2TS]; /* last: a new task leaves them as they are */
};

/* ---- task.c ---- */
/* A SCSI Command PDU, CmdSN already accepted. */
void task_command(struct conn *c, const struct pdu *p);
/* Of the task that came last. */
uint64_t task_last_serial(void);
struct task *task_find(struct session *s, uint32_t itt);
/*
 * Gives a task up without a response. @await_data: it is there until what was asked for by R2T or
 * may come unsolicited has come, as its initiator knows of the abort, or TASK_AWAIT_NS are over:
 * many initiators send no more data of what they abort.
 */
void task_abort(struct task *t, bool await_data);
/* Ends a task with a status of the transport's own. */
void task_fail(struct task *t, enum task_failure failure);
/* Frees it if it may go. */
void task_put(struct task *t);
/* Takes the response out when nothing holds it back. */
void task_respond(struct task *t);
/* The once-a-second look at what waits. */
void task_tick(struct session *s, uint64_t now);
/* Sessions hold, or will, more than half of what is there: there is no patience with slow ones. */
bool task_data_is_scarce(void);
void task_start_held(struct deferred *d);

/* ---- task-data.c: data-out ---- */
/* A Data-Out header; sets rx.sink. */
void task_data_out_begin(struct conn *c, const struct pdu *p);
/* Immediate or Data-Out data is there in full. */
void task_data_end(struct conn *c, const struct pdu *p, bool digest_ok);
/* Where the next bytes of rx.task's data segment go; NULL: nowhere yet (or: anywhere, *discard). */
uint8_t *task_rx_room(struct conn *c, uint32_t *room, bool *discard);
void task_rx_placed(struct conn *c, uint32_t bytes);
void task_data_out(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len);
/* Lets go of everything of data-out: buffer, stash, expectations. */
void task_data_forget(struct task *t);
/* SCSI wants no more, but the initiator may still owe us data. */
void task_data_ended(struct task *t);

/* ---- datain.c: data-in and responses ---- */
void task_data_in(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len, uint32_t alloc);
void task_send_response(struct task *t);
/* What was to be sent of the page cache is in the command's buffer now. */
void task_loan_recalled(struct blk_loan *loan);

/* ---- tmf.c ---- */
void tmf_request(struct conn *c, const struct pdu *p);
/* An aborted task has ended, or a session has. */
void tmf_check(void);
void tmf_forget(struct session *s);

#endif
