/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * PDUs of the full feature phase: who handles which, the order of commands (RFC 7143 4.2.2.1),
 * and the short ones: NOP, Logout, Reject.
 *
 * With one connection a session, commands come in the order of CmdSN. A gap can't ever be
 * filled, so it ends the connection; what is outside of the window is ignored without a word.
 */
#include "target/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target/task.h"
#define LOG_AREA "iscsi"
#include "util/log.h"
#include "util/size.h"

struct request_kind {
    bool numbered;      /* has a CmdSN */
    bool in_discovery;  /* a discovery session takes it too */
    bool wants_segment; /* its data segment is kept for end() */
    void (*begin)(struct conn *c, const struct pdu *p);
    /* @data: the segment; NULL if there is none. May take c->rx.segment over. */
    void (*end)(struct conn *c, const struct pdu *p, uint8_t *data);
    /* Data of a task: end() of all others is not called for a bad digest. */
    void (*end_data)(struct conn *c, const struct pdu *p, bool digest_ok);
};

void ffp_reject(struct conn *c, enum pdu_reject_reason reason)
{
    uint8_t bhs[PDU_BHS_BYTES];
    uint8_t *copy = malloc(PDU_BHS_BYTES);

    log_debug("%s: reject %#x of opcode %#x", c->peer, reason, c->rx.pdu.opcode);
    if (!copy) {
        conn_close(c, "out of memory");
        return;
    }
    memcpy(copy, c->rx.bhs, PDU_BHS_BYTES);
    pdu_reject(bhs, (uint8_t)reason);
    conn_send_pdu(c, bhs, copy, PDU_BHS_BYTES, true);
}

/* An error after which the two sides don't agree on the state any more. */
static void protocol_error(struct conn *c, const char *what)
{
    log_notice("%s: %s", c->peer, what);
    ffp_reject(c, PDU_REJECT_PROTOCOL);
    conn_end(c);
}

static void nop_end(struct conn *c, const struct pdu *p, uint8_t *data)
{
    uint32_t n = MIN_OF(p->data_bytes, c->session->params.max_xmit_segment);
    uint8_t bhs[PDU_BHS_BYTES];

    if (p->itt == PDU_NO_TAG) /* the answer to our ping */
        return;
    pdu_nop_in(bhs, p->lun, p->itt, PDU_NO_TAG);
    c->rx.segment = NULL;
    conn_send_pdu(c, bhs, data, data ? n : 0, true);
}

void ffp_ping(struct conn *c)
{
    static const uint8_t lun0[8];
    uint8_t bhs[PDU_BHS_BYTES];

    pdu_nop_in(bhs, lun0, PDU_NO_TAG, conn_new_ttt(c));
    conn_send_pdu(c, bhs, NULL, 0, false);
}

enum { LOGOUT_SESSION = 0, LOGOUT_CONNECTION = 1, LOGOUT_RECOVERY = 2 };
enum { LOGOUT_OK = 0, LOGOUT_NO_CID = 1, LOGOUT_NO_RECOVERY = 2 };

/* RFC 7143 11.14, 11.15 */
static void logout_end(struct conn *c, const struct pdu *p, uint8_t *data)
{
    uint8_t bhs[PDU_BHS_BYTES], response = LOGOUT_OK;

    (void)data;
    if (p->logout.reason > LOGOUT_RECOVERY) {
        ffp_reject(c, PDU_REJECT_INVALID_FIELD);
        return;
    }
    if (p->logout.reason == LOGOUT_RECOVERY)
        response = LOGOUT_NO_RECOVERY;
    else if (p->logout.reason == LOGOUT_CONNECTION && p->logout.cid != c->session->cid)
        response = LOGOUT_NO_CID;
    pdu_logout_rsp(bhs, p->itt, response, (uint16_t)c->session->params.time2wait_s, 0);
    if (conn_send_pdu(c, bhs, NULL, 0, true) && response == LOGOUT_OK)
        conn_end(c);
}

static void snack_begin(struct conn *c, const struct pdu *p)
{
    (void)p;
    c->rx.reject = PDU_REJECT_SNACK; /* ErrorRecoveryLevel is 0 */
}

static void login_again_begin(struct conn *c, const struct pdu *p)
{
    (void)p;
    protocol_error(c, "login request in full feature phase");
}

static void tmf_end(struct conn *c, const struct pdu *p, uint8_t *data)
{
    (void)data;
    tmf_request(c, p);
}

static void text_end(struct conn *c, const struct pdu *p, uint8_t *data)
{
    text_request(c, p, data);
}

static const struct request_kind kinds[] = {
    [PDU_NOP_OUT] = {.numbered = true, .in_discovery = true, .wants_segment = true, .end = nop_end},
    [PDU_SCSI_CMD] = {.numbered = true, .begin = task_command, .end_data = task_data_end},
    [PDU_TMF_REQ] = {.numbered = true, .end = tmf_end},
    [PDU_LOGIN_REQ] = {.in_discovery = true, .begin = login_again_begin},
    [PDU_TEXT_REQ] = {.numbered = true,
                      .in_discovery = true,
                      .wants_segment = true,
                      .end = text_end},
    [PDU_DATA_OUT] = {.begin = task_data_out_begin, .end_data = task_data_end},
    [PDU_LOGOUT_REQ] = {.numbered = true, .in_discovery = true, .end = logout_end},
    [PDU_SNACK] = {.in_discovery = true, .begin = snack_begin},
};

/* RFC 7143 4.2.2.1 */
static bool accept_cmdsn(struct conn *c, const struct pdu *p)
{
    if (c->draining) { /* as if it had come too late for this connection */
        c->rx.ignore = true;
        return false;
    }
    if (p->immediate)
        return true;
    if (sn_before(p->cmdsn, c->exp_cmdsn) || sn_before(c->max_cmdsn, p->cmdsn)) {
        c->rx.ignore = true;
        return false;
    }
    if (p->cmdsn != c->exp_cmdsn) {
        protocol_error(c, "a gap in CmdSN");
        return false;
    }
    c->exp_cmdsn++;
    if (p->opcode != PDU_SCSI_CMD) /* a task gives its place back when it ends */
        c->max_cmdsn++;
    return true;
}

/* Room for the whole data segment. */
static void take_segment(struct conn *c)
{
    if (!c->rx.pdu.data_bytes)
        return;
    c->rx.segment = malloc(c->rx.pdu.data_bytes);
    if (!c->rx.segment)
        conn_close(c, "out of memory");
    else
        c->rx.sink = RX_SEGMENT;
}

static void begin_login(struct conn *c, int rc)
{
    if (c->rx.pdu.data_bytes > ISCSI_LOGIN_SEGMENT)
        conn_close(c, "bad login request");
    else if (rc)
        c->rx.reject = PDU_REJECT_PROTOCOL; /* told as a status */
    else
        take_segment(c);
}

void ffp_begin(struct conn *c, int rc)
{
    const struct pdu *p = &c->rx.pdu;
    const struct request_kind *k = &kinds[p->opcode < ARRAY_LEN(kinds) ? p->opcode : 0];

    c->rx.ignore = false;
    c->rx.reject = 0;
    if (c->state == CONN_LOGIN) {
        begin_login(c, rc);
    } else if (p->data_bytes > ISCSI_OUR_RECV_SEGMENT) {
        conn_close(c, "a data segment longer than declared");
    } else if (rc == -EOPNOTSUPP) {
        c->rx.reject = PDU_REJECT_NOT_SUPPORTED;
    } else if (rc) {
        protocol_error(c, "header fields that contradict each other");
    } else if (k->numbered && !accept_cmdsn(c, p)) {
        return;
    } else if (!c->session->target && !k->in_discovery) {
        c->rx.reject = PDU_REJECT_NOT_SUPPORTED;
        c->max_cmdsn += p->opcode == PDU_SCSI_CMD && !p->immediate;
    } else if (k->begin) {
        k->begin(c, p);
    } else if (k->wants_segment) {
        take_segment(c);
    }
}

void ffp_end(struct conn *c, bool digest_ok)
{
    const struct pdu *p = &c->rx.pdu;
    const struct request_kind *k = &kinds[p->opcode < ARRAY_LEN(kinds) ? p->opcode : 0];
    uint8_t *data = c->rx.segment;

    if (c->rx.reject && c->state == CONN_LOGIN)
        login_malformed(c, p);
    else if (c->rx.reject)
        ffp_reject(c, c->rx.reject);
    else if (c->rx.ignore || c->state == CONN_ENDING)
        ;
    else if (c->state == CONN_LOGIN)
        login_request(c, p, data);
    else if (k->end_data)
        k->end_data(c, p, digest_ok);
    else if (!digest_ok)
        ffp_reject(c, PDU_REJECT_DATA_DIGEST);
    else if (k->end)
        k->end(c, p, data);
    if (c->rx.segment == data) {
        free(data);
        c->rx.segment = NULL;
    }
}
