/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SANITIZE (SBC-3 5.24 and 4.11) and FORMAT UNIT. An operation goes on whatever becomes of its
 * command and its nexus; until it ends, commands that need the medium are told NOT READY. If it
 * fails the medium stays unusable until another one succeeds or the failure is acknowledged.
 *
 * Refused, and not reported as supported, where another layer lies below: what it holds would come
 * through, or stay.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "target/scsi-cmd.h"
#define LOG_AREA "scsi"
#include "target/target-int.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

enum { SA_OVERWRITE = 0x01, SA_BLOCK_ERASE = 0x02, SA_EXIT_FAILURE = 0x1f };
enum { SANITIZE_IMMED = 0x80, SANITIZE_AUSE = 0x20 };
enum { OVERWRITE_INVERT = 0x80 };

#define OVERWRITE_HDR_BYTES 4
#define STEP_BYTES          (1u << 20)

struct sanitize {
    struct scsi_cmd *cmd; /* to be answered; NULL: it was, or it is gone */
    struct lun *lun;
    bool erase, invert;
    unsigned passes; /* of writing */
    uint64_t done_bytes, all_bytes;
    uint8_t *buf; /* STEP_BYTES of the pattern */
};

/* ---- the work ---- */

static void let_go_if_aborted(struct sanitize *s)
{
    if (s->cmd && s->cmd->abort_requested) {
        cmd_end(s->cmd);
        s->cmd = NULL;
    }
}

static int co_step(struct sanitize *s, uint64_t off, uint64_t bytes)
{
    struct blk_node *node = blk_head_node(&s->lun->head);
    int ret;

    co_blk_head_enter(&s->lun->head);
    if (s->erase)
        ret = co_blk_write_zeroes(node, off, bytes, BLK_MAY_UNMAP);
    else
        ret = co_blk_write(node, off, s->buf, bytes, 0);
    blk_head_exit(&s->lun->head);
    s->done_bytes += bytes;
    let_go_if_aborted(s);
    co_pause();
    return ret;
}

static int co_pass(struct sanitize *s)
{
    uint64_t size = lun_blocks_to_bytes(s->lun, s->lun->capacity_blocks);
    uint64_t step = s->erase ? 64 * (uint64_t)STEP_BYTES : STEP_BYTES;
    int ret = 0;

    for (uint64_t off = 0; off < size && !ret; off += step)
        ret = s->lun->gone ? -ENODEV : co_step(s, off, MIN_OF(step, size - off));
    return ret;
}

static int co_flush(struct sanitize *s)
{
    int ret;

    co_blk_head_enter(&s->lun->head);
    ret = co_blk_flush(blk_head_node(&s->lun->head));
    blk_head_exit(&s->lun->head);
    return ret;
}

static void invert(uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        b[i] = (uint8_t)~b[i];
}

/* Each pass is on the medium before the next begins; with INVERT the last is the pattern itself. */
static int co_all_passes(struct sanitize *s)
{
    int ret = 0;

    if (s->invert && s->passes % 2 == 0)
        invert(s->buf, STEP_BYTES);
    for (unsigned i = 0; i < s->passes && !ret; i++) {
        ret = co_pass(s);
        if (!ret)
            ret = co_flush(s);
        if (s->invert)
            invert(s->buf, STEP_BYTES);
    }
    return ret;
}

static bool others_at_work(const struct lun *lun)
{
    const struct scsi_cmd *cmd;

    list_for_each_entry (cmd, &lun->commands, link) {
        if (cmd->op && cmd->op->flags & OPF_READY)
            return true;
    }
    return false;
}

/* Commands that use the medium already end first; others are refused from now on. */
static void co_wait_for_others(struct sanitize *s)
{
    while (others_at_work(s->lun) && !s->lun->gone) {
        co_queue_wait(&s->lun->command_left);
        let_go_if_aborted(s);
    }
}

static void co_sanitize(void *arg)
{
    struct sanitize *s = arg;
    struct lun *lun = s->lun;
    int ret;

    lun_pin(lun);
    co_wait_for_others(s);
    ret = co_all_passes(s);
    lun->sanitize_failed = ret != 0;
    lun->sanitize = NULL;
    if (ret)
        log_err("LUN %u of %s: SANITIZE failed: %s", lun->number, target_name(lun->target),
                strerror(-ret));
    else
        log_notice("LUN %u of %s is sanitized", lun->number, target_name(lun->target));
    if (s->cmd && ret)
        cmd_fail(s->cmd, SENSE_SANITIZE_FAILED);
    else if (s->cmd)
        cmd_good(s->cmd);
    free(s->buf);
    free(s);
    lun_unpin(lun);
}

void scsi_not_ready(const struct lun *lun, struct sense *s)
{
    const struct sanitize *z = lun->sanitize;

    if (z) {
        s->id = SENSE_SANITIZING;
        s->has_progress = true;
        s->progress = (uint16_t)(z->done_bytes * 65535 / MAX_OF(z->all_bytes, 1));
    } else if (lun->sanitize_failed) {
        s->id = SENSE_SANITIZE_FAILED;
    } else if (lun->ejected) {
        s->id = SENSE_NO_MEDIUM;
    }
}

/* ---- the command ---- */

bool lun_has_layer_below(const struct lun *lun)
{
    const struct blk_node *node = blk_head_node(&lun->head);

    for (; node; node = node->file.child) {
        if (node->backing.child)
            return true;
    }
    return false;
}

/* Takes @s over. */
static void launch(struct scsi_cmd *cmd, struct sanitize *s)
{
    struct lun *lun = cmd->lun;

    s->lun = lun;
    s->all_bytes = s->passes * lun_blocks_to_bytes(lun, lun->capacity_blocks);
    lun->sanitize = s;
    lun->sanitize_may_exit = cmd->cdb[1] & SANITIZE_AUSE;
    if (cmd->cdb[1] & SANITIZE_IMMED) {
        cmd_good(cmd);
    } else {
        s->cmd = cmd;
        cmd->phase = PH_WALK;
    }
    co_spawn(co_sanitize, s);
}

static void overwrite_with_list(struct scsi_cmd *cmd)
{
    const uint8_t *list = cmd->buf;
    uint32_t pattern = get_be16(list + 2);
    struct sanitize *s;

    cmd->moved_bytes = cmd->buf_len;
    if (!(list[0] & 0x1f) || list[0] & 0x60) { /* OVERWRITE COUNT, TEST */
        cmd_fail_cdb_field(cmd, 7, -1);
        return;
    }
    if (!pattern || pattern > lun_block_bytes(cmd->lun) ||
        pattern != cmd->buf_len - OVERWRITE_HDR_BYTES) {
        cmd_fail_cdb_field(cmd, 7, -1);
        return;
    }
    s = calloc(1, sizeof(*s));
    if (s)
        s->buf = malloc(STEP_BYTES);
    if (!s || !s->buf) {
        free(s);
        cmd_fail_errno(cmd, -ENOMEM);
        return;
    }
    /* the pattern begins anew with each block */
    for (uint32_t i = 0, block = lun_block_bytes(cmd->lun); i < STEP_BYTES; i++)
        s->buf[i] = list[OVERWRITE_HDR_BYTES + (i & (block - 1)) % pattern];
    s->invert = list[0] & OVERWRITE_INVERT;
    s->passes = list[0] & 0x1f;
    launch(cmd, s);
}

static void overwrite_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, overwrite_with_list);
}

static void start_overwrite(struct scsi_cmd *cmd, uint64_t len)
{
    if (len <= OVERWRITE_HDR_BYTES || len > OVERWRITE_HDR_BYTES + lun_block_bytes(cmd->lun) ||
        len > cmd_expected_bytes(cmd)) {
        cmd_fail_cdb_field(cmd, 7, -1);
        return;
    }
    cmd->transfer_bytes = len;
    cmd_get_buf(cmd, (uint32_t)len, overwrite_fetch);
}

static void start_erase(struct scsi_cmd *cmd)
{
    struct sanitize *s = calloc(1, sizeof(*s));

    if (!s) {
        cmd_fail_errno(cmd, -ENOMEM);
        return;
    }
    s->erase = true;
    s->passes = 1;
    launch(cmd, s);
}

static void exit_failure_mode(struct scsi_cmd *cmd)
{
    if (cmd->lun->sanitize_failed && !cmd->lun->sanitize_may_exit) {
        cmd_fail(cmd, SENSE_SANITIZE_FAILED);
        return;
    }
    cmd->lun->sanitize_failed = false;
    cmd_good(cmd);
}

static void refuse_layers(struct scsi_cmd *cmd)
{
    log_notice("LUN %u of %s: SANITIZE refused: what the layers below hold would stay",
               cmd->lun->number, target_name(cmd->lun->target));
    cmd_fail(cmd, SENSE_LAYERS_BELOW);
}

void sbc_sanitize(struct scsi_cmd *cmd)
{
    unsigned action = cmd->cdb[1] & 0x1f;
    uint64_t len = cdb_get(cmd->cdb, cmd->op->len);

    if (cmd->lun->sanitize)
        cmd_fail(cmd, SENSE_SANITIZING);
    else if (cmd->lun->ejected)
        cmd_fail(cmd, SENSE_NO_MEDIUM);
    else if (action != SA_OVERWRITE && len)
        cmd_fail_cdb_field(cmd, 7, -1);
    else if (action == SA_EXIT_FAILURE)
        exit_failure_mode(cmd);
    else if (lun_has_layer_below(cmd->lun))
        refuse_layers(cmd);
    else if (action == SA_OVERWRITE)
        start_overwrite(cmd, len);
    else
        start_erase(cmd);
}

/*
 * FORMAT UNIT, SBC-3 5.4: the medium needs none and has no defects. Without parameters it is as
 * formatted as it can be: all data becomes what is never written, zeros; a chain's new top hides
 * what is below.
 */
static void format_zero(struct scsi_cmd *cmd);

static void format_done(struct scsi_cmd *cmd)
{
    cmd->lba += cmd->req.length_bytes >> cmd->lun->block_shift;
    if (cmd->req.result)
        cmd_fail(cmd, SENSE_INTERNAL_FAILURE);
    else if (cmd->lba < cmd->lun->capacity_blocks)
        format_zero(cmd);
    else
        cmd_flush(cmd);
}

static void format_zero(struct scsi_cmd *cmd)
{
    uint64_t left = lun_blocks_to_bytes(cmd->lun, cmd->lun->capacity_blocks - cmd->lba);

    cmd_io(cmd, BLK_WRITE_ZEROES, BLK_MAY_UNMAP, cmd_lba_bytes(cmd),
           MIN_OF(left, 64 * (uint64_t)STEP_BYTES), NULL, format_zero, format_done);
}

void sbc_format_unit(struct scsi_cmd *cmd)
{
    if (cmd->cdb[1]) /* FMTPINFO, LONGLIST, FMTDATA, CMPLST, DEFECT LIST FORMAT */
        cmd_fail_cdb_field(cmd, 1, 7);
    else
        format_zero(cmd);
}
