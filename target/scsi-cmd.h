/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What command handlers are written with. Each call that waits (cmd_get_buf, cmd_data_out,
 * cmd_data_in, cmd_io) goes on in the function given with it, and not at all if the command was
 * aborted meanwhile. A command ends by exactly one of the cmd_* calls marked "ends".
 */
#ifndef COWTGT_SCSI_CMD_H
#define COWTGT_SCSI_CMD_H

#include "target/lun.h"
#include "target/scsi-opcodes.h"
#include "target/scsi.h"
#include "target/sense.h"

#define TYPE_WLUN 0x1e /* peripheral device type of a well known logical unit */

/* A command is in exactly one of these; it says what an abort has to do. */
enum cmd_phase {
    PH_NEW,
    PH_HELD,     /* behind an ordered command, or ordered behind others */
    PH_WAIT_BUF, /* in the pool's queue */
    PH_DATA_OUT, /* the transport fills buf */
    PH_DATA_IN,  /* the transport has the chunk; its buffer is no longer ours */
    PH_IO,       /* req is in the graph */
    PH_RANGE,    /* waits for its range of the medium */
    PH_PARKED,   /* in lun->parked */
    PH_WALK,     /* a coroutine works for it */
    PH_ENDING,   /* complete() comes this turn */
};

/* Bytes that the initiator takes or gives in the direction of the operation. */
uint32_t cmd_expected_bytes(const struct scsi_cmd *cmd);

void cmd_get_buf(struct scsi_cmd *cmd, uint32_t bytes, void (*next)(struct scsi_cmd *));
void cmd_put_buf(struct scsi_cmd *cmd);
/* Data-out bytes [offset, offset + len) to the start of the buffer. */
void cmd_data_out(struct scsi_cmd *cmd, uint32_t offset, uint32_t len,
                  void (*next)(struct scsi_cmd *));
/* The buffer's first @len bytes as data-in at @offset; the buffer is gone then. */
void cmd_data_in(struct scsi_cmd *cmd, uint32_t offset, uint32_t len,
                 void (*next)(struct scsi_cmd *));
/*
 * One request on the LUN's disk; data (READ, WRITE) is @data. @next sees only success, or -ENOTSUP
 * of WRITE_ZEROES and DISCARD in cmd->req.result; other errors end the command. If its source is
 * down the command waits for it and then makes the request once more by @again: from nothing, if
 * the buffer holds no data-out.
 */
void cmd_io(struct scsi_cmd *cmd, enum blk_verb verb, uint32_t flags, uint64_t offset_bytes,
            uint64_t length_bytes, void *data, void (*again)(struct scsi_cmd *),
            void (*next)(struct scsi_cmd *));

/*
 * From here to cmd_unlock() (or its end) no other command's request touches the bytes [offset,
 * offset + length) of the LUN. Data-out is there before: whoever waits for an initiator holds
 * nothing up.
 */
void cmd_lock(struct scsi_cmd *cmd, uint64_t offset_bytes, uint64_t length_bytes,
              void (*next)(struct scsi_cmd *));
void cmd_unlock(struct scsi_cmd *cmd);

/* Ends: with cmd->status as it is, later this turn. */
void cmd_end(struct scsi_cmd *cmd);
/* Ends GOOD, now; only from a request's completion (cmd_io's next). */
void cmd_good_now(struct scsi_cmd *cmd);
/* Ends GOOD. */
void cmd_good(struct scsi_cmd *cmd);
/* Ends GOOD with the buffer's first @len bytes as its data, cut to the allocation length. */
void cmd_reply(struct scsi_cmd *cmd, uint32_t len);
/* End in CHECK CONDITION. */
void cmd_fail(struct scsi_cmd *cmd, enum sense_id id);
void cmd_fail_info(struct scsi_cmd *cmd, enum sense_id id, uint64_t info);
void cmd_fail_cdb_field(struct scsi_cmd *cmd, uint16_t byte, int bit); /* bit -1: whole byte */
void cmd_fail_param_field(struct scsi_cmd *cmd, uint16_t byte);
void cmd_fail_errno(struct scsi_cmd *cmd, int err);
void cmd_conflict(struct scsi_cmd *cmd); /* RESERVATION CONFLICT */

/* Takes the most important unit attention off that the nexus has pending on the command's unit. */
bool cmd_take_ua(struct scsi_cmd *cmd, enum ua_kind *ua);

/* The lun.c side: goes on with a command that was held, or whose source is back. */
void cmd_run(struct scsi_cmd *cmd);

/* ---- sbc.c: for commands that take blocks ---- */
/* Whole blocks that the initiator gives. */
uint64_t cmd_write_total(const struct scsi_cmd *cmd);
/* Bytes that it gives of one more, which is not there in full. */
uint32_t cmd_write_tail_bytes(const struct scsi_cmd *cmd);
/* sbc-rmw.c: writes those and leaves the rest of the block; ends. */
void cmd_write_tail(struct scsi_cmd *cmd);
/* False: the last is given in part, and the command has ended. */
bool cmd_gives_whole_blocks(struct scsi_cmd *cmd);
/* Of the next chunk. */
uint32_t cmd_write_chunk(const struct scsi_cmd *cmd, uint32_t max_bytes);
/* BLK_FUA or nothing. */
uint32_t cmd_write_flags(const struct scsi_cmd *cmd);
/* Ends GOOD when all that was written is durable. */
void cmd_flush(struct scsi_cmd *cmd);

static inline uint64_t cmd_lba_bytes(const struct scsi_cmd *cmd)
{
    return lun_blocks_to_bytes(cmd->lun, cmd->lba);
}

#endif
