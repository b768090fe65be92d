/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions: made when a login ends well, lost with their connection, freed when their last task
 * has ended. A lost session is invisible to users at once, and stays in its target's list until it
 * is freed: that is what target removal and resets wait for.
 */
#include "target/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target/nexus.h"
#include "target/task.h"
#define LOG_AREA "iscsi"
#include "util/log.h"

static struct list_head sessions = LIST_HEAD_INIT(sessions);
static void (*event_sink)(const struct session_info *, bool opened);

static bool is_live(const struct session *s)
{
    return s->conn->state != CONN_CLOSED;
}

static bool tsih_in_use(uint16_t tsih)
{
    struct session *s;

    list_for_each_entry (s, &sessions, link) {
        if (s->tsih == tsih)
            return true;
    }
    return false;
}

/* 0: all are in use. */
static uint16_t new_tsih(void)
{
    static uint16_t last;

    for (unsigned i = 0; i < 65536; i++) {
        last++;
        if (last && !tsih_in_use(last))
            return last;
    }
    return 0;
}

static void tell(const struct session *s, bool opened)
{
    struct session_info info;

    session_get_info(s, &info);
    log_info("%s: session %llu %s: %s to %s", info.peer, (unsigned long long)s->id,
             opened ? "opened" : "closed", info.initiator, info.target ? info.target : "discovery");
    if (event_sink)
        event_sink(&info, opened);
}

/* What is of the connection is @s's own. */
static void keep_params(struct session *s, const struct session *old)
{
    struct iscsi_params p = old->params;

    p.header_digest = s->params.header_digest;
    p.data_digest = s->params.data_digest;
    p.max_xmit_segment = s->params.max_xmit_segment;
    s->params = p;
}

struct session *session_new(struct conn *c, struct target *t, const struct negotiation *n,
                            const uint8_t isid[6], uint16_t cid, struct session *old)
{
    static uint64_t next_id;
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->tsih = old ? old->tsih : new_tsih();
    if (!s->tsih) {
        free(s);
        return NULL;
    }
    s->conn = c;
    s->target = t;
    s->id = ++next_id;
    s->cid = cid;
    s->params = n->params;
    if (old)
        keep_params(s, old);
    s->opened_ns = now_ns();
    memcpy(s->isid, isid, 6);
    memcpy(s->initiator, n->initiator_name, sizeof(s->initiator));
    list_init(&s->tasks);
    list_init(&s->held);
    list_init(&s->target_link);
    list_init(&s->start_held.link);
    s->start_held.fn = task_start_held;
    text_init(&s->text.in, TEXT_MAX_BYTES);
    text_init(&s->text.out, TEXT_MAX_BYTES);
    list_add_tail(&sessions, &s->link);
    if (t) {
        list_add_tail(&t->sessions, &s->target_link);
        t->nr_sessions++;
        nexus_init(&s->nexus, t, s->initiator, isid, c->portal_group);
    }
    c->session = s;
    if (old) {
        nexus_take_over(&s->nexus, &old->nexus);
        conn_close(old->conn, "the initiator opened the connection anew");
    }
    tell(s, true);
    return s;
}

void session_lost(struct session *s)
{
    struct task *t, *tmp;

    tell(s, false);
    tmf_forget(s);
    list_for_each_entry_safe (t, tmp, &s->tasks, link)
        task_abort(t, false);
}

void session_free(struct session *s)
{
    loop_undefer(&s->start_held);
    list_del(&s->link);
    if (s->target) {
        nexus_fini(&s->nexus);
        list_del(&s->target_link);
        s->target->nr_sessions--;
        co_queue_wake_all(&s->target->session_gone);
        tmf_check();
    }
    text_release(&s->text.in);
    text_release(&s->text.out);
    free(s);
}

/* RFC 7143 4.4.3: a nexus is an initiator port, name and ISID, and a portal group of the target. */
static bool is_nexus(const struct session *s, const struct target *t, uint16_t group,
                     const char *initiator, const uint8_t isid[6])
{
    return s->target == t && s->conn->portal_group == group && !memcmp(s->isid, isid, 6) &&
           !strcmp(s->initiator, initiator);
}

void session_reinstate(const struct target *t, uint16_t group, const char *initiator,
                       const uint8_t isid[6])
{
    struct session *s, *tmp;

    list_for_each_entry_safe (s, tmp, &sessions, link) {
        if (is_live(s) && is_nexus(s, t, group, initiator, isid))
            conn_close(s->conn, "the initiator opened the session anew");
    }
}

bool session_lingers(const struct target *t, uint16_t group, const char *initiator,
                     const uint8_t isid[6])
{
    struct session *s;

    list_for_each_entry (s, &sessions, link) {
        if (!is_live(s) && s->nr_tasks && is_nexus(s, t, group, initiator, isid))
            return true;
    }
    return false;
}

bool session_quiesce(struct session *s)
{
    struct task *t, *tmp;

    s->conn->draining = true;
    list_for_each_entry_safe (t, tmp, &s->tasks, link)
        task_abort(t, false);
    return !s->nr_tasks;
}

struct session *session_find(const struct target *t, uint16_t group, const char *initiator,
                             const uint8_t isid[6], uint16_t tsih)
{
    struct session *s;

    list_for_each_entry (s, &sessions, link) {
        if (is_live(s) && s->tsih == tsih && is_nexus(s, t, group, initiator, isid))
            return s;
    }
    return NULL;
}

void session_close_all_but(const struct target *t, const struct conn *but)
{
    struct session *s, *tmp;

    list_for_each_entry_safe (s, tmp, &sessions, link) {
        if (s->target == t && is_live(s) && s->conn != but)
            conn_dismiss(s->conn, "the target is going away or was reset");
    }
}

void session_get_info(const struct session *s, struct session_info *info)
{
    const struct iscsi_params *p = &s->params;

    memset(info, 0, sizeof(*info));
    info->id = s->id;
    info->initiator = s->initiator;
    info->target = s->target ? s->target->name : NULL;
    memcpy(info->peer, s->conn->peer, sizeof(info->peer));
    memcpy(info->local, s->conn->local, sizeof(info->local));
    memcpy(info->isid, s->isid, 6);
    info->tsih = s->tsih;
    info->header_digest = p->header_digest;
    info->data_digest = p->data_digest;
    info->initial_r2t = p->initial_r2t;
    info->immediate_data = p->immediate_data;
    info->max_recv_segment = ISCSI_OUR_RECV_SEGMENT;
    info->max_xmit_segment = p->max_xmit_segment;
    info->first_burst = p->first_burst;
    info->max_burst = p->max_burst;
    info->commands = s->nr_tasks;
    info->opened_ns = s->opened_ns;
}

void session_for_each(bool (*fn)(const struct session_info *, void *), void *arg)
{
    struct session_info info;
    struct session *s;

    list_for_each_entry (s, &sessions, link) {
        if (!is_live(s))
            continue;
        session_get_info(s, &info);
        if (!fn(&info, arg))
            return;
    }
}

int session_close(uint64_t id, bool logout, struct error *err)
{
    struct session *s;

    list_for_each_entry (s, &sessions, link) {
        if (s->id == id && is_live(s)) {
            if (logout)
                conn_ask_logout(s->conn, "the administrator wants it");
            else
                conn_dismiss(s->conn, "closed by the administrator");
            return 0;
        }
    }
    return error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT, "no session has the number %llu",
                           (unsigned long long)id);
}

void session_set_event_sink(void (*fn)(const struct session_info *, bool opened))
{
    event_sink = fn;
}
