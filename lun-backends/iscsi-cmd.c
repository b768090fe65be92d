/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SCSI commands of an initiator session: started in order, a bounded number and a bounded
 * number of bytes at a time, retried where SCSI asks for it, each finished exactly once.
 *
 * libiscsi puts data-in straight into the caller's buffers and does not say how much came. An
 * exact command therefore carries marks: 8 random bytes at the end of each 512 of the buffer. A
 * mark that is still there when the status is GOOD means data that did not come.
 */
#define LOG_AREA "iscsi"
#include "lun-backends/iscsi-conn-int.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "lun-backends/block.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_RETRIES   7
#define MARK_STRIDE   512
#define FIRST_WAIT_NS 20000000ull /* of BUSY; doubled each time */
#define MAX_WAIT_NS   1000000000ull

static uint64_t the_mark(void)
{
    static uint64_t mark;

    while (!mark) {
        if (getrandom(&mark, sizeof(mark), 0) != (ssize_t)sizeof(mark))
            mark = now_ns() * 0x9e3779b97f4a7c15ull;
    }
    return mark;
}

/* Calls fn on each contiguous piece of the command's buffer until it returns false. */
static bool each_piece(const struct iscsi_cmd *cmd, bool (*fn)(uint8_t *p, size_t len, void *arg),
                       void *arg)
{
    size_t skip = cmd->iov_from, left = cmd->bytes;

    for (int i = 0; i < cmd->niov && left; i++) {
        if (skip >= cmd->iov[i].iov_len) {
            skip -= cmd->iov[i].iov_len;
            continue;
        }
        size_t len = MIN_OF(cmd->iov[i].iov_len - skip, left);

        if (!fn((uint8_t *)cmd->iov[i].iov_base + skip, len, arg))
            return false;
        left -= len;
        skip = 0;
    }
    return left == 0;
}

static bool add_piece(uint8_t *p, size_t len, void *task)
{
    return scsi_task_add_data_in_buffer(task, (int)len, p) == 0;
}

static bool add_out_piece(uint8_t *p, size_t len, void *task)
{
    return scsi_task_add_data_out_buffer(task, (int)len, p) == 0;
}

static bool zero_piece(uint8_t *p, size_t len, void *arg)
{
    (void)arg;
    memset(p, 0, len);
    return true;
}

/* A piece under 8 bytes has no mark of its own. */
static size_t next_mark(size_t pos, size_t len)
{
    size_t end = MIN_OF(pos + MARK_STRIDE, len);

    return end - pos >= sizeof(uint64_t) ? end - sizeof(uint64_t) : SIZE_MAX;
}

static bool set_marks(uint8_t *p, size_t len, void *arg)
{
    for (size_t pos = 0; pos < len; pos += MARK_STRIDE) {
        size_t at = next_mark(pos, len);

        if (at != SIZE_MAX)
            memcpy(p + at, arg, sizeof(uint64_t));
    }
    return true;
}

static bool no_marks(uint8_t *p, size_t len, void *arg)
{
    for (size_t pos = 0; pos < len; pos += MARK_STRIDE) {
        size_t at = next_mark(pos, len);

        if (at != SIZE_MAX && !memcmp(p + at, arg, sizeof(uint64_t)))
            return false;
    }
    return true;
}

/* SAM-5 4.7.7: peripheral device addressing up to 255, flat space above. */
static int wire_lun(int lun)
{
    return lun < 256 ? lun : 0x4000 | lun;
}

static void finish(struct iscsi_conn *c, struct iscsi_cmd *cmd, int result)
{
    cmd->result = result;
    list_add_tail(&c->finished, &cmd->link);
    loop_defer(&c->work, LOOP_NOW);
}

static void retry(struct iscsi_conn *c, struct iscsi_cmd *cmd, bool wait)
{
    uint64_t wait_ns = MIN_OF(FIRST_WAIT_NS << cmd->retries, MAX_WAIT_NS);

    cmd->retries++;
    if (!wait) {
        list_add(&c->queued, &cmd->link);
        return;
    }
    cmd->retry_at_ns = now_ns() + wait_ns;
    list_add_tail(&c->delayed, &cmd->link);
    if (!ev_is_active(&c->retry))
        ev_timer_again(loop_ev(), &c->retry);
}

void conn_retry_due(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    struct iscsi_conn *c = t->data;
    struct iscsi_cmd *cmd, *tmp;
    uint64_t now = now_ns();

    (void)revents;
    list_for_each_entry_safe (cmd, tmp, &c->delayed, link) {
        if (cmd->retry_at_ns > now)
            continue;
        list_del(&cmd->link);
        list_add_tail(&c->queued, &cmd->link);
    }
    if (list_empty(&c->delayed))
        ev_timer_stop(ev, t);
    conn_pump(c);
}

/* GOOD status: did everything come? */
static int data_result(struct iscsi_cmd *cmd, const struct scsi_task *task)
{
    size_t missing = task->residual_status == SCSI_RESIDUAL_UNDERFLOW ? task->residual : 0;
    uint64_t mark = the_mark();

    if (cmd->out)
        return missing ? -EIO : 0;
    cmd->got = missing < cmd->bytes ? cmd->bytes - (uint32_t)missing : 0;
    if (!cmd->exact)
        return 0;
    return missing || !each_piece(cmd, no_marks, &mark) ? -EIO : 0;
}

/* SPC-4 5.7, SAM-5 5.14: INQUIRY DATA, or CAPACITY DATA HAS CHANGED. */
static bool tells_of_change(const struct iscsi_cmd *cmd)
{
    return cmd->sense_key == SCSI_SENSE_UNIT_ATTENTION &&
           (cmd->ascq == 0x3f03 || cmd->ascq == 0x2a09);
}

enum verdict { V_DONE, V_AGAIN, V_AGAIN_LATER };

/* SAM-5 5.3.1: what each status means for the command. */
static enum verdict judge(struct iscsi_cmd *cmd, int status, const struct scsi_task *task, int *ret)
{
    switch (status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        *ret = data_result(cmd, task);
        return V_DONE;
    case SCSI_STATUS_CHECK_CONDITION:
        cmd->sense_key = (uint8_t)task->sense.key;
        cmd->ascq = (uint16_t)task->sense.ascq;
        *ret = -EREMOTEIO;
        return cmd->sense_key == SCSI_SENSE_UNIT_ATTENTION ||
                       cmd->sense_key == SCSI_SENSE_COMMAND_ABORTED
                   ? V_AGAIN
                   : V_DONE;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
        *ret = -EAGAIN;
        return V_AGAIN_LATER;
    case SCSI_STATUS_TASK_ABORTED: /* by another initiator's reset */
        *ret = -EIO;
        return V_AGAIN;
    case SCSI_STATUS_CANCELLED:
    case SCSI_STATUS_TIMEOUT:
        *ret = -EHOSTDOWN;
        return V_DONE;
    default:
        *ret = -EIO;
        return V_DONE;
    }
}

static void command_cb(struct iscsi_context *ctx, int status, void *data, void *private_data)
{
    struct iscsi_cmd *cmd = private_data;
    struct iscsi_conn *c = cmd->conn;
    int ret;
    enum verdict v = judge(cmd, status, cmd->task, &ret);

    (void)ctx;
    (void)data;
    scsi_free_scsi_task(cmd->task);
    cmd->task = NULL;
    list_del(&cmd->link);
    c->nr_active--;
    c->active_bytes -= cmd->bytes;
    if (c->on_down && tells_of_change(cmd)) {
        c->stale = true;
        conn_down(c, "the target says that the LUN has changed");
    }
    if (ret == -EHOSTDOWN)
        conn_down(c, "the connection broke");
    if (c->state != CONN_UP)
        finish(c, cmd, v == V_DONE && ret != -EIO && !c->stale ? ret : -EHOSTDOWN);
    else if (v == V_DONE || cmd->retries >= MAX_RETRIES)
        finish(c, cmd, ret);
    else
        retry(c, cmd, v == V_AGAIN_LATER);
    conn_pump(c);
}

static int direction(const struct iscsi_cmd *cmd)
{
    if (!cmd->bytes)
        return SCSI_XFER_NONE;
    return cmd->out ? SCSI_XFER_WRITE : SCSI_XFER_READ;
}

static int start(struct iscsi_conn *c, struct iscsi_cmd *cmd)
{
    uint64_t mark = the_mark();
    struct scsi_task *task =
        scsi_create_task((int)cmd->cdb_len, cmd->cdb, direction(cmd), (int)cmd->bytes);

    if (!task)
        return -ENOMEM;
    if (!each_piece(cmd, cmd->out ? add_out_piece : add_piece, task))
        goto fail;
    if (!cmd->out)
        each_piece(cmd, cmd->exact ? set_marks : zero_piece, &mark);
    if (iscsi_scsi_command_async(c->ctx, wire_lun(cmd->lun), task, command_cb, NULL, cmd))
        goto fail;
    cmd->task = task;
    cmd->issued_ns = now_ns();
    list_add_tail(&c->active, &cmd->link);
    c->nr_active++;
    c->active_bytes += cmd->bytes;
    loop_defer(&c->flush, LOOP_END);
    return 0;
fail:
    scsi_free_scsi_task(task);
    return -EIO;
}

void conn_pump(struct iscsi_conn *c)
{
    while (c->state == CONN_UP && !list_empty(&c->queued) && c->nr_active < ISCSI_MAX_ACTIVE) {
        struct iscsi_cmd *cmd = list_first_entry(&c->queued, struct iscsi_cmd, link);

        if (c->nr_active && c->active_bytes + cmd->bytes > ISCSI_MAX_ACTIVE_BYTES)
            break;
        list_del(&cmd->link);
        int ret = start(c, cmd);

        if (ret)
            finish(c, cmd, ret);
    }
}

void iscsi_conn_submit(struct iscsi_conn *c, struct iscsi_cmd *cmd)
{
    cmd->conn = c;
    cmd->task = NULL;
    cmd->retries = 0;
    cmd->got = 0;
    cmd->sense_key = 0;
    cmd->ascq = 0;
    if (c->state != CONN_UP) {
        finish(c, cmd, -EHOSTDOWN);
        return;
    }
    list_add_tail(&c->queued, &cmd->link);
    conn_pump(c);
}

/* The context is gone: libiscsi holds none of them any more, told us or not. */
void conn_fail_commands(struct iscsi_conn *c)
{
    struct list_head *lists[] = {&c->active, &c->queued, &c->delayed};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        while (!list_empty(lists[i])) {
            struct iscsi_cmd *cmd = list_first_entry(lists[i], struct iscsi_cmd, link);

            list_del(&cmd->link);
            if (cmd->task)
                scsi_free_scsi_task(cmd->task);
            cmd->task = NULL;
            finish(c, cmd, -EHOSTDOWN);
        }
    }
    c->nr_active = 0;
    c->active_bytes = 0;
}

struct co_command {
    struct iscsi_cmd cmd;
    struct coroutine *co;
};

static void co_command_done(struct iscsi_cmd *cmd)
{
    co_enter(container_of(cmd, struct co_command, cmd)->co);
}

static void co_run_command(struct iscsi_conn *conn, int lun, const uint8_t *cdb, unsigned cdb_len,
                           struct co_command *cc)
{
    cc->co = co_self();
    cc->cmd.lun = lun;
    cc->cmd.cdb_len = cdb_len;
    cc->cmd.done = co_command_done;
    memcpy(cc->cmd.cdb, cdb, MIN_OF(cdb_len, sizeof(cc->cmd.cdb)));
    iscsi_conn_submit(conn, &cc->cmd);
    co_yield ();
}

int co_iscsi_command(struct iscsi_conn *conn, int lun, const uint8_t *cdb, unsigned cdb_len,
                     void *buf, uint32_t alloc, uint32_t *got, uint8_t *sense_key, uint16_t *ascq)
{
    struct iovec iov = {.iov_base = buf, .iov_len = alloc};
    struct co_command cc = {.cmd = {.iov = &iov, .niov = alloc ? 1 : 0, .bytes = alloc}};

    co_run_command(conn, lun, cdb, cdb_len, &cc);
    *got = cc.cmd.got;
    *sense_key = cc.cmd.sense_key;
    *ascq = cc.cmd.ascq;
    return cc.cmd.result;
}

int co_iscsi_command_out(struct iscsi_conn *conn, int lun, const uint8_t *cdb, unsigned cdb_len,
                         const void *data, uint32_t bytes, uint8_t *sense_key, uint16_t *ascq)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = bytes};
    struct co_command cc = {.cmd = {.iov = &iov, .niov = 1, .bytes = bytes, .out = true}};

    co_run_command(conn, lun, cdb, cdb_len, &cc);
    *sense_key = cc.cmd.sense_key;
    *ascq = cc.cmd.ascq;
    return cc.cmd.result;
}
