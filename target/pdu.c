/* SPDX-License-Identifier: BSD-3-Clause */
/* PDU headers to structs and back, RFC 7143 section 11. Byte positions are the standard's. */
#include "target/pdu.h"

#include <errno.h>
#include <string.h>

#include "util/byteorder.h"

#define F_FINAL  0x80
#define F_CONT   0x40
#define F_STATUS 0x01 /* of a Data-In */

#define PDU_BHS_CDB_BYTES 16

enum { AHS_EXTENDED_CDB = 1, AHS_READ_LENGTH = 2 };
#define AHS_TYPE_MASK 0x3f
#define AHS_HDR_BYTES 4 /* length, type, and a byte that is reserved in both types */

static int decode_cmd(const uint8_t *b, struct pdu *p)
{
    p->cmd.read = b[1] & 0x40;
    p->cmd.write = b[1] & 0x20;
    p->cmd.attr = b[1] & 0x07;
    p->cmd.edtl_bytes = get_be32(b + 20);
    memcpy(p->cmd.cdb, b + 32, PDU_BHS_CDB_BYTES);
    p->cmd.cdb_bytes = PDU_BHS_CDB_BYTES;
    if (p->itt == PDU_NO_TAG || p->cmd.attr > 4)
        return -EPROTO;
    /* 11.3.1: data that follows, or F */
    return p->final || p->cmd.write ? 0 : -EPROTO;
}

static int decode_tmf(const uint8_t *b, struct pdu *p)
{
    p->tmf.function = b[1] & 0x7f;
    p->tmf.rtt = get_be32(b + 20);
    p->tmf.refcmdsn = get_be32(b + 32);
    return p->itt != PDU_NO_TAG && p->final ? 0 : -EPROTO;
}

static int decode_login(const uint8_t *b, struct pdu *p)
{
    p->cont = b[1] & F_CONT;
    p->login.csg = b[1] >> 2 & 3;
    p->login.nsg = b[1] & 3;
    p->login.version_min = b[3];
    memcpy(p->login.isid, b + 8, 6);
    p->login.tsih = get_be16(b + 14);
    p->login.cid = get_be16(b + 20);
    /* 11.12.2: C and T exclude each other */
    return p->immediate && p->itt != PDU_NO_TAG && !(p->final && p->cont) ? 0 : -EPROTO;
}

static int decode_text(const uint8_t *b, struct pdu *p)
{
    p->cont = b[1] & F_CONT;
    p->ttt = get_be32(b + 20);
    return p->itt != PDU_NO_TAG && !(p->final && p->cont) ? 0 : -EPROTO;
}

static int decode_data_out(const uint8_t *b, struct pdu *p)
{
    p->ttt = get_be32(b + 20);
    p->cmdsn = 0;
    p->data_out.datasn = get_be32(b + 36);
    p->data_out.offset_bytes = get_be32(b + 40);
    return p->itt != PDU_NO_TAG ? 0 : -EPROTO;
}

static int decode_logout(const uint8_t *b, struct pdu *p)
{
    p->logout.reason = b[1] & 0x7f;
    p->logout.cid = get_be16(b + 20);
    return p->itt != PDU_NO_TAG && p->final ? 0 : -EPROTO;
}

static int decode_nop(const uint8_t *b, struct pdu *p)
{
    p->ttt = get_be32(b + 20);
    /* 11.18.1: without a tag nobody answers, so it can't hold a place in the command order */
    return p->itt != PDU_NO_TAG || p->immediate ? 0 : -EPROTO;
}

static int decode_snack(const uint8_t *b, struct pdu *p)
{
    p->ttt = get_be32(b + 20);
    p->cmdsn = 0;
    return 0;
}

static int (*const decoders[64])(const uint8_t *, struct pdu *) = {
    [PDU_NOP_OUT] = decode_nop,       [PDU_SCSI_CMD] = decode_cmd,
    [PDU_TMF_REQ] = decode_tmf,       [PDU_LOGIN_REQ] = decode_login,
    [PDU_TEXT_REQ] = decode_text,     [PDU_DATA_OUT] = decode_data_out,
    [PDU_LOGOUT_REQ] = decode_logout, [PDU_SNACK] = decode_snack,
};

int pdu_decode(const uint8_t bhs[PDU_BHS_BYTES], struct pdu *p)
{
    memset(p, 0, sizeof(*p));
    p->opcode = bhs[0] & 0x3f;
    p->immediate = bhs[0] & 0x40;
    p->final = bhs[1] & F_FINAL;
    p->ahs_bytes = (uint16_t)(bhs[4] * 4);
    p->data_bytes = get_be24(bhs + 5);
    memcpy(p->lun, bhs + 8, 8);
    p->itt = get_be32(bhs + 16);
    p->cmdsn = get_be32(bhs + 24);
    p->expstatsn = get_be32(bhs + 28);
    if (!decoders[p->opcode])
        return -EOPNOTSUPP;
    return decoders[p->opcode](bhs, p);
}

void pdu_decode_ahs(const uint8_t *ahs, struct pdu *p)
{
    unsigned at = 0, bytes, type;

    while (p->cmd.cdb_bytes && at < p->ahs_bytes) {
        bytes = 3u + get_be16(ahs + at); /* AHSLength counts neither itself nor the type */
        type = ahs[at + 2] & AHS_TYPE_MASK;
        if (bytes > p->ahs_bytes - at || type == AHS_READ_LENGTH) {
            p->cmd.cdb_bytes = 0;
        } else if (type == AHS_EXTENDED_CDB) {
            unsigned more = bytes > AHS_HDR_BYTES ? bytes - AHS_HDR_BYTES : 0;

            if (p->cmd.cdb_bytes + more > PDU_MAX_CDB_BYTES || !more) {
                p->cmd.cdb_bytes = 0;
                return;
            }
            memcpy(p->cmd.cdb + p->cmd.cdb_bytes, ahs + at + AHS_HDR_BYTES, more);
            p->cmd.cdb_bytes += (uint16_t)more;
        }
        at += bytes + pdu_pad_bytes(bytes);
    }
}

static void begin(uint8_t *bhs, enum pdu_opcode opcode, uint8_t flags, uint32_t itt)
{
    memset(bhs, 0, PDU_BHS_BYTES);
    bhs[0] = opcode;
    bhs[1] = flags;
    put_be32(bhs + 16, itt);
}

void pdu_set_sn(uint8_t bhs[PDU_BHS_BYTES], uint32_t statsn, uint32_t expcmdsn, uint32_t maxcmdsn)
{
    put_be32(bhs + 24, statsn);
    put_be32(bhs + 28, expcmdsn);
    put_be32(bhs + 32, maxcmdsn);
}

void pdu_set_data_bytes(uint8_t bhs[PDU_BHS_BYTES], uint32_t data_bytes)
{
    put_be32(bhs + 4, data_bytes); /* TotalAHSLength 0 and 24 bits of length */
}

struct pdu_residual pdu_residual(uint64_t transfer_bytes, uint32_t edtl_bytes)
{
    struct pdu_residual r = {0};
    uint64_t diff;

    r.overflow = transfer_bytes > edtl_bytes;
    r.underflow = transfer_bytes < edtl_bytes;
    diff = r.overflow ? transfer_bytes - edtl_bytes : edtl_bytes - transfer_bytes;
    r.bytes = diff > UINT32_MAX ? UINT32_MAX : (uint32_t)diff;
    return r;
}

static uint8_t residual_flags(struct pdu_residual r)
{
    return (r.overflow ? 0x04 : 0) | (r.underflow ? 0x02 : 0);
}

void pdu_scsi_rsp(uint8_t *bhs, uint32_t itt, uint8_t status, struct pdu_residual r,
                  uint32_t expdatasn)
{
    begin(bhs, PDU_SCSI_RSP, F_FINAL | residual_flags(r), itt);
    bhs[3] = status;
    put_be32(bhs + 36, expdatasn);
    put_be32(bhs + 44, r.bytes);
}

void pdu_data_in(uint8_t *bhs, uint32_t itt, uint32_t datasn, uint32_t offset_bytes)
{
    begin(bhs, PDU_DATA_IN, 0, itt);
    put_be32(bhs + 20, PDU_NO_TAG);
    put_be32(bhs + 36, datasn);
    put_be32(bhs + 40, offset_bytes);
}

void pdu_data_in_status(uint8_t *bhs, uint8_t status, struct pdu_residual r)
{
    bhs[1] |= F_STATUS | residual_flags(r);
    bhs[3] = status;
    put_be32(bhs + 44, r.bytes);
}

void pdu_data_in_cut(uint8_t *bhs, const uint8_t *first, uint32_t index, uint32_t at_bytes,
                     uint32_t length_bytes, bool final, bool last)
{
    memcpy(bhs, first, PDU_BHS_BYTES);
    if (!last || !(first[1] & F_STATUS)) { /* 11.7: status, StatSN, residual are reserved */
        bhs[1] = 0;
        bhs[3] = 0;
        put_be32(bhs + 24, 0);
        put_be32(bhs + 44, 0);
    }
    if (final)
        bhs[1] |= F_FINAL;
    pdu_set_data_bytes(bhs, length_bytes);
    put_be32(bhs + 36, get_be32(first + 36) + index);
    put_be32(bhs + 40, get_be32(first + 40) + at_bytes);
}

void pdu_r2t(uint8_t *bhs, const uint8_t lun[8], uint32_t itt, uint32_t ttt, uint32_t r2tsn,
             uint32_t offset_bytes, uint32_t length_bytes)
{
    begin(bhs, PDU_R2T, F_FINAL, itt);
    memcpy(bhs + 8, lun, 8);
    put_be32(bhs + 20, ttt);
    put_be32(bhs + 36, r2tsn);
    put_be32(bhs + 40, offset_bytes);
    put_be32(bhs + 44, length_bytes);
}

void pdu_tmf_rsp(uint8_t *bhs, uint32_t itt, uint8_t response)
{
    begin(bhs, PDU_TMF_RSP, F_FINAL, itt);
    bhs[2] = response;
}

void pdu_login_rsp(uint8_t *bhs, const struct pdu_login_rsp *r)
{
    uint8_t flags = (uint8_t)(r->csg << 2);

    if (r->transit)
        flags |= F_FINAL | r->nsg;
    if (r->cont)
        flags |= F_CONT;
    begin(bhs, PDU_LOGIN_RSP, flags, r->itt);
    memcpy(bhs + 8, r->isid, 6);
    put_be16(bhs + 14, r->tsih);
    put_be16(bhs + 36, r->status);
}

void pdu_text_rsp(uint8_t *bhs, uint32_t itt, uint32_t ttt, bool final, bool cont)
{
    begin(bhs, PDU_TEXT_RSP, (final ? F_FINAL : 0) | (cont ? F_CONT : 0), itt);
    put_be32(bhs + 20, ttt);
}

void pdu_logout_rsp(uint8_t *bhs, uint32_t itt, uint8_t response, uint16_t time2wait_s,
                    uint16_t time2retain_s)
{
    begin(bhs, PDU_LOGOUT_RSP, F_FINAL, itt);
    bhs[2] = response;
    put_be16(bhs + 40, time2wait_s);
    put_be16(bhs + 42, time2retain_s);
}

void pdu_nop_in(uint8_t *bhs, const uint8_t lun[8], uint32_t itt, uint32_t ttt)
{
    begin(bhs, PDU_NOP_IN, F_FINAL, itt);
    memcpy(bhs + 8, lun, 8);
    put_be32(bhs + 20, ttt);
}

void pdu_reject(uint8_t *bhs, uint8_t reason)
{
    begin(bhs, PDU_REJECT, F_FINAL, PDU_NO_TAG);
    bhs[2] = reason;
}

void pdu_async(uint8_t *bhs, uint8_t event, uint16_t p1, uint16_t p2, uint16_t p3)
{
    begin(bhs, PDU_ASYNC, F_FINAL, PDU_NO_TAG);
    bhs[36] = event;
    put_be16(bhs + 38, p1);
    put_be16(bhs + 40, p2);
    put_be16(bhs + 42, p3);
}
