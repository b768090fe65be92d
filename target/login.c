/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Login (RFC 7143 6.3, 11.12, 11.13): stages, who may come in, and the session at the end. Each
 * request is collected over the C bit, negotiated, answered. An error is answered with its status
 * and ends the connection.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "target/session.h"
#define LOG_AREA "iscsi"
#include "util/log.h"
#include "util/size.h"

/* Status class and detail, 11.13.5 */
enum login_status {
    LOGIN_OK = 0x0000,
    LOGIN_MOVED = 0x0101,
    LOGIN_MOVED_PERMANENTLY = 0x0102,
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
    LOGIN_WAIT = 0xffff, /* never sent */
};

#define REFUSED_PAUSE_S  1.0   /* before a wrong secret is told so */
#define OLD_POLL_S       0.005 /* while commands of the session before are under way */
#define MOVED_MAX_BYTES  96    /* TargetAddress= and an address of target_redirect() */
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
    struct auth_login auth;
    enum login_status refusing; /* with a pause before; nothing that comes counts any more */
    struct ev_timer pause;
    struct ev_timer old_poll;
    struct pdu last; /* the request that waits for old_poll */
};

static bool send_response(struct conn *c, const struct pdu_login_rsp *r, void *data, uint32_t n)
{
    uint8_t bhs[PDU_BHS_BYTES];

    pdu_login_rsp(bhs, r);
    return conn_send_pdu(c, bhs, data, n, true);
}

/* Where a target that has moved is now. */
static char *moved_to(const struct login *l, enum login_status status, uint32_t *len)
{
    const struct target *t = target_find(l->neg.target_name);
    char *text = NULL;

    *len = 0;
    if (status >> 8 != LOGIN_MOVED >> 8 || !t || !t->redirect_to)
        return NULL;
    text = malloc(MOVED_MAX_BYTES);
    if (text)
        *len = (uint32_t)snprintf(text, MOVED_MAX_BYTES, "TargetAddress=%s", t->redirect_to) + 1;
    return text;
}

static void refuse(struct conn *c, enum login_status status)
{
    const struct login *l = c->login;
    struct pdu_login_rsp r = {.itt = l->itt, .tsih = l->tsih, .csg = l->stage, .status = status};
    uint32_t len;
    char *text = moved_to(l, status, &len);

    memcpy(r.isid, l->isid, 6);
    log_notice("%s: login refused, status %04x: initiator \"%s\", target \"%s\"", c->peer, status,
               l->neg.initiator_name, l->neg.target_name);
    if (send_response(c, &r, text, len))
        conn_end(c);
}

static void refuse_now(struct ev_loop *ev, struct ev_timer *w, int revents)
{
    struct conn *c = w->data;

    (void)ev;
    (void)revents;
    refuse(c, c->login->refusing);
}

/* Who guesses secrets waits for every answer. */
static void refuse_slowly(struct conn *c, enum login_status status)
{
    c->login->refusing = status;
    ev_timer_start(loop_ev(), &c->login->pause);
}

static void answer_again(struct ev_loop *ev, struct ev_timer *w, int revents);

bool login_begin(struct conn *c)
{
    struct login *l = calloc(1, sizeof(*l));

    if (!l)
        return false;
    negotiation_init(&l->neg);
    text_init(&l->in, TEXT_MAX_BYTES);
    text_init(&l->out, ANSWER_MAX_BYTES);
    ev_timer_init(&l->pause, refuse_now, REFUSED_PAUSE_S, 0);
    ev_timer_init(&l->old_poll, answer_again, OLD_POLL_S, OLD_POLL_S);
    l->pause.data = l->old_poll.data = c;
    c->login = l;
    return true;
}

void login_free(struct conn *c)
{
    ev_timer_stop(loop_ev(), &c->login->pause);
    ev_timer_stop(loop_ev(), &c->login->old_poll);
    text_release(&c->login->in);
    text_release(&c->login->out);
    free(c->login);
    c->login = NULL;
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

/* The one whose connection it is to be, RFC 7143 6.3.4; NULL. */
static struct session *session_of(const struct conn *c, const struct target *t)
{
    const struct login *l = c->login;

    return l->tsih ? session_find(t, c->portal_group, l->neg.initiator_name, l->isid, l->tsih)
                   : NULL;
}

static enum login_status check_target(const struct conn *c)
{
    const struct login *l = c->login;
    const struct negotiation *n = &l->neg;
    const struct target *t = target_find(n->target_name);

    if (!t || !target_in_group(t, c->portal_group))
        return LOGIN_NO_TARGET;
    if (!target_allows(t, n->initiator_name, c->peer))
        return LOGIN_FORBIDDEN;
    if (t->closing)
        return LOGIN_UNAVAILABLE;
    if (l->tsih) {
        const struct session *s = session_of(c, t);

        if (!s)
            return LOGIN_NO_SESSION;
        return s->cid == l->cid ? LOGIN_OK : LOGIN_TOO_MANY_CONNECTIONS;
    }
    return LOGIN_OK;
}

/* What the first request must have said, 11.12 and 13: who, to whom, what for. */
static enum login_status check_names(struct conn *c)
{
    struct login *l = c->login;
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
    return check_target(c);
}

/* The target may have gone since the last request. */
static const struct auth *auth_of(const struct login *l)
{
    const struct target *t = l->neg.discovery ? NULL : target_find(l->neg.target_name);

    return l->neg.discovery || t ? target_auth(t) : NULL;
}

static enum login_status authenticate(struct conn *c, bool leaving)
{
    static const enum login_status statuses[] = {
        [AUTH_OK] = LOGIN_OK,
        [AUTH_REFUSED] = LOGIN_AUTH_FAILED,
        [AUTH_BAD_REQUEST] = LOGIN_INITIATOR_ERROR,
        [AUTH_NO_RESOURCES] = LOGIN_NO_RESOURCES,
    };
    struct login *l = c->login;
    const struct auth *a = auth_of(l);
    const char *why = "it skips the security stage";
    enum auth_verdict v = AUTH_REFUSED;

    if (!a)
        return LOGIN_NO_TARGET;
    if (l->stage == PDU_STAGE_SECURITY)
        v = auth_step(&l->auth, a, &l->neg, &l->out, leaving, &why);
    else if (auth_may_leave(&l->auth, a))
        v = AUTH_OK;
    if (v)
        log_warn("%s: authentication failed: %s: initiator \"%s\", user \"%s\", target \"%s\"",
                 c->peer, why, l->neg.initiator_name, l->neg.chap_n, l->neg.target_name);
    return statuses[v];
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
        l->neg.joins = l->tsih != 0;
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

static enum login_status check_redirect(const struct login *l)
{
    const struct target *t = l->neg.discovery ? NULL : target_find(l->neg.target_name);

    if (!t || !t->redirect_to)
        return LOGIN_OK;
    return t->redirect_permanently ? LOGIN_MOVED_PERMANENTLY : LOGIN_MOVED;
}

static void declare_target(struct login *l, uint16_t group)
{
    const struct target *t = target_find(l->neg.target_name);

    text_add_number(&l->out, "TargetPortalGroupTag", group);
    if (t && t->alias)
        text_add(&l->out, "TargetAlias", t->alias);
}

static enum login_status negotiate(struct conn *c, bool leaving)
{
    struct login *l = c->login;
    struct negotiation *n = &l->neg;
    bool operational = l->stage == PDU_STAGE_OPERATIONAL;
    enum login_status status = LOGIN_OK;

    if (negotiate_text(n, operational ? NEG_OPERATIONAL : NEG_SECURITY, l->in.data, l->in.len,
                       &l->out))
        return LOGIN_INITIATOR_ERROR;
    text_release(&l->in);
    if (!l->checked) {
        l->checked = true;
        status = check_names(c);
        n->named = true;
        if (!status && !n->discovery)
            declare_target(l, c->portal_group);
    }
    if (!status)
        status = authenticate(c, leaving);
    if (operational)
        negotiate_declare(n, &l->out);
    if (!status && l->out.failed)
        status = LOGIN_NO_RESOURCES;
    return status;
}

/*
 * The last response carries the TSIH; from then on digests are in force. LOGIN_WAIT: commands of
 * the session or connection that this one takes the place of are under way, and what they write
 * must not come after what is written next.
 */
static enum login_status open_session(struct conn *c, uint16_t *tsih)
{
    struct login *l = c->login;
    struct session *s, *old = NULL;
    struct target *t = NULL;

    if (!l->neg.discovery) {
        enum login_status status = check_target(c); /* it may have gone since */

        if (!status && !auth_may_leave(&l->auth, auth_of(l)))
            status = LOGIN_AUTH_FAILED; /* accounts may have come since */
        if (!status)
            status = check_redirect(l);
        if (status)
            return status;
        t = target_find(l->neg.target_name);
        old = session_of(c, t);
        if (!old)
            session_reinstate(t, c->portal_group, l->neg.initiator_name, l->isid);
        if (old ? !session_quiesce(old)
                : session_lingers(t, c->portal_group, l->neg.initiator_name, l->isid))
            return LOGIN_WAIT;
    }
    l->neg.params.first_burst = MIN_OF(l->neg.params.first_burst, l->neg.params.max_burst);
    s = session_new(c, t, &l->neg, l->isid, l->cid, old);
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

/* An initiator may ask to leave the security stage before it is over; it is kept there. */
static bool may_leave(const struct login *l)
{
    const struct auth *a = auth_of(l);

    return l->stage != PDU_STAGE_SECURITY || (a && auth_may_leave(&l->auth, a));
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
    if (p->final && !r.cont && may_leave(l)) {
        r.transit = true;
        r.nsg = p->login.nsg;
        status = r.nsg == PDU_STAGE_FULL ? open_session(c, &r.tsih) : LOGIN_OK;
        if (status == LOGIN_WAIT) {
            l->last = *p;
            ev_timer_start(loop_ev(), &l->old_poll);
            return;
        }
        ev_timer_stop(loop_ev(), &l->old_poll);
        if (status) {
            refuse(c, status);
            return;
        }
        l->stage = r.nsg;
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

static void answer_again(struct ev_loop *ev, struct ev_timer *w, int revents)
{
    struct conn *c = w->data;

    (void)ev;
    (void)revents;
    answer(c, &c->login->last);
}

void login_request(struct conn *c, const struct pdu *p, const uint8_t *data)
{
    struct login *l = c->login;
    bool answering = l->out_sent > 0;
    enum login_status status;

    if (l->refusing || ev_is_active(&l->old_poll))
        return;
    status = check_header(c, p);
    if (!status && answering && p->data_bytes)
        status = LOGIN_INVALID;
    if (!status && data) {
        text_append(&l->in, data, p->data_bytes);
        if (l->in.failed)
            status = LOGIN_INITIATOR_ERROR;
    }
    if (!status && !p->cont && !answering)
        status = negotiate(c, p->final);
    if (status == LOGIN_AUTH_FAILED)
        refuse_slowly(c, status);
    else if (status)
        refuse(c, status);
    else
        answer(c, p);
}

void login_malformed(struct conn *c, const struct pdu *p)
{
    struct login *l = c->login;

    if (l->refusing || ev_is_active(&l->old_poll))
        return;
    if (!l->started) {
        l->itt = p->itt;
        memcpy(l->isid, p->login.isid, 6);
    }
    refuse(c, LOGIN_INITIATOR_ERROR);
}
