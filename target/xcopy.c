/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4 6.4, 6.18 and on): block to block between
 * LUNs of this target that the nexus may reach itself. All of the list is checked before the first
 * block moves. Every step asks again whether both LUNs are still there and still open to the nexus.
 */
#include "target/xcopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "target/scsi-cmd.h"
#include "target/nexus.h"
#include "target/target-int.h"
#include "util/byteorder.h"
#include "util/size.h"

#define HDR_BYTES   16
#define CHUNK_BYTES BUFPOOL_MAX_BYTES

/* LIST ID USAGE */
enum { USAGE_KEEP = 0, USAGE_RESERVED = 1, USAGE_MAY_DISCARD = 2, USAGE_NO_ID = 3 };

struct segment {
    uint16_t from, to; /* LUN numbers */
    uint64_t from_lba, to_lba, blocks;
};

struct xcopy {
    struct scsi_cmd *cmd;
    uint8_t list_id, usage;
    struct xcopy_result *result; /* NULL: none is kept; not ours any more unless it runs us */
    uint16_t targets[XCOPY_MAX_TARGETS]; /* LUN numbers */
    unsigned nr_targets, nr_segments, done_segments;
    uint64_t done_bytes;
    struct segment segments[XCOPY_MAX_SEGMENTS];
};

/* ---- moving blocks ---- */

struct wait_range {
    struct lun_range range;
    struct coroutine *co;
};

static void range_granted(struct lun_range *r)
{
    co_wake(container_of(r, struct wait_range, range)->co);
}

/* One request under its range of the medium, as a command's own. */
static int co_move(struct lun *lun, uint64_t off, void *buf, uint32_t len, bool write)
{
    struct wait_range w = {
        .range = {.start = off, .end = off + len, .go = range_granted},
        .co = co_self(),
    };
    struct blk_node *node;
    int ret;

    if (!lun_range_enter(lun, &w.range))
        co_yield ();
    co_blk_head_enter(&lun->head);
    node = blk_head_node(&lun->head);
    if (write)
        ret = co_blk_write(node, off, buf, len, lun->mode.write_cache ? 0 : BLK_FUA);
    else
        ret = co_blk_read(node, off, buf, len, 0);
    blk_head_exit(&lun->head);
    lun_range_leave(lun, &w.range);
    return ret;
}

static bool usable(const struct lun *lun, const struct nexus *n, bool write)
{
    struct sense s = {.id = SENSE_NONE};

    if (!nexus_may_reach(n, lun) || lun_access_forbidden(lun, n, write) ||
        (write && !lun_writes_allowed(lun)))
        return false;
    scsi_not_ready(lun, &s);
    return s.id == SENSE_NONE;
}

static enum sense_id co_copy(struct xcopy *x, struct lun *from, struct lun *to,
                             const struct segment *s)
{
    uint64_t left = lun_blocks_to_bytes(from, s->blocks);
    uint64_t src = lun_blocks_to_bytes(from, s->from_lba);
    uint64_t dst = lun_blocks_to_bytes(to, s->to_lba);
    struct scsi_cmd *cmd = x->cmd;

    while (left && !cmd->abort_requested) {
        uint32_t len = (uint32_t)MIN_OF(left, (uint64_t)CHUNK_BYTES);

        if (!usable(from, cmd->nexus, false) || !usable(to, cmd->nexus, true))
            return SENSE_COPY_NO_TARGET;
        if (co_move(from, src, cmd->buf, len, false) || to->gone ||
            co_move(to, dst, cmd->buf, len, true))
            return SENSE_COPY_FAILED;
        from->stats.read_bytes += len;
        to->stats.written_bytes += len;
        x->done_bytes += len;
        src += len;
        dst += len;
        left -= len;
    }
    return SENSE_NONE;
}

/* Overlap in one LUN needs no care here: the standard leaves the outcome open. */
static enum sense_id co_segment(struct xcopy *x, const struct segment *s)
{
    struct lun *from = nexus_find_lun(x->cmd->nexus, s->from);
    struct lun *to = nexus_find_lun(x->cmd->nexus, s->to);
    enum sense_id id;

    if (!from || !to)
        return SENSE_COPY_NO_TARGET;
    lun_pin(from);
    lun_pin(to);
    id = co_copy(x, from, to, s);
    lun_unpin(to);
    lun_unpin(from);
    return id;
}

/* ---- what RECEIVE COPY RESULTS tells ---- */

static struct xcopy_result *find_result(struct lun *lun, const struct nexus *n, uint8_t list_id)
{
    for (unsigned i = 0; i < LUN_KEPT_COPIES; i++) {
        if (lun->copies[i].by == n && lun->copies[i].list_id == list_id)
            return &lun->copies[i];
    }
    return NULL;
}

/* NULL: copies that are at work have all places. */
static struct xcopy_result *place_for_result(struct lun *lun)
{
    for (unsigned i = 0; i < LUN_KEPT_COPIES; i++) {
        struct xcopy_result *r = &lun->copies[lun->next_copy++ % LUN_KEPT_COPIES];

        if (!r->running)
            return r;
    }
    return NULL;
}

/*
 * False: the identifier is that of a copy at work, and the command has ended (SPC-4 6.4.3.2). Those
 * that let their results be discarded need none of their own: QEMU has one for all its copies.
 */
static bool begin_result(struct xcopy *x)
{
    struct lun *lun = x->cmd->lun;
    struct xcopy_result *r = find_result(lun, x->cmd->nexus, x->list_id);

    if (x->usage == USAGE_NO_ID)
        return true;
    if (r && r->running && x->usage == USAGE_KEEP) {
        cmd_fail(x->cmd, SENSE_OPERATION_IN_PROGRESS);
        return false;
    }
    if (r && r->running)
        return true;
    x->result = r ? r : place_for_result(lun);
    if (x->result)
        *x->result =
            (struct xcopy_result){.by = x->cmd->nexus, .running = x, .list_id = x->list_id};
    return true;
}

static void note_progress(const struct xcopy *x)
{
    if (!x->result)
        return;
    x->result->segments = (uint16_t)x->done_segments;
    x->result->bytes = x->done_bytes;
}

/* The command has ended, or is about to. */
static void end_result(const struct xcopy *x)
{
    const struct scsi_cmd *cmd = x->cmd;
    struct xcopy_result *r = x->result;

    if (!r)
        return;
    note_progress(x);
    r->running = NULL;
    if (cmd->abort_requested)
        r->by = NULL;
    r->status = cmd->status;
    r->sense_len = (uint8_t)MIN_OF(cmd->sense_len, (uint16_t)sizeof(r->sense));
    memcpy(r->sense, cmd->sense, r->sense_len);
}

static void co_xcopy(void *arg)
{
    struct xcopy *x = arg;
    struct scsi_cmd *cmd = x->cmd;
    struct lun *lun = cmd->lun;
    enum sense_id id = SENSE_NONE;

    lun_pin(lun);
    while (x->done_segments < x->nr_segments && id == SENSE_NONE && !cmd->abort_requested) {
        id = co_segment(x, &x->segments[x->done_segments]);
        x->done_segments += id == SENSE_NONE;
        note_progress(x);
    }
    if (id != SENSE_NONE)
        cmd_fail(cmd, id);
    else
        cmd_good(cmd);
    end_result(x);
    lun_unpin(lun);
}

static void start_copy(struct scsi_cmd *cmd)
{
    if (!begin_result(cmd->priv))
        return;
    cmd->phase = PH_WALK;
    co_spawn(co_xcopy, cmd->priv);
}

/* ---- the list ---- */

/* Each of these: false, and the command has ended. */

static bool parse_target(struct xcopy *x, const uint8_t *d, uint16_t at)
{
    struct scsi_cmd *cmd = x->cmd;
    const struct lun *lun;

    if (d[0] != XCOPY_TARGET_ID) {
        cmd_fail(cmd, SENSE_BAD_TARGET_TYPE);
        return false;
    }
    list_for_each_entry (lun, &cmd->nexus->target->luns, link) {
        if (nexus_may_reach(cmd->nexus, lun) && vpd_designates(lun, d + 4))
            break;
    }
    if (&lun->link == &cmd->nexus->target->luns) {
        cmd_fail(cmd, SENSE_COPY_NO_TARGET);
        return false;
    }
    if (d[1] & 0x1f || (uint32_t)get_be24(d + 29) != lun_block_bytes(lun)) {
        cmd_fail_param_field(cmd, (uint16_t)(at + (d[1] & 0x1f ? 1 : 29)));
        return false;
    }
    x->targets[x->nr_targets++] = lun->number;
    return true;
}

static bool segment_fits(const struct xcopy *x, const struct segment *s)
{
    struct target *t = x->cmd->nexus->target;
    const struct lun *from = target_find_lun(t, s->from), *to = target_find_lun(t, s->to);

    return from->block_shift == to->block_shift && s->from_lba <= from->capacity_blocks &&
           s->blocks <= from->capacity_blocks - s->from_lba && s->to_lba <= to->capacity_blocks &&
           s->blocks <= to->capacity_blocks - s->to_lba &&
           lun_blocks_to_bytes(from, s->blocks) <= XCOPY_MAX_SEGMENT_BYTES;
}

static bool parse_segment(struct xcopy *x, const uint8_t *d, uint16_t at)
{
    struct segment *s = &x->segments[x->nr_segments];
    unsigned from = get_be16(d + 4), to = get_be16(d + 6);

    if (get_be16(d + 2) != XCOPY_SEGMENT_BYTES - 4) {
        cmd_fail_param_field(x->cmd, (uint16_t)(at + 2));
        return false;
    }
    if (from >= x->nr_targets || to >= x->nr_targets) {
        cmd_fail(x->cmd, SENSE_COPY_NO_TARGET);
        return false;
    }
    *s = (struct segment){
        .from = x->targets[from],
        .to = x->targets[to],
        .from_lba = get_be64(d + 12),
        .to_lba = get_be64(d + 20),
        .blocks = get_be16(d + 10),
    };
    if (!segment_fits(x, s)) {
        cmd_fail(x->cmd, SENSE_COPY_RANGE);
        return false;
    }
    x->nr_segments++;
    return true;
}

static bool parse_segments(struct xcopy *x, uint32_t at, uint32_t end)
{
    for (; at < end; at += XCOPY_SEGMENT_BYTES) {
        if (x->cmd->buf[at] != XCOPY_SEG_BLOCKS) {
            cmd_fail(x->cmd, SENSE_BAD_SEGMENT_TYPE);
            return false;
        }
        if (end - at < XCOPY_SEGMENT_BYTES) {
            cmd_fail(x->cmd, SENSE_PARAM_LIST_LENGTH);
            return false;
        }
        if (x->nr_segments == XCOPY_MAX_SEGMENTS) {
            cmd_fail(x->cmd, SENSE_TOO_MANY_SEGMENTS);
            return false;
        }
        if (!parse_segment(x, x->cmd->buf + at, (uint16_t)at))
            return false;
    }
    return true;
}

static bool parse_list(struct xcopy *x)
{
    struct scsi_cmd *cmd = x->cmd;
    const uint8_t *list = cmd->buf;
    uint32_t targets = get_be16(list + 2), segments = get_be32(list + 8);

    x->list_id = list[0];
    x->usage = list[1] >> 3 & 3;
    if (x->usage == USAGE_RESERVED || (x->usage == USAGE_NO_ID && x->list_id)) {
        cmd_fail_param_field(cmd, x->usage == USAGE_RESERVED ? 1 : 0);
        return false;
    }
    if (targets % XCOPY_TARGET_BYTES || segments > cmd->buf_len ||
        targets + segments > XCOPY_MAX_LIST_BYTES ||
        HDR_BYTES + targets + segments > cmd->buf_len) {
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
        return false;
    }
    if (get_be32(list + 12)) { /* INLINE DATA LENGTH */
        cmd_fail_param_field(cmd, 12);
        return false;
    }
    if (targets / XCOPY_TARGET_BYTES > XCOPY_MAX_TARGETS) {
        cmd_fail(cmd, SENSE_TOO_MANY_TARGETS);
        return false;
    }
    for (uint32_t at = HDR_BYTES; at < HDR_BYTES + targets; at += XCOPY_TARGET_BYTES) {
        if (!parse_target(x, list + at, (uint16_t)at))
            return false;
    }
    if (segments / XCOPY_SEGMENT_BYTES > XCOPY_MAX_SEGMENTS) {
        cmd_fail(cmd, SENSE_TOO_MANY_SEGMENTS);
        return false;
    }
    return parse_segments(x, HDR_BYTES + targets, HDR_BYTES + targets + segments);
}

static void with_list(struct scsi_cmd *cmd)
{
    struct xcopy *x = calloc(1, sizeof(*x));

    if (!x) {
        cmd_fail_errno(cmd, -ENOMEM);
        return;
    }
    cmd->priv = x;
    cmd->moved_bytes = cmd->buf_len;
    x->cmd = cmd;
    if (!parse_list(x))
        return;
    cmd_put_buf(cmd);
    cmd_get_buf(cmd, CHUNK_BYTES, start_copy);
}

static void fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, with_list);
}

void spc_extended_copy(struct scsi_cmd *cmd)
{
    uint64_t len = cdb_get(cmd->cdb, cmd->op->len);

    cmd->transfer_bytes = len;
    if (!len)
        cmd_good(cmd);
    else if (len < HDR_BYTES || len > HDR_BYTES + 2 * XCOPY_MAX_LIST_BYTES ||
             len > cmd_expected_bytes(cmd))
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
    else
        cmd_get_buf(cmd, (uint32_t)len, fetch);
}

/* ---- RECEIVE COPY RESULTS ---- */

enum { COPY_AT_WORK = 0, COPY_DONE = 1, COPY_FAILED = 2 };

int spc_copy_status(struct scsi_cmd *cmd, uint8_t *buf)
{
    const struct xcopy_result *r = find_result(cmd->lun, cmd->nexus, cmd->cdb[2]);

    if (!r) {
        cmd_fail_cdb_field(cmd, 2, -1);
        return -1;
    }
    put_be32(buf, 12 - 4);
    buf[4] = r->running ? COPY_AT_WORK : r->status == SCSI_GOOD ? COPY_DONE : COPY_FAILED;
    put_be16(buf + 5, r->segments);
    buf[7] = 0x01; /* TRANSFER COUNT is in KiB */
    put_be32(buf + 8, (uint32_t)(r->bytes >> 10));
    return 12;
}

/* SPC-4 6.21: of a copy that failed; what is told once is kept no longer. */
int spc_copy_failure(struct scsi_cmd *cmd, uint8_t *buf)
{
    struct xcopy_result *r = find_result(cmd->lun, cmd->nexus, cmd->cdb[2]);

    if (!r || r->running || r->status == SCSI_GOOD) {
        cmd_fail_cdb_field(cmd, 2, -1);
        return -1;
    }
    put_be32(buf, 60u - 4 + r->sense_len);
    buf[56] = r->status;
    put_be16(buf + 58, r->sense_len);
    memcpy(buf + 60, r->sense, r->sense_len);
    r->by = NULL;
    return 60 + r->sense_len;
}

int spc_copy_parameters(struct scsi_cmd *cmd, uint8_t *buf)
{
    static const uint8_t types[] = {XCOPY_SEG_BLOCKS, XCOPY_TARGET_ID};

    put_be32(buf, 44 + sizeof(types) - 4);
    put_be16(buf + 8, XCOPY_MAX_TARGETS);
    put_be16(buf + 10, XCOPY_MAX_SEGMENTS);
    put_be32(buf + 12, XCOPY_MAX_LIST_BYTES);
    put_be32(buf + 16, XCOPY_MAX_SEGMENT_BYTES);
    put_be16(buf + 34, XCOPY_MAX_COPIES);
    buf[36] = XCOPY_MAX_COPIES;
    buf[37] = cmd->lun->block_shift; /* DATA SEGMENT GRANULARITY */
    buf[43] = sizeof(types);
    memcpy(buf + 44, types, sizeof(types));
    return 44 + sizeof(types);
}
