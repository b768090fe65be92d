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
#include "target/pr.h"
#include "target/scsi.h"
#include "target/target.h"
#include "util/coroutine.h"
#include "util/list.h"
#include "util/loop.h"

#define LUN_MIN_BLOCK_SHIFT    9
#define LUN_MAX_BLOCK_SHIFT    12
#define LUN_THRESHOLD_EXPONENT 11 /* a threshold set is 2^11 blocks */
#define LUN_THRESHOLD_ASK_NS   UINT64_C(1000000000)
#define LUN_MAX_COMMANDS       4096       /* beyond: TASK SET FULL */
#define LUN_MAX_PARKED         64         /* beyond: BUSY */
#define LUN_MAX_PARKED_BYTES   (8u << 20) /* write data held by parked commands; beyond: BUSY */
#define LUN_READER_NS          (60 * UINT64_C(1000000000)) /* who has read that lately still reads */
#define LUN_SOURCE_TIMEOUT_NS  (120 * UINT64_C(1000000000))

/* Limits told in VPD page B0h and enforced. */
#define LUN_MAX_TRANSFER_BLOCKS  65536u
#define LUN_MAX_UNMAP_BYTES      (UINT64_C(512) << 20)
#define LUN_MAX_UNMAP_DESCS      255
#define LUN_MAX_WRITE_SAME_BYTES (UINT64_C(1) << 30)

struct sanitize;

#define LUN_KEPT_COPIES 8

/* An EXTENDED COPY, for RECEIVE COPY RESULTS. */
struct xcopy_result {
    const struct nexus *by; /* NULL: there is none here, or nobody may ask any more */
    const void *running;    /* the copy that is at work */
    uint8_t list_id;
    uint16_t segments;
    uint64_t bytes;
    uint8_t status; /* enum scsi_status of the command */
    uint8_t sense_len;
    uint8_t sense[32];
};

/* Mode parameters: all that MODE SELECT can change. */
struct mode_values {
    bool write_cache, sense_descriptor, software_protect;
    bool threshold_armed;
    uint32_t threshold_sets; /* told when less than this many are left */
};

struct lun {
    struct list_head link; /* in target->luns, ascending; on no list once it is gone */
    struct target *target;
    uint16_t number;
    bool writable;
    bool gone;   /* removed: no new request may enter the graph */
    bool orphan; /* the last command to end frees it */
    bool removable;
    uint8_t block_shift;
    uint8_t physical_shift; /* what is written in smaller pieces is read first */
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

    struct list_head ranges; /* struct lun_range, in the order they came */
    unsigned nr_exclusive;
    struct deferred ranges_moved;

    struct pr pr;
    struct co_mutex kept_lock;       /* one change of what is kept for the LUN at a time */
    const struct nexus *reserved_by; /* RESERVE(6), RESERVE(10) */
    struct co_queue command_left;    /* woken when a command ends, if anyone waits */

    struct mode_values mode, saved_mode;
    bool threshold_told, threshold_asking;
    uint64_t threshold_asked_ns;

    bool ejected;
    struct sanitize *sanitize; /* one is running */
    bool sanitize_failed, sanitize_may_exit, format_failed;

    struct xcopy_result copies[LUN_KEPT_COPIES];
    unsigned next_copy; /* the place that is given away next */
    struct lun_stats stats;
    uint64_t error_quiet_until_ns[2][2]; /* [write][no space] */
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

/* Of COMPARE AND WRITE: one byte in the CDB, three times the data in one buffer. */
static inline uint32_t lun_max_compare_blocks(const struct lun *lun)
{
    uint32_t fit = (BUFPOOL_MAX_BYTES / 3) >> lun->block_shift;

    return fit < 255 ? fit : 255;
}

/* For a coroutine that needs the LUN to stay, but not its graph. */
void lun_pin(struct lun *lun);
void lun_unpin(struct lun *lun);

/* True if it may go on at once, else r->go() is called later. */
bool lun_range_enter(struct lun *lun, struct lun_range *r);
void lun_range_leave(struct lun *lun, struct lun_range *r);
void lun_ranges_moved(struct deferred *d);

/* Unit, alignment and largest length of atomic writes; 0: there are none. */
static inline uint32_t lun_atomic_bytes(const struct lun *lun)
{
    uint32_t bytes = blk_head_node(&lun->head)->limits.atomic_bytes;

    return lun->writable && bytes >= lun_block_bytes(lun) ? bytes : 0;
}

/* ANCHOR of UNMAP and WRITE SAME: zeros for which room is kept. */
static inline bool lun_can_anchor(const struct lun *lun)
{
    return lun->writable && blk_head_node(&lun->head)->limits.can_anchor;
}

static inline bool lun_writes_allowed(const struct lun *lun)
{
    return lun->writable && !lun->mode.software_protect;
}

/* Not all that the disk shows is its own (sanitize.c). */
bool lun_has_layer_below(const struct lun *lun);

/* After a write: looks now and then if little room is left (log-pages.c). */
void lun_look_at_room(struct lun *lun);

/* ---- reservations (reserve.c) ---- */

/* True if another nexus' reservation forbids the command. */
bool lun_reserved_against(const struct lun *lun, const struct scsi_cmd *cmd);
/* The same for access of another kind than the command's own (EXTENDED COPY's LUNs). */
bool lun_access_forbidden(const struct lun *lun, const struct nexus *n, bool write);
/* The nexus is gone, or (NULL) the LUN was reset: what it holds by being there. */
void lun_nexus_lost(struct lun *lun, const struct nexus *n);

/* What becomes of a command whose request needs a source that is down. */
enum park_result { PARK_DONE, PARK_AGAIN, PARK_FULL, PARK_TIMEOUT };
enum park_result lun_park(struct lun *lun, struct scsi_cmd *cmd);
void lun_unpark(struct lun *lun, struct scsi_cmd *cmd);

/* Tells the error sink (io-error.c). */
void lun_note_error(struct lun *lun, bool write, int error);

/* ---- unit attentions (nexus.c) ---- */

/* In order of precedence, SPC-4 5.6 / SAM-5 5.14: the first pending one is told first. */
enum ua_kind {
    UA_POWER_ON, /* a new nexus; makes all others pointless */
    UA_DEVICE_RESET,
    UA_COMMANDS_CLEARED, /* by another nexus' task management function */
    UA_MEDIUM_CHANGED,
    UA_RESERVATIONS_PREEMPTED,
    UA_RESERVATIONS_RELEASED,
    UA_REGISTRATIONS_PREEMPTED,
    UA_CAPACITY,
    UA_REPORTED_LUNS,
    UA_INQUIRY_DATA,
    UA_MODE_PARAMETERS,
    UA_THIN_THRESHOLD,
    UA_NR_KINDS,
};

/* Takes the most important one pending off; false: none. */
bool nexus_take_ua(struct nexus *n, uint16_t lun, enum ua_kind *kind);
/* Every nexus of @t that has used the LUN hears of it. */
void ua_raise(struct target *t, uint16_t lun, enum ua_kind kind);
void ua_raise_all_luns(struct target *t, enum ua_kind kind);
/* ... every nexus but @but. */
void ua_raise_others(struct target *t, uint16_t lun, enum ua_kind kind, const struct nexus *but);
/* ... the nexus of these two ports. */
void ua_raise_port(struct target *t, uint16_t lun, enum ua_kind kind, const struct pr_port *port);
/* ... one nexus. */
void nexus_raise(struct nexus *n, uint16_t lun, enum ua_kind kind);
/* The nexus has seen the news by itself. */
void nexus_clear_ua(struct nexus *n, enum ua_kind kind);
/* The nexus reads data of the LUN. */
void nexus_note_read(struct nexus *n, uint16_t lun);
void nexuses_forget_lun(struct target *t, uint16_t lun);
/* PREVENT ALLOW MEDIUM REMOVAL, until the nexus allows it, is gone, or a reset. */
void nexus_prevent_removal(struct nexus *n, uint16_t lun, bool prevent);
bool removal_prevented(struct target *t, uint16_t lun);

/* Mode parameters as they are after power on: those saved (mode-pages.c). */
void mode_reset(struct lun *lun);
/* ... and where nothing is saved. */
struct mode_values mode_defaults(const struct lun *lun);
/* Saved ones from the text given to the sink; -EINVAL: not such a text of this LUN. */
int mode_from_text(struct mode_values *v, const char *text, uint16_t lun);

#endif
