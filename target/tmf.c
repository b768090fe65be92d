/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Task management (RFC 7143 11.5, 11.6). A function marks the tasks it is about as aborted; it is
 * answered when the last of them has ended, wherever it came from, and the data that its initiator
 * still owes has come, or has not for a second. Tasks that came later are not its business:
 * arrival has a serial number.
 */
#include <stdlib.h>
#include <string.h>

#include "target/lun.h"
#include "target/nexus.h"
#include "target/task.h"
#define LOG_AREA "iscsi"
#include "util/log.h"

enum tmf_scope { SCOPE_TASK, SCOPE_OWN_LUN, SCOPE_LUN, SCOPE_TARGET };

struct tmf {
    struct list_head link;
    struct session *session;
    uint32_t itt;
    uint8_t function; /* enum pdu_tmf */
    enum tmf_scope scope;
    uint64_t task_serial; /* SCOPE_TASK */
    uint64_t serial;      /* tasks up to here */
    uint16_t lun;
};

static struct list_head pending = LIST_HEAD_INIT(pending);

static void answer(struct conn *c, uint32_t itt, enum pdu_tmf_rsp response)
{
    uint8_t bhs[PDU_BHS_BYTES];

    if (c->state != CONN_FULL)
        return;
    pdu_tmf_rsp(bhs, itt, (uint8_t)response);
    conn_send_pdu(c, bhs, NULL, 0, true);
}

static bool on_same_lun(const struct tmf *m, const struct task *t)
{
    uint16_t number;

    return !scsi_lun_decode(t->cmd.lun_field, &number) && number == m->lun;
}

/* A reset of the target does not reach LUNs that its nexus can't. */
static bool in_reach(const struct tmf *m, const struct task *t)
{
    const struct lun *lun;
    uint16_t number;

    if (scsi_lun_decode(t->cmd.lun_field, &number))
        return true;
    lun = target_find_lun(m->session->target, number);
    return !lun || nexus_may_reach(&m->session->nexus, lun);
}

static bool concerns(const struct tmf *m, const struct task *t)
{
    if (t->serial > m->serial)
        return false;
    switch (m->scope) {
    case SCOPE_TASK:
        return t->serial == m->task_serial;
    case SCOPE_OWN_LUN:
        return t->session == m->session && on_same_lun(m, t);
    case SCOPE_LUN:
        return on_same_lun(m, t);
    case SCOPE_TARGET:
        return in_reach(m, t);
    }
    return false;
}

/* Calls fn for the tasks that @m is about and that have no response queued, until it is false. */
static bool for_each_task(struct tmf *m, bool (*fn)(struct tmf *, struct task *))
{
    struct session *s;
    struct task *t, *tmp;

    list_for_each_entry (s, &m->session->target->sessions, target_link) {
        list_for_each_entry_safe (t, tmp, &s->tasks, link) {
            if (concerns(m, t) && !(t->responded && !t->aborted) && !fn(m, t))
                return false;
        }
    }
    return true;
}

/* SAM-5 5.14: who loses commands to another's CLEAR TASK SET is told. */
static void tell_cleared(struct tmf *m)
{
    struct session *s;
    struct task *t;

    list_for_each_entry (s, &m->session->target->sessions, target_link) {
        list_for_each_entry (t, &s->tasks, link) {
            if (s != m->session && concerns(m, t) && !t->responded) {
                nexus_raise(&s->nexus, m->lun, UA_COMMANDS_CLEARED);
                break;
            }
        }
    }
}

/* RFC 7143 4.2.3.3: of the initiator that asks for it, data that is due is waited for. */
static bool abort_one(struct tmf *m, struct task *t)
{
    task_abort(t, t->session == m->session);
    return true;
}

static bool none(struct tmf *m, struct task *t)
{
    (void)m;
    (void)t;
    return false;
}

static void reset_luns(struct tmf *m)
{
    struct target *t = m->session->target;
    struct lun *lun;

    list_for_each_entry (lun, &t->luns, link) {
        if ((m->scope == SCOPE_TARGET && nexus_may_reach(&m->session->nexus, lun)) ||
            (m->scope == SCOPE_LUN && lun->number == m->lun))
            scsi_lun_reset(t, lun->number, &m->session->nexus);
    }
}

static void finish(struct tmf *m)
{
    struct conn *c = m->session->conn;
    struct target *t = m->session->target;
    bool cold = m->function == PDU_TMF_TARGET_COLD_RESET;

    if (m->function == PDU_TMF_LUN_RESET || m->scope == SCOPE_TARGET)
        reset_luns(m);
    m->session->nr_tmfs--;
    list_del(&m->link);
    answer(c, m->itt, PDU_TMF_COMPLETE);
    free(m);
    if (cold) { /* 11.5.1: all connections of the target end, after the response */
        conn_end(c);
        session_close_all_but(t, c);
    }
}

static void check_pending(struct deferred *d)
{
    struct tmf *m, *tmp;

    (void)d;
    list_for_each_entry_safe (m, tmp, &pending, link) {
        if (for_each_task(m, none)) {
            finish(m);
            /* a cold reset may have taken others off the list */
            tmf_check();
            return;
        }
    }
}

void tmf_check(void)
{
    static struct deferred again = {.fn = check_pending};

    if (!list_empty(&pending))
        loop_defer(&again, LOOP_NOW);
}

void tmf_forget(struct session *s)
{
    struct tmf *m, *tmp;

    list_for_each_entry_safe (m, tmp, &pending, link) {
        if (m->session == s) {
            list_del(&m->link);
            free(m);
        }
    }
    s->nr_tmfs = 0;
}

static void begin(struct conn *c, const struct pdu *p, enum tmf_scope scope, uint16_t lun,
                  uint64_t task_serial)
{
    struct tmf *m = calloc(1, sizeof(*m));

    if (!m) {
        conn_close(c, "out of memory");
        return;
    }
    m->session = c->session;
    m->itt = p->itt;
    m->function = p->tmf.function;
    m->scope = scope;
    m->lun = lun;
    m->task_serial = task_serial;
    m->serial = task_last_serial();
    c->session->nr_tmfs++;
    list_add_tail(&pending, &m->link);
    if (m->function == PDU_TMF_CLEAR_TASK_SET)
        tell_cleared(m);
    for_each_task(m, abort_one);
    tmf_check();
}

static bool in_window(const struct conn *c, uint32_t cmdsn)
{
    return !sn_before(cmdsn, c->exp_cmdsn) && !sn_before(c->max_cmdsn, cmdsn);
}

/* RFC 7143 11.5.1: the LUN is the task's. */
static bool same_lun(const struct task *t, const uint8_t lun[8])
{
    uint16_t its, asked;

    return !memcmp(t->cmd.lun_field, lun, 8) || (!scsi_lun_decode(t->cmd.lun_field, &its) &&
                                                 !scsi_lun_decode(lun, &asked) && its == asked);
}

/* False: there is none. */
static bool find_lun(const struct conn *c, const uint8_t field[8], uint16_t *number)
{
    return scsi_lun_is_report_luns(field) ||
           (!scsi_lun_decode(field, number) && nexus_find_lun(&c->session->nexus, *number));
}

/* RFC 7143 11.5.5, 11.6.1 */
static void abort_task(struct conn *c, const struct pdu *p)
{
    struct task *t = task_find(c->session, p->tmf.rtt);
    uint16_t lun;

    if (!(t && same_lun(t, p->lun)) && !find_lun(c, p->lun, &lun)) {
        answer(c, p->itt, PDU_TMF_NO_LUN);
    } else if (t && !same_lun(t, p->lun)) {
        answer(c, p->itt, PDU_TMF_NO_TASK);
    } else if (t &&
               !(t->responded && !t->aborted)) { /* one whose response is on its way has ended */
        begin(c, p, SCOPE_TASK, 0, t->serial);
    } else if (in_window(c, p->tmf.refcmdsn) && sn_before(p->tmf.refcmdsn, p->cmdsn)) {
        /* a command that never came, and now counts as received */
        if (p->tmf.refcmdsn == c->exp_cmdsn) {
            c->exp_cmdsn++;
            c->max_cmdsn++;
        }
        answer(c, p->itt, PDU_TMF_COMPLETE);
    } else {
        answer(c, p->itt, PDU_TMF_NO_TASK);
    }
}

static void on_lun(struct conn *c, const struct pdu *p, enum tmf_scope scope)
{
    uint16_t number;

    if (!find_lun(c, p->lun, &number))
        answer(c, p->itt, PDU_TMF_NO_LUN);
    else if (scsi_lun_is_report_luns(p->lun)) /* its commands have all ended */
        answer(c, p->itt, PDU_TMF_COMPLETE);
    else
        begin(c, p, scope, number, 0);
}

void tmf_request(struct conn *c, const struct pdu *p)
{
    log_info("%s: task management function %u, ITT %#x", c->peer, p->tmf.function, p->tmf.rtt);
    if (c->session->nr_tmfs >= SESSION_MAX_TMFS) {
        answer(c, p->itt, PDU_TMF_REJECTED);
        return;
    }
    switch (p->tmf.function) {
    case PDU_TMF_ABORT_TASK:
        abort_task(c, p);
        break;
    case PDU_TMF_ABORT_TASK_SET:
        on_lun(c, p, SCOPE_OWN_LUN);
        break;
    case PDU_TMF_CLEAR_TASK_SET: /* one task set a LUN for all nexuses, TST 000b */
    case PDU_TMF_LUN_RESET:
        on_lun(c, p, SCOPE_LUN);
        break;
    case PDU_TMF_TARGET_WARM_RESET:
    case PDU_TMF_TARGET_COLD_RESET:
        begin(c, p, SCOPE_TARGET, 0, 0);
        break;
    case PDU_TMF_TASK_REASSIGN:
        answer(c, p->itt, PDU_TMF_NO_REASSIGN);
        break;
    default:
        answer(c, p->itt, PDU_TMF_NOT_SUPPORTED);
        break;
    }
}
