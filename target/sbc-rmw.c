/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands that have a place to themselves: COMPARE AND WRITE, ORWRITE, WRITE AND VERIFY, which
 * write and look, WRITE ATOMIC, and a part of a block.
 * Data-out is fetched first, then the range is locked, so that nobody sees or changes it between
 * the steps and a slow initiator holds up no one.
 */
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

static uint32_t first_difference(const uint8_t *a, const uint8_t *b, uint32_t len)
{
    uint32_t same = 0;

    while (same < len && a[same] == b[same])
        same++;
    return same;
}

/* ---- COMPARE AND WRITE, SBC-3 5.2: all or nothing, in one buffer ---- */

/* The buffer: what is to be there, what is to be written, what is there. */
static void caw_done(struct scsi_cmd *cmd)
{
    cmd->lun->stats.written_bytes += cmd->buf_len / 2;
    cmd->lun->stats.write_ops++;
    cmd_good_now(cmd);
}

static void caw_write(struct scsi_cmd *cmd)
{
    uint32_t half = cmd->buf_len / 2;

    cmd_io(cmd, BLK_WRITE, cmd_write_flags(cmd), cmd_lba_bytes(cmd), half, cmd->buf + half,
           caw_write, caw_done);
}

static void caw_compare(struct scsi_cmd *cmd)
{
    uint32_t half = cmd->buf_len / 2;
    uint32_t same = first_difference(cmd->buf, cmd->buf + cmd->buf_len, half);

    cmd->moved_bytes = cmd->buf_len;
    if (same < half)
        cmd_fail_info(cmd, SENSE_MISCOMPARE, same);
    else
        caw_write(cmd);
}

static void caw_read(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_READ, 0, cmd_lba_bytes(cmd), cmd->buf_len / 2, cmd->buf + cmd->buf_len,
           caw_read, caw_compare);
}

static void caw_lock(struct scsi_cmd *cmd)
{
    cmd_lock(cmd, cmd_lba_bytes(cmd), cmd->buf_len / 2, caw_read);
}

static void caw_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, caw_lock);
}

void sbc_compare_and_write(struct scsi_cmd *cmd)
{
    uint32_t bytes = (uint32_t)lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);

    if (cmd->nr_blocks > lun_max_compare_blocks(cmd->lun)) {
        cmd_fail_cdb_field(cmd, 13, -1);
        return;
    }
    if (cmd_expected_bytes(cmd) != 2 * bytes) { /* not the blocks that are meant: 256 are 0 */
        cmd_fail_cdb_field(cmd, 13, -1);
        return;
    }
    cmd->transfer_bytes = 2 * bytes;
    if (!bytes)
        cmd_good(cmd);
    else
        cmd_get_buf(cmd, 3 * bytes, caw_fetch);
}

/* ---- the end of a WRITE that gives less than its last block ---- */

/* The buffer: the bytes given, the block. */
static void tail_done(struct scsi_cmd *cmd)
{
    cmd->moved_bytes += cmd->buf_len;
    cmd->lun->stats.written_bytes += cmd->buf_len;
    cmd->lun->stats.write_ops++;
    lun_look_at_room(cmd->lun);
    cmd_good_now(cmd);
}

static void tail_io(struct scsi_cmd *cmd, enum blk_verb verb, void (*again)(struct scsi_cmd *),
                    void (*next)(struct scsi_cmd *))
{
    uint32_t block = lun_block_bytes(cmd->lun);

    cmd_io(cmd, verb, verb == BLK_WRITE ? cmd_write_flags(cmd) : 0,
           cmd_lba_bytes(cmd) + cmd->moved_bytes, block, cmd->buf + block, again, next);
}

static void tail_write(struct scsi_cmd *cmd)
{
    tail_io(cmd, BLK_WRITE, tail_write, tail_done);
}

static void tail_merge(struct scsi_cmd *cmd)
{
    memcpy(cmd->buf + lun_block_bytes(cmd->lun), cmd->buf, cmd->buf_len);
    tail_write(cmd);
}

static void tail_read(struct scsi_cmd *cmd)
{
    tail_io(cmd, BLK_READ, tail_read, tail_merge);
}

static void tail_lock(struct scsi_cmd *cmd)
{
    cmd_lock(cmd, cmd_lba_bytes(cmd) + cmd->moved_bytes, lun_block_bytes(cmd->lun), tail_read);
}

static void tail_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, (uint32_t)cmd->moved_bytes, cmd_write_tail_bytes(cmd), tail_lock);
}

void cmd_write_tail(struct scsi_cmd *cmd)
{
    cmd_get_buf(cmd, 2 * lun_block_bytes(cmd->lun), tail_fetch);
}

/* ---- WRITE ATOMIC(16), SBC-4 5.49: one unit at a time, all or nothing across a crash too ---- */

static void atomic_done(struct scsi_cmd *cmd)
{
    cmd->moved_bytes = cmd->buf_len;
    cmd->lun->stats.written_bytes += cmd->buf_len;
    cmd->lun->stats.write_ops++;
    lun_look_at_room(cmd->lun);
    cmd_good_now(cmd);
}

static void atomic_write(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_WRITE, BLK_ATOMIC | cmd_write_flags(cmd), cmd_lba_bytes(cmd), cmd->buf_len,
           cmd->buf, atomic_write, atomic_done);
}

/* BLK_ATOMIC asks for the allocation unit around it. */
static void atomic_lock(struct scsi_cmd *cmd)
{
    const struct blk_limits *l = &blk_head_node(&cmd->lun->head)->limits;
    uint64_t unit = MAX_OF(l->granularity_bytes, cmd->buf_len);

    cmd_lock(cmd, round_down_pow2(cmd_lba_bytes(cmd), unit), unit, atomic_write);
}

static void atomic_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, atomic_lock);
}

void sbc_write_atomic(struct scsi_cmd *cmd)
{
    uint32_t unit = lun_atomic_bytes(cmd->lun) >> cmd->lun->block_shift;
    uint64_t bytes = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);

    if (get_be16(cmd->cdb + 10)) /* ATOMIC BOUNDARY: MAXIMUM ATOMIC BOUNDARY SIZE is 0 */
        cmd_fail_cdb_field(cmd, 10, -1);
    else if (!cmd->nr_blocks)
        cmd_good(cmd);
    else if (cmd->lba % unit)
        cmd_fail_cdb_field(cmd, 2, -1);
    else if (cmd->nr_blocks != unit || cmd_expected_bytes(cmd) != bytes) /* a part is not whole */
        cmd_fail_cdb_field(cmd, 12, -1);
    else {
        cmd->transfer_bytes = bytes;
        cmd_get_buf(cmd, (uint32_t)bytes, atomic_fetch);
    }
}

/* ---- ORWRITE (SBC-3 5.10), WRITE AND VERIFY (5.36): chunk by chunk ---- */

#define HALF_BYTES (BUFPOOL_MAX_BYTES / 2) /* data-out and medium share one buffer */

static void chunk_next(struct scsi_cmd *cmd);

static uint8_t *medium_part(const struct scsi_cmd *cmd)
{
    return cmd->buf + cmd->buf_alloc / 2;
}

static uint64_t chunk_offset(const struct scsi_cmd *cmd)
{
    return cmd_lba_bytes(cmd) + cmd->moved_bytes;
}

static void chunk_end(struct scsi_cmd *cmd)
{
    cmd_unlock(cmd);
    cmd->moved_bytes += cmd->buf_len;
    cmd->lun->stats.written_bytes += cmd->buf_len;
    if (cmd->moved_bytes < cmd_write_total(cmd)) {
        chunk_next(cmd);
        return;
    }
    cmd->lun->stats.write_ops++;
    cmd_good_now(cmd);
}

static void or_write(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_WRITE, cmd_write_flags(cmd), chunk_offset(cmd), cmd->buf_len, medium_part(cmd),
           or_write, chunk_end);
}

static void or_merge(struct scsi_cmd *cmd)
{
    uint8_t *medium = medium_part(cmd);

    for (uint32_t i = 0; i < cmd->buf_len; i++)
        medium[i] |= cmd->buf[i];
    or_write(cmd);
}

static void or_read(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_READ, 0, chunk_offset(cmd), cmd->buf_len, medium_part(cmd), or_read, or_merge);
}

/* BYTCHK 0 asks that it can be read, 1 that it is the same. */
static void verify_compare(struct scsi_cmd *cmd)
{
    uint32_t same = cmd->buf_len;

    if (cmd->cdb[1] & 0x02)
        same = first_difference(cmd->buf, medium_part(cmd), cmd->buf_len);
    if (same < cmd->buf_len)
        cmd_fail_info(cmd, SENSE_MISCOMPARE, cmd->moved_bytes + same);
    else
        chunk_end(cmd);
}

static void verify_read(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_READ, 0, chunk_offset(cmd), cmd->buf_len, medium_part(cmd), verify_read,
           verify_compare);
}

/* It is the medium that is verified: forced there before it is read. */
static void verify_write(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_WRITE, BLK_FUA, chunk_offset(cmd), cmd->buf_len, cmd->buf, verify_write,
           verify_read);
}

static void chunk_locked(struct scsi_cmd *cmd)
{
    if (cmd->op->start == sbc_orwrite)
        or_read(cmd);
    else
        verify_write(cmd);
}

static void chunk_lock(struct scsi_cmd *cmd)
{
    cmd_lock(cmd, chunk_offset(cmd), cmd->buf_len, chunk_locked);
}

static void chunk_next(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, (uint32_t)cmd->moved_bytes, cmd_write_chunk(cmd, HALF_BYTES), chunk_lock);
}

static void start_chunks(struct scsi_cmd *cmd)
{
    cmd->transfer_bytes = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);
    if (!cmd_gives_whole_blocks(cmd))
        return;
    if (cmd_write_total(cmd))
        cmd_get_buf(cmd, 2 * cmd_write_chunk(cmd, HALF_BYTES), chunk_next);
    else
        cmd_good(cmd);
}

void sbc_orwrite(struct scsi_cmd *cmd)
{
    start_chunks(cmd);
}

void sbc_write_verify(struct scsi_cmd *cmd)
{
    if ((cmd->cdb[1] >> 1 & 3) > 1)
        cmd_fail_cdb_field(cmd, 1, 2);
    else
        start_chunks(cmd);
}
