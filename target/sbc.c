/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Capacity, reading, writing, verifying, flushing. Transfers go in chunks of one pool buffer, at
 * most BUFPOOL_MAX_BYTES; READ and WRITE need no memory but that and no coroutine.
 *
 * An initiator may say that it transfers fewer bytes than the CDB: the lesser counts, and what is
 * left over of a written block is not written (RFC 7143 11.4.5: residual overflow).
 */
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

/* ---- READ CAPACITY, SBC-3 5.15 and 5.16 ---- */

#define PHYSICAL_SHIFT 12 /* guests are to align to what can become local by itself */

int sbc_read_capacity10(struct scsi_cmd *cmd, uint8_t *buf)
{
    uint64_t last = cmd->lun->capacity_blocks - 1;

    put_be32(buf, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
    put_be32(buf + 4, lun_block_bytes(cmd->lun));
    return 8;
}

int sbc_read_capacity16(struct scsi_cmd *cmd, uint8_t *buf)
{
    put_be64(buf, cmd->lun->capacity_blocks - 1);
    put_be32(buf + 8, lun_block_bytes(cmd->lun));
    buf[13] = (uint8_t)(PHYSICAL_SHIFT - cmd->lun->block_shift);
    buf[14] = 0x80 | 0x40; /* LBPME, LBPRZ */
    return 32;
}

/* ---- READ ---- */

static uint64_t read_total(const struct scsi_cmd *cmd)
{
    return MIN_OF(cmd->transfer_bytes, (uint64_t)cmd_expected_bytes(cmd));
}

static void read_chunk(struct scsi_cmd *cmd);

static void read_done(struct scsi_cmd *cmd)
{
    uint32_t offset = (uint32_t)cmd->moved_bytes;

    cmd->moved_bytes += cmd->buf_len;
    cmd->lun->stats.read_bytes += cmd->buf_len;
    if (cmd->moved_bytes < read_total(cmd)) {
        cmd_data_in(cmd, offset, cmd->buf_len, read_chunk);
        return;
    }
    cmd->last_in = cmd->buf;
    cmd->last_in_offset = offset;
    cmd->last_in_len = cmd->buf_len;
    cmd->last_in_alloc = cmd->buf_alloc;
    cmd->buf = NULL;
    cmd->lun->stats.read_ops++;
    cmd_good_now(cmd);
}

static void read_submit(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_READ, 0, cmd_lba_bytes(cmd) + cmd->moved_bytes, cmd->buf_alloc, cmd->buf,
           read_chunk, read_done);
}

static void read_chunk(struct scsi_cmd *cmd)
{
    uint64_t left = read_total(cmd) - cmd->moved_bytes;

    cmd->buf_len = (uint32_t)MIN_OF(left, (uint64_t)BUFPOOL_MAX_BYTES);
    cmd_get_buf(cmd, (uint32_t)round_up_pow2(cmd->buf_len, lun_block_bytes(cmd->lun)), read_submit);
}

void sbc_read(struct scsi_cmd *cmd)
{
    nexus_note_read(cmd->nexus, cmd->lun->number);
    cmd->transfer_bytes = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);
    if (read_total(cmd))
        read_chunk(cmd);
    else
        cmd_good(cmd);
}

/* ---- WRITE ---- */

/* Whole blocks that the initiator gives. */
static uint64_t write_total(const struct scsi_cmd *cmd)
{
    uint64_t bytes = MIN_OF(cmd->transfer_bytes, (uint64_t)cmd_expected_bytes(cmd));

    return round_down_pow2(bytes, lun_block_bytes(cmd->lun));
}

static uint32_t write_chunk_len(const struct scsi_cmd *cmd, uint32_t max_bytes)
{
    uint32_t block = lun_block_bytes(cmd->lun);
    uint32_t chunk = (uint32_t)round_down_pow2(MIN_OF(cmd->chunk_bytes, max_bytes), block);

    return (uint32_t)MIN_OF(write_total(cmd) - cmd->moved_bytes, (uint64_t)MAX_OF(chunk, block));
}

static bool wants_fua(const struct scsi_cmd *cmd)
{
    return cmd->op->cdb_len > 6 && cmd->cdb[1] & 0x08;
}

static void write_chunk(struct scsi_cmd *cmd);

static void write_done(struct scsi_cmd *cmd)
{
    cmd->moved_bytes += cmd->buf_len;
    cmd->lun->stats.written_bytes += cmd->buf_len;
    if (cmd->moved_bytes < write_total(cmd)) {
        write_chunk(cmd);
        return;
    }
    cmd->lun->stats.write_ops++;
    cmd_good_now(cmd);
}

static void write_submit(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_WRITE, wants_fua(cmd) ? BLK_FUA : 0, cmd_lba_bytes(cmd) + cmd->moved_bytes,
           cmd->buf_len, cmd->buf, write_submit, write_done);
}

/* The first chunk is the largest: its buffer does for all. */
static void write_chunk(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, (uint32_t)cmd->moved_bytes, write_chunk_len(cmd, BUFPOOL_MAX_BYTES),
                 write_submit);
}

void sbc_write(struct scsi_cmd *cmd)
{
    cmd->transfer_bytes = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);
    if (write_total(cmd))
        cmd_get_buf(cmd, write_chunk_len(cmd, BUFPOOL_MAX_BYTES), write_chunk);
    else
        cmd_good(cmd);
}

/* ---- VERIFY, SBC-3 5.30: BYTCHK 0 reads, BYTCHK 1 compares with data-out ---- */

#define COMPARE_MAX_BYTES (BUFPOOL_MAX_BYTES / 2) /* data-out and medium share one buffer */

/* What was read leaves cmd->lba and cmd->nr_blocks. */

static void verify_read(struct scsi_cmd *cmd);

static void verify_read_done(struct scsi_cmd *cmd)
{
    uint32_t blocks = cmd->buf_alloc >> cmd->lun->block_shift;

    cmd_put_buf(cmd);
    cmd->lba += blocks;
    cmd->nr_blocks -= blocks;
    if (cmd->nr_blocks)
        verify_read(cmd);
    else
        cmd_good_now(cmd);
}

static void verify_read_submit(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_READ, 0, cmd_lba_bytes(cmd), cmd->buf_alloc, cmd->buf, verify_read,
           verify_read_done);
}

static void verify_read(struct scsi_cmd *cmd)
{
    uint64_t left = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);

    cmd_get_buf(cmd, (uint32_t)MIN_OF(left, (uint64_t)BUFPOOL_MAX_BYTES), verify_read_submit);
}

static void compare_chunk(struct scsi_cmd *cmd);

static void compare_done(struct scsi_cmd *cmd)
{
    const uint8_t *given = cmd->buf, *medium = cmd->buf + cmd->buf_alloc / 2;
    uint32_t same = 0;

    while (same < cmd->buf_len && given[same] == medium[same])
        same++;
    if (same < cmd->buf_len) {
        cmd_fail_info(cmd, SENSE_MISCOMPARE, cmd->moved_bytes + same);
        return;
    }
    cmd->moved_bytes += cmd->buf_len;
    if (cmd->moved_bytes < write_total(cmd))
        compare_chunk(cmd);
    else
        cmd_good_now(cmd);
}

static void compare_submit(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_READ, 0, cmd_lba_bytes(cmd) + cmd->moved_bytes, cmd->buf_len,
           cmd->buf + cmd->buf_alloc / 2, compare_submit, compare_done);
}

static void compare_chunk(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, (uint32_t)cmd->moved_bytes, write_chunk_len(cmd, COMPARE_MAX_BYTES),
                 compare_submit);
}

void sbc_verify(struct scsi_cmd *cmd)
{
    unsigned bytchk = cmd->cdb[1] >> 1 & 3;

    if (bytchk > 1) {
        cmd_fail_cdb_field(cmd, 1, 2);
        return;
    }
    cmd->transfer_bytes = bytchk ? lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks) : 0;
    if (!bytchk && cmd->nr_blocks)
        verify_read(cmd);
    else if (bytchk && write_total(cmd))
        cmd_get_buf(cmd, 2 * write_chunk_len(cmd, COMPARE_MAX_BYTES), compare_chunk);
    else
        cmd_good(cmd);
}

/* ---- SYNCHRONIZE CACHE, START STOP UNIT ---- */

static void flush(struct scsi_cmd *cmd)
{
    if (cmd->lun->writable)
        cmd_io(cmd, BLK_FLUSH, 0, 0, 0, NULL, flush, cmd_good_now);
    else
        cmd_good(cmd);
}

/* The whole disk whatever the range, and never early: IMMED allows, but does not ask for it. */
void sbc_sync_cache(struct scsi_cmd *cmd)
{
    flush(cmd);
}

/*
 * SBC-3 5.25. There is no motor and nothing to eject: stopping makes all data durable, as the
 * standard asks, and the unit stays ready.
 */
void sbc_start_stop(struct scsi_cmd *cmd)
{
    if (cmd->cdb[4] >> 4) /* POWER CONDITION */
        cmd_fail_cdb_field(cmd, 4, 7);
    else if (cmd->cdb[4] & 0x02) /* LOEJ */
        cmd_fail_cdb_field(cmd, 4, 1);
    else if (cmd->cdb[4] & 0x05) /* START, NO_FLUSH */
        cmd_good(cmd);
    else
        flush(cmd);
}
