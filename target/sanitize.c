/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SANITIZE (SBC-3 5.24 and 4.11) and FORMAT UNIT. An operation goes on whatever becomes of its
 * command and its nexus; until it ends, commands that need the medium are told NOT READY. If it
 * fails the medium stays unusable until another one succeeds or (SANITIZE) the failure is
 * acknowledged.
 *
 * SANITIZE is refused, and not reported as supported, where another layer lies below: what it holds
 * would come through, or stay.
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
    bool format, erase, invert;
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
    lun->sanitize_failed = ret && !s->format;
    lun->format_failed = ret && s->format;
    lun->sanitize = NULL;
    if (ret)
        log_err("LUN %u of %s: %s failed: %s", lun->number, target_name(lun->target),
                s->format ? "FORMAT UNIT" : "SANITIZE", strerror(-ret));
    else
        log_notice("LUN %u of %s is %s", lun->number, target_name(lun->target),
                   s->format ? "formatted" : "sanitized");
    if (s->cmd && ret)
        cmd_fail(s->cmd, s->format ? SENSE_FORMAT_FAILED : SENSE_SANITIZE_FAILED);
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
        s->id = z->format ? SENSE_FORMATTING : SENSE_SANITIZING;
        s->has_progress = true;
        s->progress = (uint16_t)(z->done_bytes * 65535 / MAX_OF(z->all_bytes, 1));
    } else if (lun->sanitize_failed) {
        s->id = SENSE_SANITIZE_FAILED;
    } else if (lun->format_failed) {
        s->id = SENSE_FORMAT_FAILED;
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

/* Takes @s over. @immed: the command ends at once. */
static void launch(struct scsi_cmd *cmd, struct sanitize *s, bool immed)
{
    struct lun *lun = cmd->lun;

    s->lun = lun;
    s->all_bytes = s->passes * lun_blocks_to_bytes(lun, lun->capacity_blocks);
    lun->sanitize = s;
    lun->sanitize_may_exit = !s->format && cmd->cdb[1] & SANITIZE_AUSE;
    if (immed) {
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
    launch(cmd, s, cmd->cdb[1] & SANITIZE_IMMED);
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

static void start_erase(struct scsi_cmd *cmd, bool format, bool immed)
{
    struct sanitize *s = calloc(1, sizeof(*s));

    if (!s) {
        cmd_fail_errno(cmd, -ENOMEM);
        return;
    }
    s->format = format;
    s->erase = true;
    s->passes = 1;
    launch(cmd, s, immed);
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
        cmd_fail(cmd, cmd->lun->sanitize->format ? SENSE_FORMATTING : SENSE_SANITIZING);
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
        start_erase(cmd, false, cmd->cdb[1] & SANITIZE_IMMED);
}

/*
 * FORMAT UNIT, SBC-3 5.4: the medium needs none and has no defects, so there is nothing to give it
 * but a header. It is as formatted as it can be when all data has become what is never written,
 * zeros; a chain's new top hides what is below.
 */

enum { FORMAT_LONGLIST = 0x20, FORMAT_FMTDATA = 0x10 };
enum { FORMAT_FOV = 0x80, FORMAT_ONLY_WITH_FOV = 0x7c, FORMAT_IP = 0x08, FORMAT_IMMED = 0x02 };

static uint32_t format_header_bytes(const struct scsi_cmd *cmd)
{
    return cmd->cdb[1] & FORMAT_LONGLIST ? 8 : 4;
}

/* The first byte of the header that can't be as it is, or -1. */
static int bad_format_byte(const uint8_t *list, bool is_long)
{
    if (list[0] & 0x07) /* PROTECTION FIELD USAGE */
        return 0;
    if (list[1] & FORMAT_IP || (!(list[1] & FORMAT_FOV) && list[1] & FORMAT_ONLY_WITH_FOV))
        return 1;
    if (is_long && list[3]) /* P_I_INFORMATION, PROTECTION INTERVAL EXPONENT */
        return 3;
    if (is_long ? get_be32(list + 4) : get_be16(list + 2)) /* DEFECT LIST LENGTH */
        return is_long ? 4 : 2;
    return -1;
}

static void format_with_list(struct scsi_cmd *cmd)
{
    int bad = bad_format_byte(cmd->buf, cmd->cdb[1] & FORMAT_LONGLIST);

    cmd->moved_bytes = cmd->buf_len;
    if (bad >= 0)
        cmd_fail_param_field(cmd, (uint16_t)bad);
    else
        start_erase(cmd, true, cmd->buf[1] & FORMAT_IMMED);
}

static void format_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, format_header_bytes(cmd), format_with_list);
}

/* FMTPINFO is refused by the command's usage map. */
void sbc_format_unit(struct scsi_cmd *cmd)
{
    static const uint8_t list_formats = 1u << 0 | 1u << 3 | 1u << 4 | 1u << 5;
    uint32_t hdr = format_header_bytes(cmd);
    struct sense s = {.id = SENSE_NONE};

    scsi_not_ready(cmd->lun, &s);
    if (s.id != SENSE_NONE && s.id != SENSE_FORMAT_FAILED)
        cmd_fail(cmd, s.id);
    else if (!(list_formats >> (cmd->cdb[1] & 0x07) & 1))
        cmd_fail_cdb_field(cmd, 1, 2);
    else if (!(cmd->cdb[1] & FORMAT_FMTDATA) && cmd->cdb[1]) /* they are said of a list */
        cmd_fail_cdb_field(cmd, 1, 5);
    else if (!cmd->cdb[1])
        start_erase(cmd, true, false);
    else if (cmd_expected_bytes(cmd) < hdr)
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
    else {
        cmd->transfer_bytes = hdr;
        cmd_get_buf(cmd, hdr, format_fetch);
    }
}
