/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UNMAP and WRITE SAME. UNMAP's whole list is checked before the first range is touched. Both work
 * in bounded steps, one request at a time, so that an abort is heard in between.
 */
#include <errno.h>
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

/* ---- UNMAP, SBC-3 5.28 ---- */

#define UNMAP_HDR_BYTES  8
#define UNMAP_DESC_BYTES 16
#define UNMAP_ANCHOR     0x01
#define UNMAP_MAX_BYTES  (UNMAP_HDR_BYTES + LUN_MAX_UNMAP_DESCS * UNMAP_DESC_BYTES)

/* cmd->nr_blocks is the number of descriptors, cmd->lba the next one: the CDB has neither field. */

static uint8_t *unmap_desc(const struct scsi_cmd *cmd, uint64_t i)
{
    return cmd->buf + UNMAP_HDR_BYTES + i * UNMAP_DESC_BYTES;
}

static uint32_t cache_flags(const struct scsi_cmd *cmd)
{
    return cmd->lun->mode.write_cache ? 0 : BLK_FUA;
}

static void unmap_next(struct scsi_cmd *cmd);

/* The part that is done leaves its descriptor. A disk that can do neither keeps the data: UNMAP is
 * a request, not an order. */
static void unmap_done(struct scsi_cmd *cmd)
{
    uint32_t done = (uint32_t)(cmd->req.length_bytes >> cmd->lun->block_shift);
    uint8_t *d = unmap_desc(cmd, cmd->lba);

    put_be64(d, get_be64(d) + done);
    put_be32(d + 8, get_be32(d + 8) - done);
    unmap_next(cmd);
}

/*
 * Whole allocation units are given back; what sticks out at either end is zeroed, so that all of
 * it reads zeros as LBPRZ says, whatever the unit.
 */
static void unmap_part(struct scsi_cmd *cmd, uint64_t off, uint64_t end)
{
    const struct blk_node *node = blk_head_node(&cmd->lun->head);
    bool anchor = cmd->cdb[1] & UNMAP_ANCHOR;
    uint64_t unit = MAX_OF(node->limits.granularity_bytes, 1u);
    uint64_t first = round_up_pow2(off, unit);
    uint64_t last = end == node->size_bytes ? end : round_down_pow2(end, unit);

    if (anchor) {
        cmd_io(cmd, BLK_WRITE_ZEROES, BLK_ANCHOR | cache_flags(cmd), off, end - off, NULL,
               unmap_next, unmap_done);
        return;
    }
    if (first < last && off == first) {
        cmd_io(cmd, BLK_DISCARD, 0, off, last - off, NULL, unmap_next, unmap_done);
        return;
    }
    if (first < last && off < first)
        end = first;
    cmd_io(cmd, BLK_WRITE_ZEROES, BLK_MAY_UNMAP | cache_flags(cmd), off, end - off, NULL,
           unmap_next, unmap_done);
}

static void unmap_next(struct scsi_cmd *cmd)
{
    for (; cmd->lba < cmd->nr_blocks; cmd->lba++) {
        const uint8_t *d = unmap_desc(cmd, cmd->lba);
        uint64_t off = lun_blocks_to_bytes(cmd->lun, get_be64(d));
        uint64_t bytes = lun_blocks_to_bytes(cmd->lun, get_be32(d + 8));

        if (!bytes)
            continue;
        unmap_part(cmd, off, off + bytes);
        return;
    }
    if (cmd->lun->mode.write_cache)
        cmd_good(cmd);
    else
        cmd_flush(cmd); /* DISCARD has no FUA */
}

/* False: the command has ended. */
static bool unmap_list_ok(struct scsi_cmd *cmd)
{
    const struct lun *lun = cmd->lun;
    uint64_t total_blocks = 0;

    for (uint64_t i = 0; i < cmd->nr_blocks; i++) {
        const uint8_t *d = unmap_desc(cmd, i);
        uint64_t lba = get_be64(d), blocks = get_be32(d + 8);

        if (lba > lun->capacity_blocks || blocks > lun->capacity_blocks - lba) {
            cmd_fail_info(cmd, SENSE_LBA_OUT_OF_RANGE, lba);
            return false;
        }
        total_blocks += blocks;
        if (total_blocks > LUN_MAX_UNMAP_BYTES >> lun->block_shift) {
            cmd_fail_param_field(cmd, (uint16_t)(unmap_desc(cmd, i) - cmd->buf + 8));
            return false;
        }
    }
    return true;
}

static void unmap_with_list(struct scsi_cmd *cmd)
{
    uint16_t desc_bytes = get_be16(cmd->buf + 2);

    cmd->moved_bytes = cmd->buf_len;
    if (desc_bytes > LUN_MAX_UNMAP_DESCS * UNMAP_DESC_BYTES) {
        cmd_fail_param_field(cmd, 2);
        return;
    }
    if (desc_bytes > cmd->buf_len - UNMAP_HDR_BYTES && cmd->buf_len < cmd->transfer_bytes) {
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH); /* the initiator gave less than its CDB says */
        return;
    }
    /* an incomplete last one, and those that the CDB's length cuts off, are ignored */
    desc_bytes = (uint16_t)MIN_OF((uint32_t)desc_bytes, cmd->buf_len - UNMAP_HDR_BYTES);
    cmd->nr_blocks = desc_bytes / UNMAP_DESC_BYTES;
    cmd->lba = 0;
    if (unmap_list_ok(cmd))
        unmap_next(cmd);
}

static void unmap_fetch(struct scsi_cmd *cmd)
{
    uint64_t given = MIN_OF(cmd->transfer_bytes, (uint64_t)cmd_expected_bytes(cmd));

    cmd_data_out(cmd, 0, (uint32_t)MIN_OF(given, (uint64_t)UNMAP_MAX_BYTES), unmap_with_list);
}

void sbc_unmap(struct scsi_cmd *cmd)
{
    uint64_t list_len = cdb_get(cmd->cdb, cmd->op->len);

    if (cmd->cdb[1] & UNMAP_ANCHOR && !lun_can_anchor(cmd->lun)) { /* ANC_SUP is 0 */
        cmd_fail_cdb_field(cmd, 1, 0);
        return;
    }
    cmd->transfer_bytes = list_len;
    if (!list_len)
        cmd_good(cmd);
    else if (MIN_OF(list_len, (uint64_t)cmd_expected_bytes(cmd)) < UNMAP_HDR_BYTES)
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
    else
        cmd_get_buf(cmd, UNMAP_MAX_BYTES, unmap_fetch);
}

/* ---- WRITE SAME, SBC-3 5.43 and 5.44 ---- */

#define SAME_BUF_BYTES  (128u << 10)
#define SAME_STEP_BYTES (64u << 20)

enum { WS_NDOB = 0x01, WS_UNMAP = 0x08, WS_ANCHOR = 0x10 };

/* What is done leaves cmd->lba and cmd->nr_blocks; cmd->buf_len is the step under way. */

static void same_step(struct scsi_cmd *cmd, uint32_t max_bytes)
{
    uint64_t left = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);

    cmd->buf_len = (uint32_t)MIN_OF(left, (uint64_t)max_bytes);
}

static void same_advance(struct scsi_cmd *cmd, void (*next)(struct scsi_cmd *))
{
    uint32_t blocks = cmd->buf_len >> cmd->lun->block_shift;

    cmd->lba += blocks;
    cmd->nr_blocks -= blocks;
    cmd->lun->stats.written_bytes += cmd->buf_len;
    if (cmd->nr_blocks) {
        next(cmd);
        return;
    }
    cmd->lun->stats.write_ops++;
    cmd_good_now(cmd);
}

static void same_data(struct scsi_cmd *cmd);

static void same_data_done(struct scsi_cmd *cmd)
{
    same_advance(cmd, same_data);
}

/* The buffer is full of the pattern. */
static void same_data(struct scsi_cmd *cmd)
{
    same_step(cmd, cmd->buf_alloc);
    cmd_io(cmd, BLK_WRITE, cache_flags(cmd), cmd_lba_bytes(cmd), cmd->buf_len, cmd->buf, same_data,
           same_data_done);
}

static void same_zero_data(struct scsi_cmd *cmd);

static void same_zero_data_done(struct scsi_cmd *cmd)
{
    same_advance(cmd, same_zero_data);
}

static void same_zero_data_submit(struct scsi_cmd *cmd)
{
    memset(cmd->buf, 0, cmd->buf_alloc);
    same_step(cmd, cmd->buf_alloc);
    cmd_io(cmd, BLK_WRITE, cache_flags(cmd), cmd_lba_bytes(cmd), cmd->buf_len, cmd->buf,
           same_zero_data, same_zero_data_done);
}

/* For a disk without WRITE_ZEROES. */
static void same_zero_data(struct scsi_cmd *cmd)
{
    if (cmd->buf)
        same_zero_data_submit(cmd);
    else
        cmd_get_buf(cmd, SAME_BUF_BYTES, same_zero_data_submit);
}

static uint32_t zeroes_flags(const struct scsi_cmd *cmd)
{
    if (cmd->cdb[1] & WS_ANCHOR)
        return BLK_ANCHOR;
    return cmd->cdb[1] & WS_UNMAP ? BLK_MAY_UNMAP : 0;
}

static void same_zeroes(struct scsi_cmd *cmd);

static void same_zeroes_done(struct scsi_cmd *cmd)
{
    if (cmd->req.result == -ENOTSUP)
        same_zero_data(cmd);
    else
        same_advance(cmd, same_zeroes);
}

static void same_zeroes(struct scsi_cmd *cmd)
{
    same_step(cmd, SAME_STEP_BYTES);
    cmd_io(cmd, BLK_WRITE_ZEROES, cache_flags(cmd) | zeroes_flags(cmd), cmd_lba_bytes(cmd),
           cmd->buf_len, NULL, same_zeroes, same_zeroes_done);
}

/* LBPRZ is 1: only zeros may be unmapped, any other block is written as it is. */
static void same_with_block(struct scsi_cmd *cmd)
{
    uint32_t block = lun_block_bytes(cmd->lun);

    if (buf_is_zero(cmd->buf, block)) {
        cmd_put_buf(cmd);
        same_zeroes(cmd);
        return;
    }
    for (uint32_t done = block; done < cmd->buf_alloc; done += block)
        memcpy(cmd->buf + done, cmd->buf, block);
    same_data(cmd);
}

static void same_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, lun_block_bytes(cmd->lun), same_with_block);
}

void sbc_write_same(struct scsi_cmd *cmd)
{
    const struct lun *lun = cmd->lun;
    bool no_data = cmd->op->cdb_len == 16 && cmd->cdb[1] & WS_NDOB;

    /* SBC-3 5.42: it is said of unmapping */
    if (cmd->cdb[1] & WS_ANCHOR && !(cmd->cdb[1] & WS_UNMAP && lun_can_anchor(lun))) {
        cmd_fail_cdb_field(cmd, 1, 4);
        return;
    }
    if (!cmd->nr_blocks || /* WSNZ is 1: a forgotten length wipes no disk up to its end */
        cmd->nr_blocks > LUN_MAX_WRITE_SAME_BYTES >> lun->block_shift) {
        cmd_fail_cdb_field(cmd, cmd->op->len.at, -1);
        return;
    }
    cmd->transfer_bytes = no_data ? 0 : lun_block_bytes(lun);
    if (no_data)
        same_zeroes(cmd);
    else if (cmd_expected_bytes(cmd) != lun_block_bytes(lun)) /* not the block that is meant */
        cmd_fail(cmd, SENSE_INVALID_FIELD_CDB);
    else
        cmd_get_buf(
            cmd,
            (uint32_t)MIN_OF(lun_blocks_to_bytes(lun, cmd->nr_blocks), (uint64_t)SAME_BUF_BYTES),
            same_fetch);
}
