/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a command: decoded once, checked once, run by its handler, ended in one place.
 * complete() is never called inside scsi_cmd_start(): an end is put off to later this turn,
 * except where a disk request has just completed.
 */
#include "target/scsi-cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "target/nexus.h"
#include "util/size.h"

uint32_t cmd_expected_bytes(const struct scsi_cmd *cmd)
{
    if (!cmd->op)
        return 0;
    if ((cmd->op->dir == DIR_IN && cmd->dir_read) || (cmd->op->dir == DIR_OUT && cmd->dir_write))
        return cmd->edtl_bytes;
    return 0;
}

/* ---- the end ------------------------------------------------------------------------ */

/* Of an initiator that announced the other direction nothing is taken, and to it nothing given. */
static bool goes_as_announced(const struct scsi_cmd *cmd)
{
    if (!cmd->op || (!cmd->dir_read && !cmd->dir_write))
        return true;
    return !(cmd->op->dir == DIR_IN && !cmd->dir_read) &&
           !(cmd->op->dir == DIR_OUT && !cmd->dir_write);
}

/* The one place where a command leaves SCSI: it owns nothing of ours after this. */
static void finish(struct scsi_cmd *cmd)
{
    struct lun *lun = cmd->lun;

    cmd_put_buf(cmd);
    cmd_unlock(cmd);
    free(cmd->priv);
    cmd->priv = NULL;
    cmd->aborted = cmd->abort_requested;
    if (!goes_as_announced(cmd))
        cmd->transfer_bytes = 0;
    if (cmd->aborted && cmd->last_in) {
        blk_loan_return(&cmd->loan);
        bufpool_put(bufpool_main(), cmd->last_in, cmd->last_in_alloc);
        cmd->last_in = NULL;
    }
    if (lun)
        lun_leave(lun, cmd);
    cmd->ops->complete(cmd);
}

static void finish_deferred(struct deferred *d)
{
    finish(container_of(d, struct scsi_cmd, defer));
}

void cmd_end(struct scsi_cmd *cmd)
{
    cmd->phase = PH_ENDING;
    cmd->defer.fn = finish_deferred;
    loop_defer(&cmd->defer, LOOP_NOW);
}

void cmd_good_now(struct scsi_cmd *cmd)
{
    cmd->status = SCSI_GOOD;
    finish(cmd);
}

void cmd_good(struct scsi_cmd *cmd)
{
    cmd->status = SCSI_GOOD;
    cmd_end(cmd);
}

void cmd_reply(struct scsi_cmd *cmd, uint32_t len)
{
    const struct cdb_field f = cmd->op->len;
    uint64_t alloc_len = f.bytes ? cdb_get(cmd->cdb, f) : len;

    cmd->transfer_bytes = MIN_OF(len, alloc_len);
    cmd->last_in_len = (uint32_t)MIN_OF(cmd->transfer_bytes, cmd_expected_bytes(cmd));
    if (cmd->last_in_len) {
        cmd->last_in = cmd->buf;
        cmd->last_in_alloc = cmd->buf_alloc;
        cmd->buf = NULL;
    }
    cmd_good(cmd);
}

static void end_with_sense(struct scsi_cmd *cmd, const struct sense *s)
{
    cmd->status = SCSI_CHECK_CONDITION;
    cmd->sense_len =
        (uint16_t)sense_build(cmd->sense, s, cmd->lun && cmd->lun->mode.sense_descriptor);
    cmd->transfer_bytes = cmd->moved_bytes;
    cmd_end(cmd);
}

void cmd_fail(struct scsi_cmd *cmd, enum sense_id id)
{
    end_with_sense(cmd, &(struct sense){.id = id});
}

void cmd_fail_info(struct scsi_cmd *cmd, enum sense_id id, uint64_t info)
{
    end_with_sense(cmd, &(struct sense){.id = id, .has_info = true, .info = info});
}

void cmd_fail_cdb_field(struct scsi_cmd *cmd, uint16_t byte, int bit)
{
    end_with_sense(cmd, &(struct sense){.id = SENSE_INVALID_FIELD_CDB,
                                        .has_field = true,
                                        .field_byte = byte,
                                        .field_bit = (int8_t)bit});
}

void cmd_fail_param_field(struct scsi_cmd *cmd, uint16_t byte)
{
    end_with_sense(cmd, &(struct sense){.id = SENSE_INVALID_FIELD_PARAM,
                                        .has_field = true,
                                        .field_byte = byte,
                                        .field_bit = -1});
}

static void end_busy(struct scsi_cmd *cmd, enum scsi_status status)
{
    cmd->status = (uint8_t)status;
    cmd->transfer_bytes = cmd->moved_bytes;
    cmd_end(cmd);
}

/* By what failed, not by what was asked for: SYNCHRONIZE CACHE, the read of COMPARE AND WRITE. */
void cmd_fail_errno(struct scsi_cmd *cmd, int err)
{
    bool write = cmd->req.verb != BLK_READ && cmd->req.verb != BLK_STATUS;
    enum sense_id id = sense_of_errno(err, write);

    if (err == -ENOMEM || err == -EAGAIN) {
        end_busy(cmd, SCSI_BUSY);
        return;
    }
    if (err == -EINVAL && cmd->lba + cmd->nr_blocks > cmd->lun->capacity_blocks) {
        cmd_fail_info(cmd, SENSE_LBA_OUT_OF_RANGE, cmd->lba); /* the disk shrank under it */
        return;
    }
    lun_note_error(cmd->lun, write, -err);
    if (id == SENSE_READ_ERROR || id == SENSE_WRITE_ERROR)
        cmd_fail_info(cmd, id, cmd->lba + (cmd->moved_bytes >> cmd->lun->block_shift));
    else
        cmd_fail(cmd, id);
}

void cmd_conflict(struct scsi_cmd *cmd)
{
    end_busy(cmd, SCSI_RESERVATION_CONFLICT);
}

/* ---- buffers and data ---------------------------------------------------------------- */

static void buf_wanted(struct buf_waiter *w)
{
    struct scsi_cmd *cmd = container_of(w, struct scsi_cmd, buf_waiter);

    cmd_get_buf(cmd, cmd->buf_alloc, cmd->next);
}

void cmd_get_buf(struct scsi_cmd *cmd, uint32_t bytes, void (*next)(struct scsi_cmd *))
{
    cmd->buf = bufpool_get(bufpool_main(), bytes);
    cmd->buf_alloc = bytes;
    if (cmd->buf) {
        next(cmd);
        return;
    }
    cmd->phase = PH_WAIT_BUF;
    cmd->next = next;
    cmd->buf_waiter.bytes = bytes;
    cmd->buf_waiter.fn = buf_wanted;
    bufpool_wait(bufpool_main(), &cmd->buf_waiter);
}

void cmd_put_buf(struct scsi_cmd *cmd)
{
    if (cmd->buf) {
        blk_loan_return(&cmd->loan);
        bufpool_put(bufpool_main(), cmd->buf, cmd->buf_alloc);
    }
    cmd->buf = NULL;
}

void cmd_data_out(struct scsi_cmd *cmd, uint32_t offset, uint32_t len,
                  void (*next)(struct scsi_cmd *))
{
    cmd->phase = PH_DATA_OUT;
    cmd->next = next;
    cmd->buf_len = len;
    cmd->ops->data_out(cmd, offset, cmd->buf, len);
}

void scsi_cmd_data_out_ready(struct scsi_cmd *cmd)
{
    if (cmd->phase == PH_DATA_OUT)
        cmd->next(cmd);
}

void cmd_data_in(struct scsi_cmd *cmd, uint32_t offset, uint32_t len,
                 void (*next)(struct scsi_cmd *))
{
    void *buf = cmd->buf;

    cmd->phase = PH_DATA_IN;
    cmd->next = next;
    cmd->buf = NULL;
    cmd->ops->data_in(cmd, offset, buf, len, cmd->buf_alloc);
}

void scsi_cmd_data_in_sent(struct scsi_cmd *cmd)
{
    if (cmd->phase != PH_DATA_IN)
        return;
    if (cmd->abort_requested)
        cmd_end(cmd);
    else
        cmd->next(cmd);
}

/* ---- the disk ------------------------------------------------------------------------ */

/* True if what the buffer holds can't be had again. */
static bool holds_data_out(const struct scsi_cmd *cmd)
{
    return cmd->buf && cmd->op->dir == DIR_OUT && cmd->transfer_bytes;
}

static void wait_for_source(struct scsi_cmd *cmd)
{
    if (!holds_data_out(cmd))
        cmd_put_buf(cmd);
    switch (lun_park(cmd->lun, cmd)) {
    case PARK_DONE:
        cmd->phase = PH_PARKED;
        break;
    case PARK_AGAIN:
        cmd->again(cmd);
        break;
    case PARK_FULL:
        end_busy(cmd, SCSI_BUSY);
        break;
    case PARK_TIMEOUT:
        cmd_fail_errno(cmd, -ETIMEDOUT);
        break;
    }
}

static void io_done(struct blk_req *req)
{
    struct scsi_cmd *cmd = req->opaque;
    bool optional = req->verb == BLK_WRITE_ZEROES || req->verb == BLK_DISCARD;

    if (list_is_linked(&cmd->io_range.link))
        lun_range_leave(cmd->lun, &cmd->io_range);
    if (cmd->abort_requested) {
        finish(cmd);
    } else if (!req->result || (req->result == -ENOTSUP && optional)) {
        cmd->park_deadline_ns = 0;
        cmd->next(cmd);
    } else if (req->result == -EHOSTDOWN) {
        wait_for_source(cmd);
    } else {
        cmd_fail_errno(cmd, req->result);
    }
}

/* Its own lock covers what it does. */
static bool range_is_free(struct scsi_cmd *cmd)
{
    struct lun_range *r = &cmd->io_range;

    if (!cmd->req.length_bytes || list_is_linked(&cmd->lock.link))
        return true;
    r->start = cmd->req.offset_bytes;
    r->end = r->start + cmd->req.length_bytes;
    return lun_range_enter(cmd->lun, r);
}

static void io_range_free(struct lun_range *r)
{
    struct scsi_cmd *cmd = container_of(r, struct scsi_cmd, io_range);

    cmd->phase = PH_IO;
    blk_head_submit(&cmd->lun->head, &cmd->req);
}

static void lock_free(struct lun_range *r)
{
    struct scsi_cmd *cmd = container_of(r, struct scsi_cmd, lock);

    cmd->next(cmd);
}

void cmd_lock(struct scsi_cmd *cmd, uint64_t offset_bytes, uint64_t length_bytes,
              void (*next)(struct scsi_cmd *))
{
    cmd->lock.start = offset_bytes;
    cmd->lock.end = offset_bytes + length_bytes;
    cmd->phase = PH_RANGE;
    cmd->next = next;
    if (lun_range_enter(cmd->lun, &cmd->lock))
        next(cmd);
}

void cmd_unlock(struct scsi_cmd *cmd)
{
    if (list_is_linked(&cmd->lock.link))
        lun_range_leave(cmd->lun, &cmd->lock);
}

void cmd_io(struct scsi_cmd *cmd, enum blk_verb verb, uint32_t flags, uint64_t offset_bytes,
            uint64_t length_bytes, void *data, void (*again)(struct scsi_cmd *),
            void (*next)(struct scsi_cmd *))
{
    struct blk_req *req = &cmd->req;

    if (cmd->lun->gone) {
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
        return;
    }
    cmd->again = again;
    cmd->next = next;
    cmd->source_seq = cmd->lun->source_seq;
    cmd->iov.iov_base = data;
    cmd->iov.iov_len = length_bytes;
    req->verb = verb;
    req->flags = flags;
    req->offset_bytes = offset_bytes;
    req->length_bytes = length_bytes;
    req->iov = &cmd->iov;
    req->niov = data ? 1 : 0;
    req->done = io_done;
    req->opaque = cmd;
    req->loan = cmd->borrows ? &cmd->loan : NULL;
    cmd->phase = PH_RANGE;
    if (range_is_free(cmd))
        io_range_free(&cmd->io_range);
}

/* ---- start --------------------------------------------------------------------------- */

/* SBC-3: the range must lie inside the capacity, also that of an empty transfer. */
static bool in_range(const struct scsi_cmd *cmd)
{
    uint64_t capacity = cmd->lun->capacity_blocks;

    return cmd->lba <= capacity && cmd->nr_blocks <= capacity - cmd->lba;
}

static void decode_range(struct scsi_cmd *cmd)
{
    cmd->lba = cdb_get(cmd->cdb, cmd->op->lba);
    cmd->nr_blocks = cdb_get(cmd->cdb, cmd->op->len);
    if (cmd->op->cdb_len == 6) { /* SBC-3 5.9: 21 bits of LBA, length 0 is 256 */
        cmd->lba &= 0x1fffff;
        if (!cmd->nr_blocks)
            cmd->nr_blocks = 256;
    }
}

/* False: the command has ended. */
static bool is_ready(struct scsi_cmd *cmd)
{
    struct sense s = {.id = SENSE_NONE};

    scsi_not_ready(cmd->lun, &s);
    if (s.id == SENSE_NONE)
        return true;
    end_with_sense(cmd, &s);
    return false;
}

/* False: a bit is set that the row's usage map leaves out (NACA too), and the command has ended. */
static bool bits_are_known(struct scsi_cmd *cmd)
{
    const struct scsi_opcode *op = cmd->op;

    for (unsigned i = 1; i < op->cdb_len; i++) {
        unsigned extra = cmd->cdb[i] & ~(unsigned)op->usage[i];

        if (extra) {
            cmd_fail_cdb_field(cmd, (uint16_t)i, 31 - __builtin_clz(extra));
            return false;
        }
    }
    return true;
}

/* Checks that rows ask for; false: the command has ended. */
static bool passes_checks(struct scsi_cmd *cmd)
{
    const struct scsi_opcode *op = cmd->op;

    if (cmd->cdb[0] == SCSI_VARIABLE &&
        (cmd->cdb_bytes != op->cdb_len || cmd->cdb[7] != op->cdb_len - 8)) {
        cmd_fail_cdb_field(cmd, 7, -1); /* ADDITIONAL CDB LENGTH */
        return false;
    }
    if (!bits_are_known(cmd))
        return false;
    if (op->flags & OPF_PROTECT && cmd->cdb[1] & 0xe0) { /* no protection information */
        cmd_fail_cdb_field(cmd, 1, 7);
        return false;
    }
    if (cmd->lun && lun_reserved_against(cmd->lun, cmd)) {
        cmd_conflict(cmd);
        return false;
    }
    if (op->flags & OPF_READY && cmd->lun && !is_ready(cmd))
        return false;
    if (op->flags & OPF_WRITE && !lun_writes_allowed(cmd->lun)) {
        cmd_fail(cmd, cmd->lun->writable ? SENSE_SOFTWARE_PROTECTED : SENSE_WRITE_PROTECTED);
        return false;
    }
    if (!(op->flags & OPF_MEDIUM))
        return true;
    decode_range(cmd);
    if (!in_range(cmd)) {
        cmd_fail_info(cmd, SENSE_LBA_OUT_OF_RANGE, cmd->lba);
        return false;
    }
    if (op->flags & OPF_TRANSFER && cmd->nr_blocks > LUN_MAX_TRANSFER_BLOCKS) {
        cmd_fail_cdb_field(cmd, op->len.at, -1);
        return false;
    }
    return true;
}

void cmd_run(struct scsi_cmd *cmd)
{
    cmd->phase = PH_NEW;
    if (cmd->lun && cmd->lun->gone)
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
    else if (passes_checks(cmd))
        cmd->op->start(cmd);
}

static void reply_with_buf(struct scsi_cmd *cmd)
{
    int len;

    memset(cmd->buf, 0, SCSI_REPLY_BYTES);
    len = cmd->op->reply(cmd, cmd->buf);
    if (len >= 0)
        cmd_reply(cmd, (uint32_t)len);
}

void scsi_start_reply(struct scsi_cmd *cmd)
{
    cmd_get_buf(cmd, SCSI_REPLY_BYTES, reply_with_buf);
}

static void init_own_fields(struct scsi_cmd *cmd)
{
    uint16_t number;

    cmd->status = SCSI_GOOD;
    cmd->sense_len = 0;
    cmd->transfer_bytes = 0;
    cmd->last_in = NULL;
    cmd->last_in_offset = cmd->last_in_len = cmd->last_in_alloc = 0;
    cmd->aborted = false;
    list_init(&cmd->link);
    list_init(&cmd->park_link);
    list_init(&cmd->buf_waiter.link);
    list_init(&cmd->defer.link);
    list_init(&cmd->io_range.link);
    cmd->io_range.exclusive = false;
    cmd->io_range.go = io_range_free;
    list_init(&cmd->lock.link);
    cmd->lock.exclusive = true;
    cmd->lock.go = lock_free;
    cmd->lun = NULL;
    cmd->to_wlun = scsi_lun_is_report_luns(cmd->lun_field);
    if (!scsi_lun_decode(cmd->lun_field, &number))
        cmd->lun = nexus_find_lun(cmd->nexus, number);
    cmd->op = NULL;
    cmd->lba = cmd->nr_blocks = cmd->moved_bytes = 0;
    cmd->buf = NULL;
    cmd->buf_len = cmd->buf_alloc = 0;
    cmd->park_deadline_ns = 0;
    cmd->phase = PH_NEW;
    cmd->abort_requested = false;
    cmd->borrows = false;
    cmd->aborted_by = NULL;
    cmd->priv = NULL;
}

/* More bytes than the command has are no command; fewer read as zeros, which the row judges. */
static const struct scsi_opcode *find_op(const struct scsi_cmd *cmd, bool *bad_sa)
{
    const struct scsi_opcode *op = scsi_opcode_find(cmd->cdb, bad_sa);

    if (!cmd->cdb_bytes || (cmd->cdb_bytes > 16 && cmd->cdb[0] != SCSI_VARIABLE)) {
        *bad_sa = false;
        return NULL;
    }
    if (cmd->to_wlun)
        return op && op->flags & OPF_WLUN ? op : NULL;
    return op && scsi_opcode_on_lun(op, cmd->lun) ? op : NULL;
}

static void cmd_fail_bad_sa(struct scsi_cmd *cmd)
{
    if (cmd->cdb[0] == SCSI_VARIABLE)
        cmd_fail_cdb_field(cmd, 8, -1);
    else
        cmd_fail_cdb_field(cmd, 1, 4);
}

bool cmd_take_ua(struct scsi_cmd *cmd, enum ua_kind *ua)
{
    return nexus_take_ua(cmd->nexus, cmd->lun ? cmd->lun->number : SCSI_WLUN_REPORT_LUNS, ua);
}

void scsi_cmd_start(struct scsi_cmd *cmd)
{
    enum ua_kind ua;
    bool bad_sa;

    init_own_fields(cmd);
    cmd->op = find_op(cmd, &bad_sa);
    if (!cmd->lun && !cmd->to_wlun && !(cmd->op && cmd->op->flags & OPF_NO_LUN)) {
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
        return;
    }
    if (cmd->lun && cmd->lun->nr_commands >= LUN_MAX_COMMANDS) {
        cmd->lun = NULL; /* it never was one of the LUN's */
        end_busy(cmd, SCSI_TASK_SET_FULL);
        return;
    }
    if (cmd->lun)
        lun_enter(cmd->lun, cmd);
    if ((!cmd->op || cmd->op->ua == UA_REPORT) && cmd_take_ua(cmd, &ua))
        cmd_fail(cmd, SENSE_UA_FIRST + ua);
    else if (!cmd->op && bad_sa)
        cmd_fail_bad_sa(cmd);
    else if (!cmd->op)
        cmd_fail(cmd, SENSE_INVALID_OPCODE);
    else if (!cmd->lun || !lun_hold(cmd->lun, cmd))
        cmd_run(cmd);
}

void scsi_cmd_abort(struct scsi_cmd *cmd)
{
    cmd->abort_requested = true;
    switch ((enum cmd_phase)cmd->phase) {
    case PH_WAIT_BUF:
        bufpool_unwait(&cmd->buf_waiter);
        cmd_end(cmd);
        break;
    case PH_PARKED:
        lun_unpark(cmd->lun, cmd);
        cmd_end(cmd);
        break;
    case PH_HELD:
        lun_unhold(cmd->lun, cmd);
        cmd_end(cmd);
        break;
    case PH_RANGE:
        if (list_is_linked(&cmd->io_range.link))
            lun_range_leave(cmd->lun, &cmd->io_range);
        cmd_unlock(cmd);
        cmd_end(cmd);
        break;
    case PH_NEW:
    case PH_DATA_OUT:
        cmd_end(cmd);
        break;
    case PH_DATA_IN: /* ends when the transport has let go of the chunk */
    case PH_IO:      /* ... when the disk has let go of the buffer */
    case PH_WALK:    /* ... when the coroutine sees it */
    case PH_ENDING:
        break;
    }
}
