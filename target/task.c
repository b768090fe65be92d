/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tasks: from the SCSI Command PDU to their end. Memory comes from a free list and goes back in
 * task_put() only. A task that SCSI has started leaves by its complete(); one still held leaves
 * without.
 */
#include "target/task.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "target/lun.h"
#define LOG_AREA "iscsi"
#include "util/log.h"
#include "util/size.h"

#define FREE_TASKS_MAX 256

static struct list_head free_tasks = LIST_HEAD_INIT(free_tasks);
static unsigned nr_free_tasks;
static uint64_t last_serial;
static uint64_t total_claim; /* of started tasks of all sessions */

static void complete(struct scsi_cmd *cmd);

static const struct scsi_transport_ops transport_ops = {
    .data_out = task_data_out,
    .data_in = task_data_in,
    .complete = complete,
};

static struct task **itt_slot(struct session *s, uint32_t itt)
{
    return &s->by_itt[(itt ^ itt >> 16) % SESSION_ITT_SLOTS];
}

struct task *task_find(struct session *s, uint32_t itt)
{
    struct task *t = *itt_slot(s, itt);

    while (t && t->itt != itt)
        t = t->itt_next;
    return t;
}

uint64_t task_last_serial(void)
{
    return last_serial;
}

static void unhash(struct task *t)
{
    struct task **p = itt_slot(t->session, t->itt);

    while (*p != t)
        p = &(*p)->itt_next;
    *p = t->itt_next;
}

static void on_deferred(struct deferred *d)
{
    struct task *t = container_of(d, struct task, defer);
    bool ready = t->tell_ready, sent = t->tell_sent;

    t->tell_ready = t->tell_sent = false;
    if (t->scsi_done)
        task_put(t);
    else if (ready)
        scsi_cmd_data_out_ready(&t->cmd);
    else if (sent)
        scsi_cmd_data_in_sent(&t->cmd);
}

static struct task *task_new(struct session *s, const struct pdu *p)
{
    struct task *t, **slot = itt_slot(s, p->itt);

    if (list_empty(&free_tasks)) {
        t = malloc(sizeof(*t));
        if (!t)
            return NULL;
    } else {
        t = list_first_entry(&free_tasks, struct task, link);
        list_del(&t->link);
        nr_free_tasks--;
    }
    memset(t, 0, offsetof(struct task, r2ts));
    t->session = s;
    t->itt = p->itt;
    t->serial = ++last_serial;
    t->immediate = p->immediate;
    t->unsolicited = !p->final;
    list_init(&t->held_link);
    t->defer.fn = on_deferred;
    list_add_tail(&s->tasks, &t->link);
    s->nr_tasks++;
    s->nr_immediate += t->immediate;
    t->itt_next = *slot;
    *slot = t;
    return t;
}

void task_put(struct task *t)
{
    struct session *s = t->session;
    bool aborted = t->aborted;

    if (!t->scsi_done || !t->responded || t->ops_queued || s->conn->rx.task == t ||
        loop_is_deferred(&t->defer))
        return;
    unhash(t);
    list_del(&t->link);
    s->nr_tasks--;
    s->nr_immediate -= t->immediate;
    if (t->started) {
        s->data_bytes -= t->data_claim;
        total_claim -= t->data_claim;
    }
    if (!list_empty(&s->held))
        loop_defer(&s->start_held, LOOP_NOW);
    if (nr_free_tasks < FREE_TASKS_MAX) {
        list_add(&free_tasks, &t->link);
        nr_free_tasks++;
    } else {
        free(t);
    }
    if (aborted)
        tmf_check();
    if (s->nr_tasks < SESSION_MAX_TASKS / 2)
        conn_rx_kick(s->conn);
    conn_put_if_done(s->conn);
}

_Static_assert(PDU_MAX_CDB_BYTES == SCSI_MAX_CDB, "one is copied to the other");

static void fill_command(struct task *t, const struct pdu *p)
{
    struct session *s = t->session;
    struct scsi_cmd *cmd = &t->cmd;

    cmd->ops = &transport_ops;
    cmd->nexus = &s->nexus;
    memcpy(cmd->lun_field, p->lun, 8);
    memcpy(cmd->cdb, p->cmd.cdb, SCSI_MAX_CDB);
    cmd->cdb_bytes = (uint8_t)p->cmd.cdb_bytes;
    cmd->attr = p->cmd.attr;
    cmd->dir_read = p->cmd.read;
    cmd->dir_write = p->cmd.write;
    /* 11.3.4: without R and W the field says nothing */
    cmd->edtl_bytes = p->cmd.read || p->cmd.write ? p->cmd.edtl_bytes : 0;
    cmd->loan.recalled = task_loan_recalled;
    /* with several R2Ts they follow each other through one large buffer */
    cmd->chunk_bytes = s->params.max_outstanding_r2t > 1
                           ? BUFPOOL_MAX_BYTES
                           : MIN_OF(s->params.max_burst, BUFPOOL_MAX_BYTES);
}

static void start(struct task *t)
{
    t->started = true;
    t->session->data_bytes += t->data_claim;
    total_claim += t->data_claim;
    scsi_cmd_start(&t->cmd);
}

/*
 * A session may hold as much as half of what all others leave free, so a few that ask for data and
 * never send it can't keep the rest waiting. One command is always let through: its end is what
 * those that are held wait for.
 */
static bool may_start(const struct session *s, const struct task *t)
{
    uint64_t want = s->data_bytes + t->data_claim;
    uint64_t left = DATA_TOTAL_BYTES - MIN_OF(total_claim, DATA_TOTAL_BYTES);

    return !s->data_bytes || (want <= SESSION_DATA_MAX_BYTES && want <= left / 2);
}

void task_start_held(struct deferred *d)
{
    struct session *s = container_of(d, struct session, start_held);

    while (!list_empty(&s->held) && s->conn->state == CONN_FULL) {
        struct task *t = list_first_entry(&s->held, struct task, held_link);

        if (!may_start(s, t))
            return;
        list_del(&t->held_link);
        start(t);
    }
}

/* What the header alone must fulfil, RFC 7143 11.3; 0 or a reason. */
static uint8_t refuse(const struct conn *c, const struct pdu *p)
{
    const struct session *s = c->session;

    if (task_find(c->session, p->itt))
        return PDU_REJECT_PROTOCOL;
    if (p->immediate && s->nr_immediate >= SESSION_MAX_IMMEDIATE)
        return PDU_REJECT_IMMEDIATE;
    if (!p->final && s->params.initial_r2t)
        return PDU_REJECT_PROTOCOL;
    if (p->data_bytes && (!p->cmd.write || !s->params.immediate_data ||
                          p->data_bytes > MIN_OF(s->params.first_burst, p->cmd.edtl_bytes)))
        return PDU_REJECT_PROTOCOL;
    return 0;
}

void task_command(struct conn *c, const struct pdu *p)
{
    struct session *s = c->session;
    struct task *t;

    c->rx.reject = refuse(c, p);
    if (c->rx.reject) {
        c->max_cmdsn += !p->immediate;
        return;
    }
    t = task_new(s, p);
    if (!t) {
        conn_close(c, "out of memory");
        return;
    }
    fill_command(t, p);
    c->rx.task = t; /* even without data: it may not go before ffp_end() */
    c->rx.sink = RX_TASK;
    t->data_claim = MIN_OF(t->cmd.edtl_bytes, BUFPOOL_MAX_BYTES);
    if (list_empty(&s->held) && may_start(s, t))
        start(t);
    else
        list_add_tail(&s->held, &t->held_link);
}

static void credit(struct task *t)
{
    if (!t->credited && !t->immediate)
        t->session->conn->max_cmdsn++;
    t->credited = true;
}

static void drop_last_in(struct task *t)
{
    blk_loan_return(&t->cmd.loan);
    bufpool_put(bufpool_main(), t->last_buf, t->last_alloc);
    t->last_buf = NULL;
}

static bool data_is_due(const struct task *t)
{
    return t->unsolicited || t->nr_r2ts || t->session->conn->rx.task == t;
}

void task_respond(struct task *t)
{
    struct conn *c = t->session->conn;

    if (!t->scsi_done || t->responded)
        return;
    if (c->state != CONN_FULL || (t->aborted && !t->awaits))
        drop_last_in(t);
    else if (data_is_due(t))
        return;
    else if (t->aborted)
        drop_last_in(t);
    t->responded = true;
    credit(t);
    if (c->state == CONN_FULL && !t->aborted)
        task_send_response(t);
}

/* SCSI is through with it, or never got it. */
static void scsi_ended(struct task *t)
{
    t->scsi_done = true;
    if (!t->aborted)
        t->ended_ns = now_ns();
    task_data_ended(t);
    task_respond(t);
    task_put(t);
}

static void complete(struct scsi_cmd *cmd)
{
    struct task *t = container_of(cmd, struct task, cmd);

    t->last_buf = cmd->last_in;
    t->last_alloc = cmd->last_in_alloc;
    if (cmd->aborted && !t->failure)
        t->aborted = true;
    scsi_ended(t);
}

/* SCSI lets go of it as soon as it can; then complete(), or at once if it never had it. */
static void give_up(struct task *t)
{
    if (t->started) {
        if (!t->scsi_done)
            scsi_cmd_abort(&t->cmd);
    } else if (!t->scsi_done) {
        list_del(&t->held_link);
        scsi_ended(t);
    }
}

void task_abort(struct task *t, bool await_data)
{
    bool again = t->aborted;

    if (again && (await_data || !t->awaits))
        return;
    t->aborted = true;
    t->awaits = await_data && data_is_due(t);
    t->ended_ns = now_ns();
    if (t->awaits)
        task_data_ended(t);
    else
        task_data_forget(t);
    if (t->scsi_done) { /* a response that was withheld; one that is queued goes out */
        task_respond(t);
        task_put(t);
    } else if (!again) {
        give_up(t);
    }
}

void task_fail(struct task *t, enum task_failure failure)
{
    if (t->failure || t->scsi_done || t->aborted)
        return;
    t->failure = failure;
    t->failure_descriptor =
        t->started && t->cmd.lun && t->cmd.lun->mode.sense_descriptor; /* while it is there */
    task_data_ended(t);
    give_up(t);
}

bool task_data_is_scarce(void)
{
    return total_claim > DATA_TOTAL_BYTES / 2;
}

/* How long buffers wait for data that does not come: less while they are scarce. */
static uint64_t patience_ns(void)
{
    return task_data_is_scarce() ? SESSION_SCARCE_NS : CONN_STUCK_NS;
}

/* Data that is due to commands that have ended without it: nothing hangs on it but their answer. */
static void forget_late_data(struct session *s, uint64_t now)
{
    struct task *t, *tmp;

    list_for_each_entry_safe (t, tmp, &s->tasks, link) {
        if (t->awaits && now - t->ended_ns > TASK_AWAIT_NS) {
            task_abort(t, false);
        } else if (t->scsi_done && !t->responded && now - t->ended_ns > patience_ns()) {
            task_data_forget(t);
            task_respond(t);
            task_put(t);
        }
    }
}

/* Of an initiator that does not read: they may leave the page cache, and the loop would wait. */
static void recall_loans(struct session *s, uint64_t now)
{
    struct task *t;

    list_for_each_entry (t, &s->tasks, link) {
        if (t->cmd.loan.data && now - t->cmd.loan.since_ns > TASK_LOAN_NS)
            blk_loan_recall(&t->cmd.loan);
    }
}

void task_tick(struct session *s, uint64_t now)
{
    struct conn *c = s->conn;

    forget_late_data(s, now);
    recall_loans(s, now);
    if (s->nr_waiting && now - s->data_out_ns > patience_ns()) {
        conn_close(c, "the initiator doesn't send the data of its commands");
        return;
    }
    if (!c->rx.blocked || !c->rx.task || !c->rx.blocked_ns ||
        now - c->rx.blocked_ns < SESSION_BLOCKED_NS)
        return;
    /* Its data goes to the stash from now on; if that is full, the command must go. */
    if (now - c->rx.blocked_ns > 2 * SESSION_BLOCKED_NS)
        task_fail(c->rx.task, TASK_FAIL_FULL);
    conn_rx_kick(c);
}
