/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data-out: immediate, unsolicited and by R2T, into the buffers that SCSI gives chunk by chunk.
 *
 * [0, received) has come and its digest was right. Data is taken in order only, inside what was
 * allowed: FirstBurstLength without, the R2T's range with a tag. R2Ts are answered in the order
 * in which they were sent (RFC 7143 11.8), and each asks for what has a place in SCSI's buffer.
 * Data whose buffer isn't there
 * yet waits in the socket, which holds up the whole connection; so where that could last (the
 * data that would free a buffer may be behind it) a bounded amount is stashed instead.
 */
#include <stdlib.h>
#include <string.h>

#include "target/task.h"
#define LOG_AREA "iscsi"
#include "util/log.h"
#include "util/size.h"

/* Of one session, and of all. A window full of first bursts fits in the former for FirstBurstLength
 * up to 128 KiB; what is refused here waits, and in the end is answered TASK SET FULL. */
#define STASH_SESSION_MAX_BYTES (16u << 20)
#define STASH_TOTAL_MAX_BYTES   (64u << 20)

static uint64_t stash_total_bytes;

static uint32_t unsolicited_end(const struct task *t)
{
    return MIN_OF(t->session->params.first_burst, t->cmd.edtl_bytes);
}

static bool wants_data(const struct task *t)
{
    return !t->scsi_done && !t->failure && !t->aborted;
}

static void free_stash(struct task *t)
{
    t->session->stash_bytes -= t->stash_alloc;
    stash_total_bytes -= t->stash_alloc;
    free(t->stash);
    t->stash = NULL;
    t->stash_len = t->stash_alloc = 0;
}

static void forget_buf(struct task *t)
{
    if (t->buf)
        t->session->nr_waiting--;
    t->buf = NULL;
    t->tell_ready = false;
}

/* The one whose data comes next; NULL: none is open. */
static struct task_r2t *first_r2t(struct task *t)
{
    return t->nr_r2ts ? &t->r2ts[t->first_r2t] : NULL;
}

static void close_r2t(struct task *t)
{
    t->first_r2t = (t->first_r2t + 1) % TASK_MAX_R2TS;
    t->nr_r2ts--;
    t->session->nr_r2t--;
}

static void close_r2ts(struct task *t)
{
    while (t->nr_r2ts)
        close_r2t(t);
}

void task_data_ended(struct task *t)
{
    forget_buf(t);
    free_stash(t);
    if (t->session->conn->rx.task == t)
        conn_rx_kick(t->session->conn);
}

void task_data_forget(struct task *t)
{
    struct conn *c = t->session->conn;

    t->unsolicited = false;
    close_r2ts(t);
    task_data_ended(t);
    if (c->rx.task == t) {
        c->rx.task = NULL;
        c->rx.sink = RX_DISCARD;
    }
}

static void r2t_sent(struct tx_op *op, bool sent)
{
    struct task *t = container_of(op, struct task_r2t, op)->task;

    (void)sent;
    t->ops_queued--;
    task_put(t);
}

/* What was asked for so far ends here. */
static uint32_t asked_end(const struct task *t)
{
    if (!t->nr_r2ts)
        return t->received;
    return t->r2ts[(t->first_r2t + t->nr_r2ts - 1) % TASK_MAX_R2TS].end;
}

static void send_r2t(struct task *t, uint32_t from)
{
    struct session *s = t->session;
    struct conn *c = s->conn;
    uint32_t len = MIN_OF(t->buf_at + t->buf_len - from, s->params.max_burst);
    struct task_r2t *r = &t->r2ts[(t->first_r2t + t->nr_r2ts) % TASK_MAX_R2TS];

    if (!t->nr_r2ts)
        t->datasn = 0;
    *r = (struct task_r2t){.task = t, .ttt = conn_new_ttt(c), .end = from + len};
    t->nr_r2ts++;
    s->nr_r2t++;
    pdu_r2t(r->op.bhs, t->cmd.lun_field, t->itt, r->ttt, t->r2tsn++, from, len);
    conn_stamp(c, r->op.bhs, false);
    r->op.done = r2t_sent;
    t->ops_queued++;
    conn_send(c, &r->op);
    conn_rx_kick(c); /* what is blocked now would block the answer */
}

/* As many as may be outstanding, for what is left of the buffer. */
static void send_r2ts(struct task *t)
{
    while (t->nr_r2ts < t->session->params.max_outstanding_r2t && t->nr_r2ts < TASK_MAX_R2TS &&
           asked_end(t) < t->buf_at + t->buf_len)
        send_r2t(t, asked_end(t));
}

/* Tells SCSI if its buffer is full, else asks for the rest if nothing else will bring it. */
static void progress(struct task *t, bool inside_op)
{
    const struct conn *c = t->session->conn;

    if (!t->buf)
        return;
    if (t->received >= t->buf_at + t->buf_len) {
        forget_buf(t);
        if (inside_op) {
            t->tell_ready = true;
            loop_defer(&t->defer, LOOP_NOW);
        } else {
            scsi_cmd_data_out_ready(&t->cmd);
        }
    } else if (!t->unsolicited && c->rx.task != t && c->state == CONN_FULL) {
        send_r2ts(t);
    }
}

static void unstash(struct task *t)
{
    uint32_t from = MAX_OF(t->buf_at, t->stash_at);
    uint32_t end = t->buf_at + t->buf_len;
    uint32_t to = MIN_OF(end, t->stash_at + t->stash_len);

    if (!t->stash)
        return;
    if (from < to)
        memcpy(t->buf + (from - t->buf_at), t->stash + (from - t->stash_at), to - from);
    if (t->stash_at + t->stash_len <= end)
        free_stash(t);
}

void task_data_out(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len)
{
    struct task *t = container_of(cmd, struct task, cmd);

    if (!wants_data(t))
        return;
    t->buf = buf;
    t->buf_at = offset;
    t->buf_len = len;
    t->session->nr_waiting++;
    t->session->data_out_ns = now_ns();
    unstash(t);
    progress(t, true);
    if (t->session->conn->rx.task == t)
        conn_rx_kick(t->session->conn);
}

/* ---- receiving ------------------------------------------------------------------ */

/*
 * True where waiting might be forever: the buffer's release may hang on data behind this, or the
 * chunk that SCSI asked for ends inside this PDU, and is handed over at the PDU's end only.
 */
static bool may_stash(const struct conn *c, const struct task *t)
{
    const struct session *s = c->session;

    return s->nr_r2t || t->buf ||
           (c->rx.blocked_ns && now_ns() - c->rx.blocked_ns >= SESSION_BLOCKED_NS);
}

static bool in_buf(const struct task *t, uint32_t pos)
{
    return t->buf && pos >= t->buf_at && pos < t->buf_at + t->buf_len;
}

/* For the rest of this PDU, or of all unsolicited data if more is to come. */
static bool open_stash(struct task *t, uint32_t pos)
{
    struct session *s = t->session;
    const struct conn *c = s->conn;
    uint32_t need =
        t->unsolicited ? unsolicited_end(t) - pos : c->rx.pdu.data_bytes - c->rx.placed_bytes;

    if (!may_stash(c, t) || s->stash_bytes + need > STASH_SESSION_MAX_BYTES ||
        stash_total_bytes + need > STASH_TOTAL_MAX_BYTES)
        return false;
    t->stash = malloc(need);
    if (!t->stash)
        return false;
    t->stash_at = pos;
    t->stash_len = 0;
    t->stash_alloc = need;
    s->stash_bytes += need;
    stash_total_bytes += need;
    return true;
}

uint8_t *task_rx_room(struct conn *c, uint32_t *room, bool *discard)
{
    struct task *t = c->rx.task;
    uint32_t pos;

    *discard = !t || !wants_data(t);
    if (*discard)
        return NULL;
    pos = t->received + c->rx.placed_bytes;
    if (in_buf(t, pos)) {
        *room = MIN_OF(*room, t->buf_at + t->buf_len - pos);
        return t->buf + (pos - t->buf_at);
    }
    if (!t->stash && (pos >= unsolicited_end(t) || !open_stash(t, pos)))
        return NULL;
    *room = MIN_OF(*room, t->stash_alloc - t->stash_len);
    return *room ? t->stash + t->stash_len : NULL;
}

void task_rx_placed(struct conn *c, uint32_t bytes)
{
    struct task *t = c->rx.task;

    if (!t || !wants_data(t))
        return;
    c->session->data_out_ns = c->rx.last_ns;
    if (t->stash && !in_buf(t, t->received + c->rx.placed_bytes))
        t->stash_len += bytes;
}

static bool answers(const struct task_r2t *r, const struct pdu *p)
{
    return r && p->ttt == r->ttt;
}

static bool data_out_allowed(struct task *t, const struct pdu *p)
{
    const struct task_r2t *r = first_r2t(t);
    uint32_t end = unsolicited_end(t);

    if (p->ttt == PDU_NO_TAG) {
        if (!t->unsolicited)
            return false;
    } else {
        /* a tag that was not told yet can't be known */
        if (!answers(r, p) || list_is_linked(&r->op.link))
            return false;
        end = r->end;
    }
    if (!wants_data(t)) /* only the end of it is waited for */
        return true;
    return p->data_out.datasn == t->datasn && p->data_out.offset_bytes == t->received &&
           t->received <= end && p->data_bytes <= end - t->received;
}

void task_data_out_begin(struct conn *c, const struct pdu *p)
{
    struct task *t = task_find(c->session, p->itt);

    if (!t || (t->aborted && !(t->awaits && data_out_allowed(t, p))) ||
        (t->responded && !t->unsolicited && !t->nr_r2ts)) {
        c->rx.ignore = true; /* data for a command that was aborted meanwhile */
        return;
    }
    if (!data_out_allowed(t, p)) {
        log_info("%s: Data-Out of ITT %#x out of place (DataSN %u, offset %u, %u bytes)", c->peer,
                 p->itt, p->data_out.datasn, p->data_out.offset_bytes, p->data_bytes);
        c->rx.task = t;
        t->unsolicited = false; /* nothing of it can be relied on */
        close_r2ts(t);
        task_fail(t, TASK_FAIL_DATA);
        ffp_reject(c, PDU_REJECT_PROTOCOL);
        return;
    }
    c->rx.task = t;
    c->rx.sink = RX_TASK;
}

/* The F bit: this burst is over. */
static void burst_end(struct task *t, const struct pdu *p)
{
    const struct task_r2t *r = first_r2t(t);

    if (p->ttt == PDU_NO_TAG) {
        t->unsolicited = false;
    } else if (answers(r, p)) {
        close_r2t(t);
        if (t->received < r->end)
            task_fail(t, TASK_FAIL_DATA);
    }
    t->datasn = 0;
}

/* 11.7.1: the last PDU of a burst has F. Whoever leaves it out can't be waited for. */
static void unfinished_burst(struct task *t)
{
    close_r2ts(t);
    task_fail(t, TASK_FAIL_DATA);
}

void task_data_end(struct conn *c, const struct pdu *p, bool digest_ok)
{
    struct task *t = c->rx.task;

    c->rx.task = NULL;
    if (t)
        t->ops_queued++; /* keeps it here */
    if (!digest_ok)
        ffp_reject(c, PDU_REJECT_DATA_DIGEST);
    if (!t)
        return;
    if (!digest_ok)
        task_fail(t, TASK_FAIL_CRC);
    if (wants_data(t))
        t->received += p->data_bytes;
    if (p->opcode == PDU_DATA_OUT) {
        t->datasn++;
        if (p->final)
            burst_end(t, p);
        else if (answers(first_r2t(t), p) && wants_data(t) && t->received == first_r2t(t)->end)
            unfinished_burst(t);
    }
    if (wants_data(t))
        progress(t, false);
    t->ops_queued--;
    task_respond(t);
    task_put(t);
}
