/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A logical unit as the SCSI files know it: its commands in order of arrival, those parked for a
 * source that is down, and the unit attentions that each nexus has pending on it.
 * A LUN's memory lives until its last command has ended, even after it left the target.
 */
#ifndef COWTGT_LUN_H
#define COWTGT_LUN_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include "lun-backends/block.h"
#include "target/scsi.h"
#include "target/target.h"
#include "util/coroutine.h"
#include "util/list.h"
#include "util/loop.h"

#define LUN_BLOCK_SHIFT       9
#define LUN_MAX_COMMANDS      4096       /* beyond: TASK SET FULL */
#define LUN_MAX_PARKED        64         /* beyond: BUSY */
#define LUN_MAX_PARKED_BYTES  (8u << 20) /* write data held by parked commands; beyond: BUSY */
#define LUN_READER_NS         (60 * UINT64_C(1000000000)) /* who has read that lately still reads */
#define LUN_SOURCE_TIMEOUT_NS (120 * UINT64_C(1000000000))

/* Limits told in VPD page B0h and enforced. */
#define LUN_MAX_TRANSFER_BYTES   (32u << 20)
#define LUN_MAX_UNMAP_BYTES      (UINT64_C(512) << 20)
#define LUN_MAX_UNMAP_DESCS      255
#define LUN_MAX_WRITE_SAME_BYTES (UINT64_C(1) << 30)

struct lun {
    struct list_head link; /* in target->luns, ascending; on no list once it is gone */
    struct target *target;
    uint16_t number;
    bool writable;
    bool gone;   /* removed: no new request may enter the graph */
    bool orphan; /* the last command to end frees it */
    uint8_t block_shift;
    uint64_t capacity_blocks;
    struct uuid id;
    bool has_cowl;
    bool anchored_zeros;
    struct cowl_page cowl;
    struct blk_head head;

    struct list_head commands; /* struct scsi_cmd, by arrival */
    unsigned nr_commands, nr_ordered, nr_held;
    unsigned nr_walks; /* coroutines that look at the graph right now */
    struct co_queue walk_ended;

    struct list_head parked; /* struct scsi_cmd */
    unsigned nr_parked;
    uint64_t parked_bytes;
    uint64_t source_timeout_ns;
    uint32_t source_seq; /* counts BLK_EV_SOURCE_UP */
    struct deferred retry;
    struct ev_timer park_timer;

    struct lun_stats stats;
};

static inline uint64_t lun_blocks_to_bytes(const struct lun *lun, uint64_t blocks)
{
    return blocks << lun->block_shift;
}

static inline uint32_t lun_block_bytes(const struct lun *lun)
{
    return 1u << lun->block_shift;
}

/* Takes a command into the LUN's task set. */
void lun_enter(struct lun *lun, struct scsi_cmd *cmd);
/* True if it has to wait for older ones: it is PH_HELD then, and started when they have ended. */
bool lun_hold(struct lun *lun, struct scsi_cmd *cmd);
void lun_unhold(struct lun *lun, struct scsi_cmd *cmd);
/* It has ended: those it held back may start; frees an orphan. */
void lun_leave(struct lun *lun, struct scsi_cmd *cmd);
/* A coroutine that looks at the graph for a command of the LUN; walks end before the LUN does. */
void co_lun_walk_begin(struct lun *lun);
void lun_walk_end(struct lun *lun);

/* What becomes of a command whose request needs a source that is down. */
enum park_result { PARK_DONE, PARK_AGAIN, PARK_FULL, PARK_TIMEOUT };
enum park_result lun_park(struct lun *lun, struct scsi_cmd *cmd);
void lun_unpark(struct lun *lun, struct scsi_cmd *cmd);

/* ---- unit attentions (nexus.c) ---- */

/* In order of precedence, SPC-4 5.6 / SAM-5 5.14: the first pending one is told first. */
enum ua_kind {
    UA_POWER_ON, /* a new nexus; makes all others pointless */
    UA_DEVICE_RESET,
    UA_REPORTED_LUNS,
    UA_INQUIRY_DATA,
    UA_CAPACITY,
    UA_NR_KINDS,
};
_Static_assert(UA_NR_KINDS <= NEXUS_MAX_UA, "initiators retry 7 times a command");

/* Takes the most important one pending off; false: none. */
bool nexus_take_ua(struct nexus *n, uint16_t lun, enum ua_kind *kind);
/* Every nexus of @t that has used the LUN hears of it. */
void ua_raise(struct target *t, uint16_t lun, enum ua_kind kind);
void ua_raise_all_luns(struct target *t, enum ua_kind kind);
/* The nexus has seen the news by itself. */
void nexus_clear_ua(struct nexus *n, enum ua_kind kind);
/* The nexus reads data of the LUN. */
void nexus_note_read(struct nexus *n, uint16_t lun);
void nexuses_forget_lun(struct target *t, uint16_t lun);

#endif
