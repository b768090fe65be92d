/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seam between the transport (iSCSI: session, PDUs, R2T) and SCSI (CDBs, LUNs).
 *
 * The transport fills a command and calls scsi_cmd_start(). SCSI asks for data with
 * ops->data_out(), hands data over with ops->data_in(), and ends with exactly one
 * ops->complete(). The transport owns the memory and may not free or reuse it before complete().
 * None of the ops calls back into SCSI from inside; what is ready at once is told by deferring.
 * All data buffers come from bufpool_main() and are at most BUFPOOL_MAX_BYTES: long transfers go
 * in chunks.
 */
#ifndef COWTGT_SCSI_H
#define COWTGT_SCSI_H

#include <stdbool.h>
#include <stdint.h>
#include "lun-backends/block.h"
#include "util/bufpool.h"
#include "util/list.h"
#include "util/loop.h"

struct target;
struct lun;
struct scsi_cmd;
struct scsi_opcode;

/* A part of a LUN's medium that a command works on: lun-range.c. */
struct lun_range {
    struct list_head link; /* in lun->ranges */
    uint64_t start, end;   /* bytes */
    bool exclusive, granted;
    void (*go)(struct lun_range *r); /* it had to wait, and is granted now */
};

enum scsi_status {
    SCSI_GOOD = 0x00,
    SCSI_CHECK_CONDITION = 0x02,
    SCSI_CONDITION_MET = 0x04,
    SCSI_BUSY = 0x08,
    SCSI_RESERVATION_CONFLICT = 0x18,
    SCSI_TASK_SET_FULL = 0x28,
    SCSI_ACA_ACTIVE = 0x30,
    SCSI_TASK_ABORTED = 0x40,
};

enum scsi_task_attr { /* RFC 7143 11.3.1 */
                      SCSI_ATTR_UNTAGGED = 0,
                      SCSI_ATTR_SIMPLE = 1,
                      SCSI_ATTR_ORDERED = 2,
                      SCSI_ATTR_HEAD = 3,
                      SCSI_ATTR_ACA = 4,
};

/*
 * An I_T nexus as SCSI sees it: embedded in the iSCSI session, one per session, known to all LUNs
 * of the target. Unit attentions are kept per nexus and LUN, coalesced, at most 5 pending: beyond
 * that the least important one is dropped.
 */
#define NEXUS_MAX_UA 5
struct nexus {
    struct list_head link; /* in the target */
    struct target *target;
    const char *initiator; /* owned by the session */
    uint8_t isid[6];
    uint16_t rel_port;           /* the target port it came by: ports.h */
    struct list_head luns;       /* scsi: per-LUN state (pending unit attentions) */
    const struct lun_mask *mask; /* the target's; NULL: all LUNs are seen */
};
void nexus_init(struct nexus *n, struct target *t, const char *initiator, const uint8_t isid[6],
                uint16_t rel_port);
void nexus_fini(struct nexus *n);

struct scsi_transport_ops {
    /*
     * Fill @buf with the command's data-out bytes [offset, offset + len): immediate and
     * unsolicited data first, the rest by R2T. When it is there: scsi_cmd_data_out_ready(cmd).
     * Chunks are asked for in ascending order without gaps, one at a time. len is never more than
     * what the initiator said it would send (edtl).
     */
    void (*data_out)(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len);
    /*
     * Send @buf as data-in bytes [offset, offset + len). @buf (got with @alloc bytes from
     * bufpool_main()) is the transport's from now on; it puts it back when sent, then calls
     * scsi_cmd_data_in_sent(cmd). Ascending, no gaps, one at a time. While cmd->loan has data they
     * are to be sent instead of @buf's; the transport returns the loan with the buffer.
     */
    void (*data_in)(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len, uint32_t alloc);
    /*
     * The end: cmd->status, sense and residual fields are set; cmd->last_in (may be NULL) is
     * a last chunk of data-in as for data_in(), the status goes with it where that is allowed
     * (phase collapse, GOOD only). If cmd->aborted, nothing is sent. Afterwards the memory is
     * the transport's again. Not called from inside scsi_cmd_start().
     */
    void (*complete)(struct scsi_cmd *cmd);
};

#define SCSI_MAX_SENSE 252
#define SCSI_MAX_CDB   32

struct scsi_cmd {
    /* ---- filled by the transport before scsi_cmd_start() ---- */
    const struct scsi_transport_ops *ops;
    struct nexus *nexus;
    uint8_t lun_field[8];      /* as in the PDU, SAM-5 4.7 */
    uint8_t cdb[SCSI_MAX_CDB]; /* zeros behind what the transport carried */
    uint8_t cdb_bytes;         /* 16 or more; 0: no command that there is, refused */
    uint8_t attr;              /* enum scsi_task_attr */
    bool dir_read, dir_write;  /* what the initiator said it expects */
    uint32_t edtl_bytes;       /* expected data transfer length */
    uint32_t chunk_bytes;      /* largest data-out chunk worth asking for */
    struct blk_loan loan;      /* recalled is set: data-in may be lent */

    /* ---- the result, valid in complete() ---- */
    uint8_t status;
    uint8_t sense[SCSI_MAX_SENSE];
    uint16_t sense_len;
    /* Bytes the CDB moves in the direction of the transfer: for the residual counts
     * (RFC 7143 11.4.5.1: > edtl overflow, < edtl underflow). */
    uint64_t transfer_bytes;
    void *last_in;
    uint32_t last_in_offset, last_in_len, last_in_alloc;
    bool aborted;

    /* ---- SCSI's own ---- */
    struct list_head link; /* in lun->commands */
    struct lun *lun;
    bool to_wlun; /* SCSI_WLUN_REPORT_LUNS is meant: lun is NULL */
    const struct scsi_opcode *op;
    uint64_t lba;
    uint64_t nr_blocks;
    uint64_t moved_bytes; /* of the transfer, finished */
    uint8_t *buf;         /* current chunk */
    uint32_t buf_len, buf_alloc;
    struct iovec iov;
    struct blk_req req;
    struct lun_range io_range; /* listed while req is in the graph or waits for its range */
    struct lun_range lock;     /* listed from cmd_lock() to cmd_unlock() */
    struct buf_waiter buf_waiter;
    void (*next)(struct scsi_cmd *cmd);  /* goes on when what the phase waits for is there */
    void (*again)(struct scsi_cmd *cmd); /* makes the current block request anew */
    struct list_head park_link;          /* in lun->parked */
    uint64_t park_deadline_ns;           /* 0: nothing waited for a source yet */
    uint32_t source_seq;                 /* lun->source_seq when the request was made */
    struct deferred defer;
    uint8_t phase; /* enum cmd_phase */
    bool borrows;  /* the request may be answered by the loan */
    bool abort_requested;
    const void *aborted_by; /* the PREEMPT AND ABORT that waits for its end */
    void *priv;             /* of a multi-step command, malloc'ed; freed when it ends */
};

/* Decodes, checks and starts a command. complete() follows, always. */
void scsi_cmd_start(struct scsi_cmd *cmd);
void scsi_cmd_data_out_ready(struct scsi_cmd *cmd);
void scsi_cmd_data_in_sent(struct scsi_cmd *cmd);
/*
 * The initiator gave the command up (ABORT TASK, reset, session gone): it ends as soon as it can
 * let go of its buffers, with cmd->aborted set. Parked and waiting commands end this turn. Data-out
 * that was asked for will not come: the transport forgets its buffer pointer at once. A chunk given
 * to data_in() is the transport's: sent or dropped, scsi_cmd_data_in_sent() comes once for it, and
 * complete() after that.
 */
void scsi_cmd_abort(struct scsi_cmd *cmd);

/* LUN field to LUN number; -EINVAL for addressing methods we don't have. SAM-5 4.7 */
int scsi_lun_decode(const uint8_t field[8], uint16_t *number);
void scsi_lun_encode(uint16_t number, uint8_t field[8]);
/* The well known logical unit that every target has for REPORT LUNS, SPC-4 9.2; its unit attentions
 * are kept by this number, which is none of a LUN. */
#define SCSI_WLUN_REPORT_LUNS 0xc101
bool scsi_lun_is_report_luns(const uint8_t field[8]);
void scsi_lun_encode_report_luns(uint8_t field[8]);

/* LOGICAL UNIT RESET happened / TARGET RESET: unit attentions, state back to saved. */
void scsi_lun_reset(struct target *t, uint16_t number, struct nexus *by);

#endif
