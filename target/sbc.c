/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Capacity, reading, writing, verifying, flushing. Transfers go in chunks of one pool buffer, at
 * most BUFPOOL_MAX_BYTES; READ and WRITE need no memory but that and no coroutine.
 *
 * An initiator may say that it transfers fewer bytes than the CDB: the lesser counts (RFC 7143
 * 11.4.5: residual overflow). WRITE then leaves the rest of a block as it is; commands that read
 * what they write, or compare, want whole blocks.
 */
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

/* ---- READ CAPACITY, SBC-3 5.15 and 5.16 ---- */

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
    buf[13] = (uint8_t)(cmd->lun->physical_shift - cmd->lun->block_shift);
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
    cmd->borrows = cmd->loan.recalled;
    if (read_total(cmd))
        read_chunk(cmd);
    else
        cmd_good(cmd);
}

/* ---- WRITE ---- */

/* Whole blocks that the initiator gives. */
uint64_t cmd_write_total(const struct scsi_cmd *cmd)
{
    uint64_t bytes = MIN_OF(cmd->transfer_bytes, (uint64_t)cmd_expected_bytes(cmd));

    return round_down_pow2(bytes, lun_block_bytes(cmd->lun));
}

uint32_t cmd_write_tail_bytes(const struct scsi_cmd *cmd)
{
    uint64_t bytes = MIN_OF(cmd->transfer_bytes, (uint64_t)cmd_expected_bytes(cmd));

    return (uint32_t)(bytes & (lun_block_bytes(cmd->lun) - 1));
}

bool cmd_gives_whole_blocks(struct scsi_cmd *cmd)
{
    uint64_t total = cmd->transfer_bytes;

    if (!cmd_write_tail_bytes(cmd))
        return true;
    cmd_fail(cmd, SENSE_PART_OF_BLOCK);
    cmd->transfer_bytes = total; /* the residual is that of the length, as if it had gone well */
    return false;
}

uint32_t cmd_write_chunk(const struct scsi_cmd *cmd, uint32_t max_bytes)
{
    uint32_t block = lun_block_bytes(cmd->lun);
    uint32_t chunk = (uint32_t)round_down_pow2(MIN_OF(cmd->chunk_bytes, max_bytes), block);

    return (uint32_t)MIN_OF(cmd_write_total(cmd) - cmd->moved_bytes,
                            (uint64_t)MAX_OF(chunk, block));
}

/* WCE 0: there is no cache to stay in. */
uint32_t cmd_write_flags(const struct scsi_cmd *cmd)
{
    bool fua = cmd->op->cdb_len > 6 && cmd->cdb[1] & 0x08;

    return fua || !cmd->lun->mode.write_cache ? BLK_FUA : 0;
}

static void write_chunk(struct scsi_cmd *cmd);

static void write_done(struct scsi_cmd *cmd)
{
    cmd->moved_bytes += cmd->buf_len;
    cmd->lun->stats.written_bytes += cmd->buf_len;
    if (cmd->moved_bytes < cmd_write_total(cmd)) {
        write_chunk(cmd);
        return;
    }
    if (cmd_write_tail_bytes(cmd)) {
        cmd_put_buf(cmd);
        cmd_write_tail(cmd);
        return;
    }
    cmd->lun->stats.write_ops++;
    lun_look_at_room(cmd->lun);
    cmd_good_now(cmd);
}

static void write_submit(struct scsi_cmd *cmd)
{
    cmd_io(cmd, BLK_WRITE, cmd_write_flags(cmd), cmd_lba_bytes(cmd) + cmd->moved_bytes,
           cmd->buf_len, cmd->buf, write_submit, write_done);
}

/* The first chunk is the largest: its buffer does for all. */
static void write_chunk(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, (uint32_t)cmd->moved_bytes, cmd_write_chunk(cmd, BUFPOOL_MAX_BYTES),
                 write_submit);
}

void sbc_write(struct scsi_cmd *cmd)
{
    cmd->transfer_bytes = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);
    if (cmd_write_total(cmd))
        cmd_get_buf(cmd, cmd_write_chunk(cmd, BUFPOOL_MAX_BYTES), write_chunk);
    else if (cmd_write_tail_bytes(cmd))
        cmd_write_tail(cmd);
    else
        cmd_good(cmd);
}

/* ---- VERIFY, SBC-3 5.30, and PRE-FETCH, 5.13 ---- */

#define COMPARE_MAX_BYTES (BUFPOOL_MAX_BYTES / 2) /* data-out and medium share one buffer */

enum { BYTCHK_NONE = 0, BYTCHK_ALL = 1, BYTCHK_ONE = 3 };

static unsigned bytchk(const struct scsi_cmd *cmd)
{
    return cmd->cdb[1] >> 1 & 3;
}

/* BYTCHK 0: what was read leaves cmd->lba and cmd->nr_blocks. */

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

/* The lower half of the buffer is what should be there, the upper what is. */

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
    if (cmd->moved_bytes < cmd_write_total(cmd))
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
    cmd_data_out(cmd, (uint32_t)cmd->moved_bytes, cmd_write_chunk(cmd, COMPARE_MAX_BYTES),
                 compare_submit);
}

/* BYTCHK 3: one block for all; what was compared leaves cmd->lba and cmd->nr_blocks. */

static void repeat_read(struct scsi_cmd *cmd);

static void repeat_done(struct scsi_cmd *cmd)
{
    uint32_t block = lun_block_bytes(cmd->lun), len = cmd->buf_len;
    const uint8_t *given = cmd->buf, *medium = cmd->buf + block;

    for (uint32_t i = 0; i < len; i++) {
        if (given[i & (block - 1)] != medium[i]) {
            cmd_fail_info(cmd, SENSE_MISCOMPARE, i & (block - 1));
            return;
        }
    }
    cmd->lba += len >> cmd->lun->block_shift;
    cmd->nr_blocks -= len >> cmd->lun->block_shift;
    if (cmd->nr_blocks)
        repeat_read(cmd);
    else
        cmd_good_now(cmd);
}

static void repeat_read(struct scsi_cmd *cmd)
{
    uint32_t block = lun_block_bytes(cmd->lun);

    cmd->buf_len = (uint32_t)MIN_OF(lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks),
                                    (uint64_t)(cmd->buf_alloc - block));
    cmd_io(cmd, BLK_READ, 0, cmd_lba_bytes(cmd), cmd->buf_len, cmd->buf + block, repeat_read,
           repeat_done);
}

static void repeat_start(struct scsi_cmd *cmd)
{
    cmd->moved_bytes = lun_block_bytes(cmd->lun);
    repeat_read(cmd);
}

static void repeat_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, lun_block_bytes(cmd->lun), repeat_start);
}

static void verify_one_block(struct scsi_cmd *cmd)
{
    uint32_t block = lun_block_bytes(cmd->lun);
    uint64_t all = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);

    cmd->transfer_bytes = block;
    if (cmd_expected_bytes(cmd) != block)
        cmd_fail(cmd, SENSE_INVALID_FIELD_CDB);
    else
        cmd_get_buf(cmd, (uint32_t)MIN_OF(all + block, (uint64_t)BUFPOOL_MAX_BYTES), repeat_fetch);
}

void sbc_verify(struct scsi_cmd *cmd)
{
    if (bytchk(cmd) != BYTCHK_NONE && bytchk(cmd) != BYTCHK_ALL && bytchk(cmd) != BYTCHK_ONE) {
        cmd_fail_cdb_field(cmd, 1, 2);
        return;
    }
    if (bytchk(cmd) == BYTCHK_ALL)
        cmd->transfer_bytes = lun_blocks_to_bytes(cmd->lun, cmd->nr_blocks);
    if (!cmd_gives_whole_blocks(cmd))
        return;
    if (!cmd->nr_blocks)
        cmd_good(cmd);
    else if (bytchk(cmd) == BYTCHK_NONE)
        verify_read(cmd);
    else if (bytchk(cmd) == BYTCHK_ONE)
        verify_one_block(cmd);
    else if (cmd_write_total(cmd))
        cmd_get_buf(cmd, 2 * cmd_write_chunk(cmd, COMPARE_MAX_BYTES), compare_chunk);
    else
        cmd_good(cmd);
}

/*
 * Reads, to warm whatever caches are below; GOOD, not CONDITION MET: nothing here knows that it
 * will still be there.
 */
void sbc_prefetch(struct scsi_cmd *cmd)
{
    if (cmd->nr_blocks > LUN_MAX_TRANSFER_BLOCKS) { /* MAXIMUM PREFETCH LENGTH */
        cmd_fail_cdb_field(cmd, cmd->op->len.at, -1);
        return;
    }
    if (!cmd->nr_blocks) /* up to the end, or as much of it as one command may */
        cmd->nr_blocks =
            MIN_OF(cmd->lun->capacity_blocks - cmd->lba, (uint64_t)LUN_MAX_TRANSFER_BLOCKS);
    if (cmd->nr_blocks)
        verify_read(cmd);
    else
        cmd_good(cmd);
}

/* ---- SYNCHRONIZE CACHE, START STOP UNIT ---- */

void cmd_flush(struct scsi_cmd *cmd)
{
    if (cmd->lun->writable)
        cmd_io(cmd, BLK_FLUSH, 0, 0, 0, NULL, cmd_flush, cmd_good_now);
    else
        cmd_good(cmd);
}

/* The whole disk whatever the range, and never early: IMMED allows, but does not ask for it. */
void sbc_sync_cache(struct scsi_cmd *cmd)
{
    cmd_flush(cmd);
}

enum { SSU_START = 0x01, SSU_LOEJ = 0x02, SSU_NO_FLUSH = 0x04 };

static void load_or_eject(struct scsi_cmd *cmd)
{
    struct lun *lun = cmd->lun;
    bool eject = !(cmd->cdb[4] & SSU_START);

    if (!lun->removable) {
        cmd_fail_cdb_field(cmd, 4, 1);
        return;
    }
    if ((eject || lun->ejected) && removal_prevented(lun->target, lun->number)) {
        cmd_fail(cmd, SENSE_REMOVAL_PREVENTED);
        return;
    }
    if (lun->ejected && !eject)
        ua_raise_others(lun->target, lun->number, UA_MEDIUM_CHANGED, cmd->nexus);
    lun->ejected = eject;
    if (eject)
        cmd_flush(cmd);
    else
        cmd_good(cmd);
}

/*
 * SBC-3 5.25. There is no motor: stopping makes all data durable, as the standard asks, and the
 * unit stays ready. There are no power conditions either; asking for one changes nothing.
 */
void sbc_start_stop(struct scsi_cmd *cmd)
{
    struct sense s = {.id = SENSE_NONE};

    scsi_not_ready(cmd->lun, &s);
    if (s.id == SENSE_SANITIZING || s.id == SENSE_FORMATTING)
        cmd_fail(cmd, s.id);
    else if (cmd->cdb[4] >> 4)
        cmd_good(cmd);
    else if (cmd->cdb[4] & SSU_LOEJ)
        load_or_eject(cmd);
    else if (cmd->cdb[4] & (SSU_START | SSU_NO_FLUSH))
        cmd_good(cmd);
    else
        cmd_flush(cmd);
}

/* ---- READ DEFECT DATA, SBC-3 5.17: there are none ---- */

int sbc_read_defects(struct scsi_cmd *cmd, uint8_t *buf)
{
    bool is_12 = cmd->op->cdb_len == 12;

    buf[1] = cmd->cdb[is_12 ? 1 : 2] & 0x1f; /* the lists and the format asked for */
    return is_12 ? 8 : 4;
}
