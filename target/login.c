/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Login (RFC 7143 6.3, 11.12, 11.13): stages, who may come in, and the session at the end. Each
 * request is collected over the C bit, negotiated, answered. An error is answered with its status
 * and ends the connection.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target/session.h"
#define LOG_AREA "iscsi"
#include "util/log.h"
#include "util/size.h"

/* Status class and detail, 11.13.5 */
enum login_status {
    LOGIN_OK = 0x0000,
    LOGIN_INITIATOR_ERROR = 0x0200,
    LOGIN_AUTH_FAILED = 0x0201,
    LOGIN_FORBIDDEN = 0x0202,
    LOGIN_NO_TARGET = 0x0203,
    LOGIN_BAD_VERSION = 0x0205,
    LOGIN_TOO_MANY_CONNECTIONS = 0x0206,
    LOGIN_MISSING_PARAMETER = 0x0207,
    LOGIN_BAD_SESSION_TYPE = 0x0209,
    LOGIN_NO_SESSION = 0x020a,
    LOGIN_INVALID = 0x020b,
    LOGIN_UNAVAILABLE = 0x0301,
    LOGIN_NO_RESOURCES = 0x0302,
};

#define ANSWER_MAX_BYTES 65536 /* to TEXT_MAX_BYTES of keys that we don't understand */

struct login {
    struct negotiation neg;
    struct text_buf in, out;
    uint32_t out_sent;
    bool started;  /* the first request came */
    bool checked;  /* names and type are known and good */
    uint8_t stage; /* enum pdu_stage */
    uint8_t isid[6];
    uint16_t tsih, cid;
    uint32_t itt, cmdsn;
};

bool login_begin(struct conn *c)
{
    struct login *l = calloc(1, sizeof(*l));

    if (!l)
        return false;
    negotiation_init(&l->neg);
    text_init(&l->in, TEXT_MAX_BYTES);
    text_init(&l->out, ANSWER_MAX_BYTES);
    c->login = l;
    return true;
}

void login_free(struct conn *c)
{
    text_release(&c->login->in);
    text_release(&c->login->out);
    free(c->login);
    c->login = NULL;
}

static bool send_response(struct conn *c, const struct pdu_login_rsp *r, void *data, uint32_t n)
{
    uint8_t bhs[PDU_BHS_BYTES];

    pdu_login_rsp(bhs, r);
    return conn_send_pdu(c, bhs, data, n, true);
}

static void refuse(struct conn *c, enum login_status status)
{
    const struct login *l = c->login;
    struct pdu_login_rsp r = {.itt = l->itt, .tsih = l->tsih, .csg = l->stage, .status = status};

    memcpy(r.isid, l->isid, 6);
    log_notice("%s: login refused, status %04x: initiator \"%s\", target \"%s\"", c->peer, status,
               l->neg.initiator_name, l->neg.target_name);
    if (send_response(c, &r, NULL, 0))
        conn_end(c);
}

static void lower(char *s)
{
    for (; *s; s++) {
        if (*s >= 'A' && *s <= 'Z')
            *s = (char)(*s - 'A' + 'a');
    }
}

/* Control characters have no place in a name, nor in our log. */
static bool plain(const char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    }
    return true;
}

static enum login_status check_target(const struct login *l)
{
    const struct negotiation *n = &l->neg;
    const struct target *t = target_find(n->target_name);

    if (!t)
        return LOGIN_NO_TARGET;
    if (!target_allows(t, n->initiator_name))
        return LOGIN_FORBIDDEN;
    if (t->closing)
        return LOGIN_UNAVAILABLE;
    if (l->tsih) /* 6.3.1: a second connection, or another try of the first one */
        return session_exists(t, n->initiator_name, l->isid, l->tsih) ? LOGIN_TOO_MANY_CONNECTIONS
                                                                      : LOGIN_NO_SESSION;
    return LOGIN_OK;
}

/* What the first request must have said, 11.12 and 13: who, to whom, what for. */
static enum login_status check_names(struct login *l)
{
    struct negotiation *n = &l->neg;

    lower(n->initiator_name);
    lower(n->target_name);
    if (!plain(n->initiator_name) || !plain(n->target_name))
        return LOGIN_INITIATOR_ERROR;
    if (n->bad_session_type)
        return LOGIN_BAD_SESSION_TYPE;
    if (!n->initiator_name[0] || (!n->discovery && !n->target_name[0]))
        return LOGIN_MISSING_PARAMETER;
    if (n->discovery)
        return l->tsih ? LOGIN_NO_SESSION : LOGIN_OK;
    return check_target(l);
}

/* The header against what the login has been so far. */
static enum login_status check_header(struct conn *c, const struct pdu *p)
{
    struct login *l = c->login;

    if (!l->started) {
        l->started = true;
        l->stage = p->login.csg;
        l->itt = p->itt;
        l->cmdsn = p->cmdsn;
        l->tsih = p->login.tsih;
        l->cid = p->login.cid;
        memcpy(l->isid, p->login.isid, 6);
        c->statsn = p->expstatsn;
        c->exp_cmdsn = p->cmdsn;
        c->max_cmdsn = p->cmdsn + CONN_CMD_WINDOW - 1;
        if (p->login.version_min > 0)
            return LOGIN_BAD_VERSION;
    }
    if (p->itt != l->itt || p->cmdsn != l->cmdsn || p->login.tsih != l->tsih ||
        p->login.cid != l->cid || memcmp(p->login.isid, l->isid, 6) || p->login.csg != l->stage)
        return LOGIN_INVALID;
    if (l->stage != PDU_STAGE_SECURITY && l->stage != PDU_STAGE_OPERATIONAL)
        return LOGIN_INVALID;
    if (p->final && (p->login.nsg <= l->stage || p->login.nsg == 2))
        return LOGIN_INVALID;
    return LOGIN_OK;
}

static enum login_status negotiate(struct login *l)
{
    struct negotiation *n = &l->neg;
    bool operational = l->stage == PDU_STAGE_OPERATIONAL;
    enum login_status status = LOGIN_OK;

    if (negotiate_text(n, operational ? NEG_OPERATIONAL : NEG_SECURITY, l->in.data, l->in.len,
                       &l->out))
        return LOGIN_INITIATOR_ERROR;
    text_release(&l->in);
    if (!l->checked) {
        l->checked = true;
        status = check_names(l);
        if (!n->discovery)
            text_add_number(&l->out, "TargetPortalGroupTag", ISCSI_PORTAL_GROUP);
    }
    if (!status && n->auth_offered && !n->auth_none)
        status = LOGIN_AUTH_FAILED;
    if (operational)
        negotiate_declare(n, &l->out);
    if (!status && l->out.failed)
        status = LOGIN_NO_RESOURCES;
    return status;
}

/* The last response carries the TSIH; from then on digests are in force. */
static enum login_status open_session(struct conn *c, uint16_t *tsih)
{
    struct login *l = c->login;
    struct target *t = NULL;
    struct session *s;

    if (!l->neg.discovery) {
        enum login_status status = check_target(l); /* it may have gone since */

        if (status)
            return status;
        t = target_find(l->neg.target_name);
        session_reinstate(t, l->neg.initiator_name, l->isid);
    }
    l->neg.params.first_burst = MIN_OF(l->neg.params.first_burst, l->neg.params.max_burst);
    s = session_new(c, t, &l->neg, l->isid, l->cid);
    if (!s)
        return LOGIN_NO_RESOURCES;
    *tsih = s->tsih;
    return LOGIN_OK;
}

static void enter_full_phase(struct conn *c)
{
    c->state = CONN_FULL;
    c->header_digest = c->session->params.header_digest;
    c->data_digest = c->session->params.data_digest;
    conn_left_login(c);
}

/* As much of the answer as fits; the transit to the next stage goes with the end of it. */
static void answer(struct conn *c, const struct pdu *p)
{
    struct login *l = c->login;
    uint32_t left = (uint32_t)l->out.len - l->out_sent;
    uint32_t n = MIN_OF(left, MIN_OF(ISCSI_LOGIN_SEGMENT, l->neg.params.max_xmit_segment));
    struct pdu_login_rsp r = {.csg = l->stage, .itt = l->itt, .tsih = l->tsih, .cont = n < left};
    enum login_status status;
    uint8_t *data = NULL;

    memcpy(r.isid, l->isid, 6);
    if (p->final && !r.cont) {
        r.transit = true;
        r.nsg = l->stage = p->login.nsg;
        if (r.nsg == PDU_STAGE_FULL && (status = open_session(c, &r.tsih))) {
            refuse(c, status);
            return;
        }
    }
    if (n) {
        data = malloc(n);
        if (!data) {
            conn_close(c, "out of memory");
            return;
        }
        memcpy(data, l->out.data + l->out_sent, n);
        l->out_sent += n;
    }
    if (!r.cont) {
        text_release(&l->out);
        l->out_sent = 0;
    }
    if (send_response(c, &r, data, n) && r.transit && r.nsg == PDU_STAGE_FULL)
        enter_full_phase(c);
}

void login_request(struct conn *c, const struct pdu *p, const uint8_t *data)
{
    struct login *l = c->login;
    enum login_status status = check_header(c, p);
    bool answering = l->out_sent > 0;

    if (!status && answering && p->data_bytes)
        status = LOGIN_INVALID;
    if (!status && data) {
        text_append(&l->in, data, p->data_bytes);
        if (l->in.failed)
            status = LOGIN_INITIATOR_ERROR;
    }
    if (!status && !p->cont && !answering)
        status = negotiate(l);
    if (status)
        refuse(c, status);
    else
        answer(c, p);
}
