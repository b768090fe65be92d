/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands we know: one row each, from which decoding, checks, dispatch and REPORT SUPPORTED
 * OPERATION CODES all follow.
 */
#ifndef COWTGT_SCSI_OPCODES_H
#define COWTGT_SCSI_OPCODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "target/scsi.h"

enum data_dir { DIR_NONE, DIR_IN, DIR_OUT };

/* What a reservation of another nexus does to a command (SPC-4 table 66, SBC-3 table 13). */
enum resv_class {
    RESV_ALLOWED = 1, /* goes through whatever is reserved */
    RESV_UNIT,        /* ... persistently; conflicts with another nexus' RESERVE */
    RESV_READ,        /* conflicts with exclusive access */
    RESV_WRITE,       /* conflicts with write exclusive and exclusive access */
};

enum ua_rule {
    UA_REPORT, /* a pending unit attention ends the command */
    UA_KEEP,   /* runs, and leaves it pending (INQUIRY, REPORT LUNS) */
    UA_RETURN, /* returns it as its data (REQUEST SENSE) */
};

enum op_flags {
    OPF_MEDIUM = 1 << 0,    /* the LBA and length are checked against the capacity */
    OPF_WRITE = 1 << 1,     /* changes the medium: refused on a read-only LUN */
    OPF_TRANSFER = 1 << 2,  /* MAXIMUM TRANSFER LENGTH holds */
    OPF_PROTECT = 1 << 3,   /* has RDPROTECT / WRPROTECT / VRPROTECT, which must be 0 */
    OPF_NO_LUN = 1 << 4,    /* answers even where there is no LUN */
    OPF_COWL = 1 << 5,      /* only on disks and layers of a chain */
    OPF_READY = 1 << 6,     /* needs a medium, and none that is being sanitized */
    OPF_REMOVABLE = 1 << 7, /* only on units with a removable medium */
    OPF_RESERVE = 1 << 8,   /* RESERVE, RELEASE: not beside persistent reservations */
    OPF_PR = 1 << 9,        /* PERSISTENT RESERVE: not beside a RESERVE */
    OPF_ATOMIC = 1 << 10,   /* only on units that can write atomically */
    OPF_WLUN = 1 << 11,     /* the well known logical unit has it */
};

/* A big-endian field of the CDB; bytes 0: there is none. */
struct cdb_field {
    uint8_t at, bytes;
};

struct scsi_opcode {
    const char *name;
    /* Does all of it, or for plain data-in commands scsi_start_reply() with reply(). */
    void (*start)(struct scsi_cmd *cmd);
    /* Fills a zeroed buffer of SCSI_REPLY_BYTES: the bytes of the whole answer, or -1 after
     * a cmd_fail*(). The allocation length is applied afterwards. */
    int (*reply)(struct scsi_cmd *cmd, uint8_t *buf);
    uint8_t dir;    /* enum data_dir */
    uint8_t resv;   /* enum resv_class */
    uint8_t ua;     /* enum ua_rule */
    uint16_t flags; /* enum op_flags */
    uint8_t cdb_len;
    struct cdb_field lba;
    struct cdb_field len;        /* blocks, or for replies the allocation length in bytes */
    uint8_t usage[SCSI_MAX_CDB]; /* SPC-4 6.35.3: bits of the CDB we look at; [0] is the opcode */
    const struct scsi_opcode *by_sa; /* SCSI_NR_SA rows by service action, instead of all above */
};

#define SCSI_NR_SA       32
#define SCSI_VARIABLE    0x7f /* opcode of CDBs with a length of their own, SPC-4 4.2.5.3 */
#define SCSI_REPLY_BYTES 16384

/* Service action, and where it is: the last byte that belongs to it. */
uint16_t cdb_service_action(const uint8_t *cdb);
unsigned cdb_service_action_at(uint8_t opcode);
/* The row for a CDB (SCSI_MAX_CDB bytes). NULL with *bad_sa: opcode known, service action not. */
const struct scsi_opcode *scsi_opcode_find(const uint8_t *cdb, bool *bad_sa);
/* The row as it stands in the table (with by_sa); NULL: opcode unknown. */
const struct scsi_opcode *scsi_opcode_group(uint8_t opcode);
/* True if @lun has this command. */
bool scsi_opcode_on_lun(const struct scsi_opcode *op, const struct lun *lun);
/* CDB field as a number (bytes 1..8). */
uint64_t cdb_get(const uint8_t *cdb, struct cdb_field f);

/* ---- handlers ---- */
void scsi_start_reply(struct scsi_cmd *cmd);

/* spc.c */
void spc_good(struct scsi_cmd *cmd);
void spc_report_luns(struct scsi_cmd *cmd);
int spc_inquiry(struct scsi_cmd *cmd, uint8_t *buf);
int spc_request_sense(struct scsi_cmd *cmd, uint8_t *buf);
int spc_report_opcodes(struct scsi_cmd *cmd, uint8_t *buf);
int spc_report_tmfs(struct scsi_cmd *cmd, uint8_t *buf);
int spc_report_target_ports(struct scsi_cmd *cmd, uint8_t *buf);
void spc_send_diagnostic(struct scsi_cmd *cmd);
int spc_receive_diagnostic(struct scsi_cmd *cmd, uint8_t *buf);
void spc_prevent_removal(struct scsi_cmd *cmd);
/* Why the medium can't be used now, into @s->id; SENSE_NONE: it can. */
struct sense;
void scsi_not_ready(const struct lun *lun, struct sense *s);
/* reserve.c */
void spc_reserve(struct scsi_cmd *cmd);
void spc_release(struct scsi_cmd *cmd);
void spc_pr_in(struct scsi_cmd *cmd);
void spc_pr_out(struct scsi_cmd *cmd);
/* log-pages.c */
void spc_log_sense(struct scsi_cmd *cmd);
/* xcopy.c */
void spc_extended_copy(struct scsi_cmd *cmd);
int spc_copy_status(struct scsi_cmd *cmd, uint8_t *buf);
int spc_copy_parameters(struct scsi_cmd *cmd, uint8_t *buf);
int spc_copy_failure(struct scsi_cmd *cmd, uint8_t *buf);
/* vpd.c */
int vpd_inquiry(struct scsi_cmd *cmd, uint8_t *buf);
/* True if this designator (as in VPD 83h, in 24 bytes) is one of the LUN's. */
bool vpd_designates(const struct lun *lun, const uint8_t *designator);
/* mode-pages.c */
int mode_sense(struct scsi_cmd *cmd, uint8_t *buf);
void mode_select(struct scsi_cmd *cmd);
/* sbc.c */
int sbc_read_capacity10(struct scsi_cmd *cmd, uint8_t *buf);
int sbc_read_capacity16(struct scsi_cmd *cmd, uint8_t *buf);
void sbc_read(struct scsi_cmd *cmd);
void sbc_write(struct scsi_cmd *cmd);
void sbc_verify(struct scsi_cmd *cmd);
void sbc_sync_cache(struct scsi_cmd *cmd);
void sbc_start_stop(struct scsi_cmd *cmd);
void sbc_prefetch(struct scsi_cmd *cmd);
int sbc_read_defects(struct scsi_cmd *cmd, uint8_t *buf);
/* sbc-rmw.c */
void sbc_compare_and_write(struct scsi_cmd *cmd);
void sbc_orwrite(struct scsi_cmd *cmd);
void sbc_write_atomic(struct scsi_cmd *cmd);
void sbc_write_verify(struct scsi_cmd *cmd);
/* sanitize.c */
void sbc_sanitize(struct scsi_cmd *cmd);
void sbc_format_unit(struct scsi_cmd *cmd);
/* sbc-unmap.c */
void sbc_unmap(struct scsi_cmd *cmd);
void sbc_write_same(struct scsi_cmd *cmd);
/* lba-status.c */
void sbc_get_lba_status(struct scsi_cmd *cmd);
void sbc_get_lba_status32(struct scsi_cmd *cmd);
void cowl_get_layer_status(struct scsi_cmd *cmd);

#endif
