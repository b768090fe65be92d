/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reservations as commands see them: RESERVE and RELEASE (SPC-2), PERSISTENT RESERVE IN and OUT,
 * and the check that every command passes. What an action does to the state is pr.c's.
 *
 * Actions on one LUN run one after the other. With APTPL the new state is durable before it takes
 * effect and before the command is answered; if it can't be saved nothing has happened.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "target/ports.h"
#include "target/scsi-cmd.h"
#include "target/target-int.h"
#define LOG_AREA "scsi"
#include "util/log.h"
#include "util/size.h"

static struct {
    co_lun_text_sink_fn *save;
    void *opaque;
} sink;

void target_set_reservation_sink(co_lun_text_sink_fn *fn, void *opaque)
{
    sink.save = fn;
    sink.opaque = opaque;
}

bool lun_text_is_of(const char *text, uint16_t lun)
{
    char *end;

    return strtoul(text, &end, 10) == lun && *end == ':';
}

static void tell_registrants(const struct pr *pr, uint16_t lun, registrant_fn *fn, void *arg)
{
    for (unsigned i = 0; i < pr->nr; i++)
        fn(lun, pr->regs[i].port.name, pr->regs[i].key, arg);
}

void lun_for_each_registrant(const struct lun *lun, registrant_fn *fn, void *arg)
{
    tell_registrants(&lun->pr, lun->number, fn, arg);
}

void reservations_for_each(const char *text, registrant_fn *fn, void *arg)
{
    uint16_t lun = (uint16_t)strtoul(text, NULL, 10);
    struct pr pr = {0};

    if (!pr_from_text(&pr, text, lun))
        tell_registrants(&pr, lun, fn, arg);
    pr_release(&pr);
}

/* ---- the check ---- */

/* SBC-3 table 13: starting a unit and allowing removal take nothing from a holder. */
static enum resv_class class_of(const struct scsi_cmd *cmd)
{
    if (cmd->op->start == sbc_start_stop && (cmd->cdb[4] & 0xf1) == 0x01)
        return RESV_UNIT;
    if (cmd->op->start == spc_prevent_removal && !(cmd->cdb[4] & 0x03))
        return RESV_UNIT;
    return (enum resv_class)cmd->op->resv;
}

bool lun_access_forbidden(const struct lun *lun, const struct nexus *n, bool write)
{
    if (lun->reserved_by && lun->reserved_by != n)
        return true;
    return lun->pr.type && pr_forbids(&lun->pr, n->initiator, n->isid, n->rel_port, write);
}

bool lun_reserved_against(const struct lun *lun, const struct scsi_cmd *cmd)
{
    enum resv_class class;

    if (!lun->reserved_by && !lun->pr.nr)
        return false;
    class = class_of(cmd);
    if (lun->reserved_by && cmd->op->flags & OPF_PR) /* SPC-2 5.5.1 */
        return true;
    if (lun->reserved_by && lun->reserved_by != cmd->nexus)
        return class != RESV_ALLOWED;
    if (lun->pr.nr && cmd->op->flags & OPF_RESERVE)
        return !pr_takes_reserve(&lun->pr, cmd->nexus->initiator, cmd->nexus->isid,
                                 cmd->nexus->rel_port);
    return class >= RESV_READ && lun->pr.type &&
           pr_forbids(&lun->pr, cmd->nexus->initiator, cmd->nexus->isid, cmd->nexus->rel_port,
                      class == RESV_WRITE);
}

void lun_nexus_lost(struct lun *lun, const struct nexus *n)
{
    if (!n || lun->reserved_by == n)
        lun->reserved_by = NULL;
    for (unsigned i = 0; i < LUN_KEPT_COPIES; i++) {
        if (!n || lun->copies[i].by == n)
            lun->copies[i].by = NULL;
    }
}

/* ---- RESERVE, RELEASE, SPC-2 7.21 and 7.16; a conflict was found before ---- */

/* Of extents and third parties there are none. */
static bool plain(struct scsi_cmd *cmd)
{
    if (cmd->cdb[1] & 0x1f)
        cmd_fail_cdb_field(cmd, 1, 4);
    return !(cmd->cdb[1] & 0x1f);
}

void spc_reserve(struct scsi_cmd *cmd)
{
    if (!plain(cmd))
        return;
    if (!cmd->lun->pr.nr) /* SPC-4 5.12.3: what is reserved persistently is reserved enough */
        cmd->lun->reserved_by = cmd->nexus;
    cmd_good(cmd);
}

void spc_release(struct scsi_cmd *cmd)
{
    if (!plain(cmd))
        return;
    if (cmd->lun->reserved_by == cmd->nexus)
        cmd->lun->reserved_by = NULL;
    cmd_good(cmd);
}

/* ---- PERSISTENT RESERVE IN, SPC-4 6.13 ---- */

enum { IN_KEYS, IN_RESERVATION, IN_CAPABILITIES, IN_FULL_STATUS };

static void pr_in_with_buf(struct scsi_cmd *cmd)
{
    const struct pr *pr = &cmd->lun->pr;
    size_t len = 0;

    memset(cmd->buf, 0, PR_IN_MAX_BYTES);
    switch (cmd->cdb[1] & 0x1f) {
    case IN_KEYS:
        len = pr_put_keys(pr, cmd->buf);
        break;
    case IN_RESERVATION:
        len = pr_put_reservation(pr, cmd->buf);
        break;
    case IN_CAPABILITIES:
        len = pr_put_capabilities(pr, cmd->buf, sink.save);
        break;
    case IN_FULL_STATUS:
        len = pr_put_full_status(pr, cmd->buf);
        break;
    }
    cmd_reply(cmd, (uint32_t)len);
}

void spc_pr_in(struct scsi_cmd *cmd)
{
    cmd_get_buf(cmd, PR_IN_MAX_BYTES, pr_in_with_buf);
}

/* ---- PERSISTENT RESERVE OUT, SPC-4 6.14 ---- */

struct pr_job {
    struct scsi_cmd *cmd;
    struct pr_request rq;
    struct pr_port others[PR_MAX_OTHER_PORTS];
    uint16_t ports[PORTS_MAX];
    struct pr_change change;
    struct pr next;
};

static bool of_preempted(const struct pr_job *job, const struct nexus *n)
{
    for (unsigned i = 0; i < job->change.nr; i++) {
        const struct pr_news *news = &job->change.news[i];

        if (news->kind == PR_NEWS_REGISTRATION_PREEMPTED &&
            pr_port_equal(&news->port, n->initiator, n->isid, n->rel_port))
            return true;
    }
    return false;
}

/* Commands that came later are not its business. SPC-4 6.15: who is preempted prevents nothing. */
static void abort_preempted(const struct pr_job *job)
{
    const struct lun *lun = job->cmd->lun;
    struct scsi_cmd *cmd;
    struct nexus *n;

    list_for_each_entry (n, &lun->target->nexuses, link) {
        if (of_preempted(job, n))
            nexus_prevent_removal(n, lun->number, false);
    }
    list_for_each_entry (cmd, &job->cmd->lun->commands, link) {
        if (cmd == job->cmd || !of_preempted(job, cmd->nexus))
            continue;
        cmd->aborted_by = job;
        if (!cmd->abort_requested)
            scsi_cmd_abort(cmd);
    }
}

static bool any_left(const struct pr_job *job)
{
    const struct scsi_cmd *cmd;

    list_for_each_entry (cmd, &job->cmd->lun->commands, link) {
        if (cmd->aborted_by == job)
            return true;
    }
    return false;
}

/* An initiator that has preempted and aborted relies on nothing of the others coming after. */
static void co_abort_preempted(struct pr_job *job)
{
    struct lun *lun = job->cmd->lun;

    abort_preempted(job);
    while (!job->cmd->abort_requested && any_left(job))
        co_queue_wait(&lun->command_left);
}

static void spread_news(const struct pr_job *job)
{
    static const enum ua_kind kinds[] = {
        [PR_NEWS_PREEMPTED] = UA_RESERVATIONS_PREEMPTED,
        [PR_NEWS_RELEASED] = UA_RESERVATIONS_RELEASED,
        [PR_NEWS_REGISTRATION_PREEMPTED] = UA_REGISTRATIONS_PREEMPTED,
    };
    const struct lun *lun = job->cmd->lun;

    for (unsigned i = 0; i < job->change.nr; i++)
        ua_raise_port(lun->target, lun->number, kinds[job->change.news[i].kind],
                      &job->change.news[i].port);
}

static int co_save(struct lun *lun, const struct pr *next)
{
    struct error err = ERROR_INIT;
    char *text = NULL;
    int ret;

    if (!next->aptpl && !lun->pr.aptpl)
        return 0;
    if (next->aptpl && next->nr) {
        text = pr_to_text(next, lun->number);
        if (!text)
            return -ENOMEM;
    }
    ret = sink.save ? sink.save(lun->target, lun->number, text, sink.opaque, &err) : 0;
    if (ret)
        log_err("LUN %u of %s: can't keep persistent reservations: %s", lun->number,
                target_name(lun->target), err.msg);
    free(text);
    return ret;
}

static void fail_result(struct scsi_cmd *cmd, enum pr_result res)
{
    switch (res) {
    case PR_OK:
        break;
    case PR_CONFLICT:
        cmd_conflict(cmd);
        break;
    case PR_BAD_RELEASE:
        cmd_fail(cmd, SENSE_INVALID_RELEASE);
        break;
    case PR_BAD_KEY:
        cmd_fail_param_field(cmd, 8);
        break;
    case PR_BAD_PORT:
        cmd_fail_param_field(cmd, PR_OUT_BYTES);
        break;
    case PR_BAD_TYPE:
        cmd_fail_cdb_field(cmd, 2, 7);
        break;
    case PR_NOTHING_TO_MOVE:
        cmd_fail_cdb_field(cmd, 1, 4);
        break;
    case PR_NO_ROOM:
        cmd_fail(cmd, SENSE_NO_REGISTRATION_ROOM);
        break;
    }
}

/* True: the new state is in force. Else the command has ended, or is about to, unchanged. */
static bool co_change(struct pr_job *job)
{
    struct scsi_cmd *cmd = job->cmd;
    struct lun *lun = cmd->lun;
    enum pr_result res;

    if (lun->gone || cmd->abort_requested) {
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
        return false;
    }
    if (pr_copy(&job->next, &lun->pr)) {
        cmd_fail_errno(cmd, -ENOMEM);
        return false;
    }
    res = pr_apply(&job->next, &job->rq, &job->change);
    if (res != PR_OK) {
        fail_result(cmd, res);
        return false;
    }
    if (co_save(lun, &job->next)) {
        cmd_fail(cmd, SENSE_INTERNAL_FAILURE);
        return false;
    }
    pr_release(&lun->pr);
    lun->pr = job->next;
    job->next.regs = NULL;
    spread_news(job);
    return true;
}

static void co_pr_out(void *arg)
{
    struct pr_job *job = arg;
    struct scsi_cmd *cmd = job->cmd;
    struct lun *lun = cmd->lun;
    bool done;

    lun_pin(lun);
    co_mutex_lock(&lun->kept_lock);
    done = co_change(job);
    pr_release(&job->next);
    co_mutex_unlock(&lun->kept_lock); /* before the wait: another PR OUT may be what is aborted */
    if (done && job->rq.action == PR_PREEMPT_AND_ABORT)
        co_abort_preempted(job);
    if (done)
        cmd_good(cmd);
    lun_unpin(lun);
}

/* SCOPE 0, the logical unit, and a TYPE that there is. */
static bool names_reservation(const struct scsi_cmd *cmd)
{
    return pr_type_valid(cmd->cdb[2]);
}

static void fill_request(struct pr_job *job)
{
    const struct scsi_cmd *cmd = job->cmd;
    struct pr_request *rq = &job->rq;

    rq->action = (enum pr_action)(cmd->cdb[1] & 0x1f);
    rq->type = names_reservation(cmd) ? cmd->cdb[2] : PR_NONE;
    memcpy(rq->from.isid, cmd->nexus->isid, 6);
    strcpy(rq->from.name, cmd->nexus->initiator); /* checked at login: ISCSI_NAME_MAX */
    rq->from.rel_port = cmd->nexus->rel_port;
    rq->ports = job->ports;
    rq->nr_ports = target_ports(cmd->nexus->target, cmd->nexus, job->ports);
}

/* False: there is no room. */
static bool add_other(struct pr_job *job, const char *name, const uint8_t isid[6])
{
    struct pr_port *port = &job->others[job->rq.nr_others];

    if (job->rq.nr_others == PR_MAX_OTHER_PORTS)
        return false;
    job->rq.nr_others++;
    *port = (struct pr_port){0};
    strcpy(port->name, name);
    memcpy(port->isid, isid, 6);
    return true;
}

/* The sender is one of its device's ports, and a port may be here by several target ports. */
static bool is_named(const struct pr_job *job, unsigned from, const struct nexus *n)
{
    if (!strcmp(n->initiator, job->rq.from.name) && !memcmp(n->isid, job->rq.from.isid, 6))
        return true;
    for (unsigned i = from; i < job->rq.nr_others; i++) {
        if (!memcmp(job->others[i].isid, n->isid, 6))
            return true;
    }
    return false;
}

static bool add_ports_of(struct pr_job *job, const char *name)
{
    unsigned before = job->rq.nr_others;
    const struct nexus *n;

    list_for_each_entry (n, &job->cmd->nexus->target->nexuses, link) {
        if (!strcmp(n->initiator, name) && !is_named(job, before, n) &&
            !add_other(job, name, n->isid))
            return false;
    }
    return job->rq.nr_others > before;
}

/* SPC-4 7.6.4.6: a name without an ISID is each initiator port of it that we know. False: there is
 * none, or there are too many. */
static bool expand_devices(struct pr_job *job)
{
    struct pr_port given[PR_MAX_OTHER_PORTS];
    unsigned nr = job->rq.nr_others;
    bool fits = true;

    if (!job->rq.whole_devices)
        return true;
    memcpy(given, job->others, nr * sizeof(given[0]));
    job->rq.nr_others = 0;
    for (unsigned i = 0; i < nr && fits; i++) {
        if (job->rq.whole_devices >> i & 1)
            fits = add_ports_of(job, given[i].name);
        else
            fits = add_other(job, given[i].name, given[i].isid);
    }
    return fits;
}

static void pr_out_with_list(struct scsi_cmd *cmd)
{
    struct pr_job *job = calloc(1, sizeof(*job));
    uint16_t field;

    if (!job) {
        cmd_fail_errno(cmd, -ENOMEM);
        return;
    }
    cmd->priv = job;
    cmd->moved_bytes = cmd->buf_len;
    job->cmd = cmd;
    fill_request(job);
    switch (pr_parse_out(cmd->buf, cmd->buf_len, &job->rq, job->others, &field)) {
    case PR_BAD_LENGTH:
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
        return;
    case PR_BAD_FIELD:
        cmd_fail_param_field(cmd, field);
        return;
    case PR_PARSED:
        break;
    }
    if (!expand_devices(job)) {
        cmd_fail_param_field(cmd, PR_OUT_BYTES);
        return;
    }
    if (job->rq.action == PR_REGISTER_AND_MOVE &&
        !target_has_port(cmd->nexus->target, cmd->nexus, job->others[0].rel_port)) {
        cmd_fail_param_field(cmd, 18);
        return;
    }
    if (job->rq.aptpl && !sink.save) { /* PTPL_C is 0 */
        cmd_fail_param_field(cmd, job->rq.action == PR_REGISTER_AND_MOVE ? 17 : 20);
        return;
    }
    cmd->phase = PH_WALK;
    co_spawn(co_pr_out, job);
}

static void pr_out_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, pr_out_with_list);
}

void spc_pr_out(struct scsi_cmd *cmd)
{
    uint64_t len = cdb_get(cmd->cdb, cmd->op->len);
    enum pr_action action = (enum pr_action)(cmd->cdb[1] & 0x1f);
    bool reserves = action == PR_RESERVE || action == PR_RELEASE;

    if (reserves && !names_reservation(cmd)) {
        cmd_fail_cdb_field(cmd, 2, cmd->cdb[2] >> 4 ? 7 : 3);
        return;
    }
    cmd->transfer_bytes = len;
    if (len < PR_OUT_BYTES || len > PR_OUT_MAX_BYTES || len > cmd_expected_bytes(cmd))
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
    else
        cmd_get_buf(cmd, (uint32_t)len, pr_out_fetch);
}
