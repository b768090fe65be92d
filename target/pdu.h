/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * iSCSI PDUs (RFC 7143 section 11): the 48 bytes of a basic header to a struct and back. Pure: no
 * state, no I/O, nothing allocated. What the header alone can prove wrong is refused here; what
 * needs the session's state is checked by who holds that state.
 */
#ifndef COWTGT_PDU_H
#define COWTGT_PDU_H

#include <stdbool.h>
#include <stdint.h>

#define PDU_BHS_BYTES     48
#define PDU_MAX_AHS_BYTES (255 * 4)
#define PDU_DIGEST_BYTES  4
#define PDU_NO_TAG        0xffffffffu
#define PDU_MAX_CDB_BYTES 32 /* longer ones are of no command that we know */

enum pdu_opcode {
    PDU_NOP_OUT = 0x00,
    PDU_SCSI_CMD = 0x01,
    PDU_TMF_REQ = 0x02,
    PDU_LOGIN_REQ = 0x03,
    PDU_TEXT_REQ = 0x04,
    PDU_DATA_OUT = 0x05,
    PDU_LOGOUT_REQ = 0x06,
    PDU_SNACK = 0x10,
    PDU_NOP_IN = 0x20,
    PDU_SCSI_RSP = 0x21,
    PDU_TMF_RSP = 0x22,
    PDU_LOGIN_RSP = 0x23,
    PDU_TEXT_RSP = 0x24,
    PDU_DATA_IN = 0x25,
    PDU_LOGOUT_RSP = 0x26,
    PDU_R2T = 0x31,
    PDU_ASYNC = 0x32,
    PDU_REJECT = 0x3f,
};

enum pdu_reject_reason { /* RFC 7143 11.17.1 */
                         PDU_REJECT_DATA_DIGEST = 0x02,
                         PDU_REJECT_SNACK = 0x03,
                         PDU_REJECT_PROTOCOL = 0x04,
                         PDU_REJECT_NOT_SUPPORTED = 0x05,
                         PDU_REJECT_IMMEDIATE = 0x06,
                         PDU_REJECT_INVALID_FIELD = 0x09,
                         PDU_REJECT_WAITING_FOR_LOGOUT = 0x0c,
};

enum pdu_tmf { /* RFC 7143 11.5.1 */
               PDU_TMF_ABORT_TASK = 1,
               PDU_TMF_ABORT_TASK_SET = 2,
               PDU_TMF_CLEAR_ACA = 3,
               PDU_TMF_CLEAR_TASK_SET = 4,
               PDU_TMF_LUN_RESET = 5,
               PDU_TMF_TARGET_WARM_RESET = 6,
               PDU_TMF_TARGET_COLD_RESET = 7,
               PDU_TMF_TASK_REASSIGN = 8,
};

enum pdu_tmf_rsp { /* RFC 7143 11.6.1 */
                   PDU_TMF_COMPLETE = 0,
                   PDU_TMF_NO_TASK = 1,
                   PDU_TMF_NO_LUN = 2,
                   PDU_TMF_NO_REASSIGN = 4,
                   PDU_TMF_NOT_SUPPORTED = 5,
                   PDU_TMF_REJECTED = 255,
};

enum pdu_stage { PDU_STAGE_SECURITY = 0, PDU_STAGE_OPERATIONAL = 1, PDU_STAGE_FULL = 3 };

/* A PDU from the initiator. Fields that its kind doesn't have are 0. */
struct pdu {
    uint8_t opcode; /* enum pdu_opcode */
    bool immediate;
    bool final;          /* F; T (transit) of a Login Request */
    bool cont;           /* C of Login and Text Requests */
    uint16_t ahs_bytes;  /* multiple of 4 */
    uint32_t data_bytes; /* of the data segment, without padding */
    uint8_t lun[8];
    uint32_t itt, ttt;
    uint32_t cmdsn, expstatsn;
    union {
        struct {
            bool read, write;
            uint8_t attr;
            uint32_t edtl_bytes;
            uint16_t cdb_bytes; /* 16; with an AHS more; 0: no command that can be (see below) */
            uint8_t cdb[PDU_MAX_CDB_BYTES]; /* zeros behind */
        } cmd;
        struct {
            uint32_t datasn, offset_bytes;
        } data_out;
        struct {
            uint8_t csg, nsg; /* enum pdu_stage */
            uint8_t version_min;
            uint8_t isid[6];
            uint16_t tsih, cid;
        } login;
        struct {
            uint8_t function; /* enum pdu_tmf */
            uint32_t rtt, refcmdsn;
        } tmf;
        struct {
            uint8_t reason;
            uint16_t cid;
        } logout;
    };
};

/*
 * 0, or -EOPNOTSUPP: not a request of an initiator, or -EPROTO: fields that contradict each
 * other. @p has opcode, lengths and tag even then, so that it can be skipped and rejected.
 */
int pdu_decode(const uint8_t bhs[PDU_BHS_BYTES], struct pdu *p);
/*
 * What follows the header of a SCSI Command, @p->ahs_bytes of it (RFC 7143 11.2.2): the rest of a
 * long CDB. cmd.cdb_bytes becomes 0 if it is longer than any we know, if data goes in both
 * directions, or if the lengths contradict each other. Other kinds of AHS are skipped.
 */
void pdu_decode_ahs(const uint8_t *ahs, struct pdu *p);

static inline uint32_t pdu_pad_bytes(uint32_t data_bytes)
{
    return -data_bytes & 3;
}

/* Serial numbers compare modulo 2^32 (RFC 1982, RFC 7143 4.2.2.1). */
static inline bool sn_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* ---- responses: each fills all 48 bytes but the sequence numbers ----------------- */

/* StatSN, ExpCmdSN, MaxCmdSN, at the same place in all that a target sends. */
void pdu_set_sn(uint8_t bhs[PDU_BHS_BYTES], uint32_t statsn, uint32_t expcmdsn, uint32_t maxcmdsn);
/* @data_bytes of the data segment, and no AHS. */
void pdu_set_data_bytes(uint8_t bhs[PDU_BHS_BYTES], uint32_t data_bytes);

struct pdu_residual {
    bool overflow, underflow;
    uint32_t bytes;
};
struct pdu_residual pdu_residual(uint64_t transfer_bytes, uint32_t edtl_bytes);

void pdu_scsi_rsp(uint8_t *bhs, uint32_t itt, uint8_t status, struct pdu_residual r,
                  uint32_t expdatasn);
/* A Data-In without F and S; pdu_data_in_cut() makes one PDU of a series of it. */
void pdu_data_in(uint8_t *bhs, uint32_t itt, uint32_t datasn, uint32_t offset_bytes);
/* Adds S, status and residual to a Data-In. */
void pdu_data_in_status(uint8_t *bhs, uint8_t status, struct pdu_residual r);
/*
 * The PDU @index of the series that @first opens, with @length_bytes that start @at_bytes into
 * it; @final sets F, only @last keeps status, residual and StatSN.
 */
void pdu_data_in_cut(uint8_t *bhs, const uint8_t *first, uint32_t index, uint32_t at_bytes,
                     uint32_t length_bytes, bool final, bool last);
void pdu_r2t(uint8_t *bhs, const uint8_t lun[8], uint32_t itt, uint32_t ttt, uint32_t r2tsn,
             uint32_t offset_bytes, uint32_t length_bytes);
void pdu_tmf_rsp(uint8_t *bhs, uint32_t itt, uint8_t response);
struct pdu_login_rsp {
    uint8_t csg, nsg;
    bool transit, cont;
    uint8_t isid[6];
    uint16_t tsih;
    uint32_t itt;
    uint16_t status; /* class << 8 | detail */
};
void pdu_login_rsp(uint8_t *bhs, const struct pdu_login_rsp *r);
void pdu_text_rsp(uint8_t *bhs, uint32_t itt, uint32_t ttt, bool final, bool cont);
void pdu_logout_rsp(uint8_t *bhs, uint32_t itt, uint8_t response, uint16_t time2wait_s,
                    uint16_t time2retain_s);
void pdu_nop_in(uint8_t *bhs, const uint8_t lun[8], uint32_t itt, uint32_t ttt);
void pdu_reject(uint8_t *bhs, uint8_t reason);
/* RFC 7143 11.9: an iSCSI event without sense data. */
void pdu_async(uint8_t *bhs, uint8_t event, uint16_t p1, uint16_t p2, uint16_t p3);

#endif
