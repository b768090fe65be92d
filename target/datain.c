/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data-In and SCSI responses. Data goes out of SCSI's own buffer, cut into segments by conn-tx.c;
 * the status of a command that went well travels in its last Data-In (RFC 7143 11.7.3).
 */
#include <string.h>

#include "target/sense.h"
#include "target/task.h"
#include "util/byteorder.h"
#include "util/size.h"

static void put_in_buf(struct task *t)
{
    blk_loan_return(&t->cmd.loan);
    bufpool_put(bufpool_main(), t->in_buf, t->in_alloc);
    t->in_buf = NULL;
}

static void data_sent(struct tx_op *op, bool sent)
{
    struct task *t = container_of(op, struct task, data_op);

    (void)sent;
    put_in_buf(t);
    t->ops_queued--;
    if (t->scsi_done)
        task_put(t);
    else
        scsi_cmd_data_in_sent(&t->cmd);
}

static void response_sent(struct tx_op *op, bool sent)
{
    struct task *t = container_of(op, struct task, rsp_op);

    (void)sent;
    blk_loan_return(&t->cmd.loan);
    bufpool_put(bufpool_main(), t->last_buf, t->last_alloc);
    t->last_buf = NULL;
    t->ops_queued--;
    task_put(t);
}

static uint32_t nr_pdus(const struct tx_op *op)
{
    uint32_t per_burst = (op->burst_bytes + op->segment_bytes - 1) / op->segment_bytes;
    uint32_t rest = op->data_bytes % op->burst_bytes;

    return op->data_bytes / op->burst_bytes * per_burst +
           (rest + op->segment_bytes - 1) / op->segment_bytes;
}

/* A series of Data-In: cuts at multiples of 4, so that only the last PDU is padded. */
static void fill_data_in(struct task *t, struct tx_op *op, const void *buf, uint32_t offset,
                         uint32_t len)
{
    const struct iscsi_params *p = &t->session->params;

    pdu_data_in(op->bhs, t->itt, t->datasn_in, offset);
    t->lent_op = t->cmd.loan.data ? op : NULL;
    op->data = t->lent_op ? t->cmd.loan.data : buf;
    op->loan = t->lent_op ? &t->cmd.loan : NULL;
    op->data_bytes = len;
    op->segment_bytes = p->max_xmit_segment & ~3u;
    op->burst_bytes = p->max_burst & ~3u;
    t->datasn_in += nr_pdus(op);
}

void task_loan_recalled(struct blk_loan *loan)
{
    struct task *t = container_of(loan, struct task, cmd.loan);

    if (!t->lent_op) /* not queued yet */
        return;
    t->lent_op->data = loan->buf;
    t->lent_op->lost = loan->result != 0;
}

static void queue(struct task *t, struct tx_op *op, void (*done)(struct tx_op *, bool))
{
    op->done = done;
    t->ops_queued++;
    conn_send(t->session->conn, op);
    op->lost = t->cmd.loan.result != 0;
}

void task_data_in(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len, uint32_t alloc)
{
    struct task *t = container_of(cmd, struct task, cmd);
    struct conn *c = t->session->conn;

    t->in_buf = buf;
    t->in_alloc = alloc;
    if (t->aborted || t->failure || c->state != CONN_FULL || !cmd->dir_read || !len) {
        put_in_buf(t);
        t->tell_sent = true;
        loop_defer(&t->defer, LOOP_NOW);
        return;
    }
    fill_data_in(t, &t->data_op, buf, offset, len);
    conn_stamp(c, t->data_op.bhs, false);
    queue(t, &t->data_op, data_sent);
}

/* Conditions that arise in the transport. */
static const struct {
    uint8_t status;
    enum sense_id sense;
} failures[] = {
    [TASK_FAIL_CRC] = {SCSI_CHECK_CONDITION, SENSE_CRC_ERROR},
    [TASK_FAIL_DATA] = {SCSI_CHECK_CONDITION, SENSE_DATA_PHASE},
    [TASK_FAIL_FULL] = {SCSI_TASK_SET_FULL, SENSE_NONE},
};

/* Status and sense of @t as bytes in t->sense; returns their number. RFC 7143 11.4.7 */
static uint32_t fill_sense(struct task *t, uint8_t *status)
{
    uint16_t len = MIN_OF(t->cmd.sense_len, SCSI_MAX_SENSE);
    uint8_t *sense = t->sense + 2;

    *status = t->cmd.status;
    if (t->failure) {
        *status = failures[t->failure].status;
        len = 0;
        if (*status == SCSI_CHECK_CONDITION)
            len = (uint16_t)sense_build(sense, &(struct sense){.id = failures[t->failure].sense},
                                        t->failure_descriptor);
    } else {
        memcpy(sense, t->cmd.sense, len);
    }
    put_be16(t->sense, len);
    return len ? 2u + len : 0;
}

static void fill_response(struct task *t, uint8_t status, uint32_t sense_bytes,
                          struct pdu_residual r)
{
    pdu_scsi_rsp(t->rsp_op.bhs, t->itt, status, r, t->datasn_in);
    t->rsp_op.data = t->sense;
    t->rsp_op.loan = NULL;
    t->rsp_op.data_bytes = sense_bytes;
    t->rsp_op.segment_bytes = 0;
}

void task_send_response(struct task *t)
{
    struct conn *c = t->session->conn;
    struct scsi_cmd *cmd = &t->cmd;
    struct pdu_residual r = pdu_residual(t->failure ? 0 : cmd->transfer_bytes, cmd->edtl_bytes);
    uint8_t status;
    uint32_t sense_bytes = fill_sense(t, &status);
    bool has_data = t->last_buf && cmd->last_in_len && cmd->dir_read && !t->failure;

    if (has_data && status == SCSI_GOOD && !sense_bytes) {
        fill_data_in(t, &t->rsp_op, t->last_buf, cmd->last_in_offset, cmd->last_in_len);
        pdu_data_in_status(t->rsp_op.bhs, status, r);
    } else {
        if (has_data) {
            t->in_buf = t->last_buf;
            t->in_alloc = t->last_alloc;
            t->last_buf = NULL;
            fill_data_in(t, &t->data_op, t->in_buf, cmd->last_in_offset, cmd->last_in_len);
            conn_stamp(c, t->data_op.bhs, false);
            queue(t, &t->data_op, data_sent);
        }
        fill_response(t, status, sense_bytes, r);
    }
    conn_stamp(c, t->rsp_op.bhs, true);
    queue(t, &t->rsp_op, response_sent);
}
