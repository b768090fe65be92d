/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The actions of PERSISTENT RESERVE OUT as changes of a struct pr. Invariants: a reservation's
 * holder is registered (a reservation goes with its last holder), and there is at most one holder
 * unless the type makes every registrant one.
 */
#include "target/pr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "util/size.h"

void pr_release(struct pr *pr)
{
    free(pr->regs);
    memset(pr, 0, sizeof(*pr));
}

int pr_copy(struct pr *to, const struct pr *from)
{
    *to = *from;
    to->regs = calloc(PR_MAX_REGISTRATIONS, sizeof(*to->regs));
    if (!to->regs)
        return -ENOMEM;
    if (from->nr)
        memcpy(to->regs, from->regs, from->nr * sizeof(*to->regs));
    return 0;
}

bool pr_type_valid(uint8_t type)
{
    return type <= PR_EXCLUSIVE_ACCESS_AR && (1u << type & 0x1ea);
}

bool pr_port_equal(const struct pr_port *a, const char *name, const uint8_t isid[6],
                   uint16_t rel_port)
{
    return a->rel_port == rel_port && !memcmp(a->isid, isid, 6) && !strcmp(a->name, name);
}

static bool same_port(const struct pr_port *a, const struct pr_port *b)
{
    return pr_port_equal(a, b->name, b->isid, b->rel_port);
}

static struct pr_registration *find(const struct pr *pr, const struct pr_port *port)
{
    for (unsigned i = 0; i < pr->nr; i++) {
        if (same_port(&pr->regs[i].port, port))
            return &pr->regs[i];
    }
    return NULL;
}

const struct pr_registration *pr_find(const struct pr *pr, const char *name, const uint8_t isid[6],
                                      uint16_t rel_port)
{
    for (unsigned i = 0; i < pr->nr; i++) {
        if (pr_port_equal(&pr->regs[i].port, name, isid, rel_port))
            return &pr->regs[i];
    }
    return NULL;
}

static bool is_all_registrants(uint8_t type)
{
    return type == PR_WRITE_EXCLUSIVE_AR || type == PR_EXCLUSIVE_ACCESS_AR;
}

static bool is_registrants_only(uint8_t type)
{
    return type == PR_WRITE_EXCLUSIVE_RO || type == PR_EXCLUSIVE_ACCESS_RO;
}

bool pr_all_registrants(const struct pr *pr)
{
    return is_all_registrants(pr->type);
}

bool pr_is_holder(const struct pr *pr, const struct pr_registration *reg)
{
    return pr->type && (pr_all_registrants(pr) || reg->holder);
}

bool pr_takes_reserve(const struct pr *pr, const char *name, const uint8_t isid[6],
                      uint16_t rel_port)
{
    const struct pr_registration *reg = pr_find(pr, name, isid, rel_port);

    return reg && pr->type && (pr_is_holder(pr, reg) || is_registrants_only(pr->type));
}

/* SPC-4 table 66: by type, and by whether the port holds the reservation or is registered. */
bool pr_forbids(const struct pr *pr, const char *name, const uint8_t isid[6], uint16_t rel_port,
                bool write)
{
    bool write_exclusive = pr->type == PR_WRITE_EXCLUSIVE || pr->type == PR_WRITE_EXCLUSIVE_RO ||
                           pr->type == PR_WRITE_EXCLUSIVE_AR;
    const struct pr_registration *reg;

    if (!pr->type || (write_exclusive && !write))
        return false;
    reg = pr_find(pr, name, isid, rel_port);
    return !reg || !(pr_is_holder(pr, reg) || is_registrants_only(pr->type));
}

/* ---- pieces -------------------------------------------------------------------------- */

static void tell(struct pr_change *ch, const struct pr_port *port, enum pr_news_kind kind)
{
    ch->news[ch->nr++] = (struct pr_news){.port = *port, .kind = kind};
}

static void tell_others(const struct pr *pr, const struct pr_port *but, struct pr_change *ch,
                        enum pr_news_kind kind)
{
    for (unsigned i = 0; i < pr->nr; i++) {
        if (!same_port(&pr->regs[i].port, but))
            tell(ch, &pr->regs[i].port, kind);
    }
}

static void drop_reservation(struct pr *pr)
{
    pr->type = PR_NONE;
    for (unsigned i = 0; i < pr->nr; i++)
        pr->regs[i].holder = false;
}

static void remove_at(struct pr *pr, unsigned i)
{
    memmove(&pr->regs[i], &pr->regs[i + 1], (pr->nr - i - 1) * sizeof(*pr->regs));
    pr->nr--;
}

static void set_reservation(struct pr *pr, struct pr_registration *holder, uint8_t type)
{
    drop_reservation(pr);
    pr->type = type;
    holder->holder = !is_all_registrants(type);
}

static struct pr_registration *add(struct pr *pr, const struct pr_port *port, uint64_t key)
{
    struct pr_registration *reg = &pr->regs[pr->nr++];

    *reg = (struct pr_registration){.port = *port, .key = key};
    return reg;
}

/* SPC-4 5.12.11.3: a holder that unregisters gives up the reservation, unless others share it. */
static void unregister(struct pr *pr, struct pr_registration *reg, struct pr_change *ch)
{
    uint8_t type = pr->type;
    bool was_holder = pr_is_holder(pr, reg);
    struct pr_port port = reg->port;

    remove_at(pr, (unsigned)(reg - pr->regs));
    if (was_holder && (!is_all_registrants(type) || !pr->nr)) {
        drop_reservation(pr);
        if (is_registrants_only(type))
            tell_others(pr, &port, ch, PR_NEWS_RELEASED);
    }
}

/* ---- actions ------------------------------------------------------------------------- */

typedef enum pr_result action_fn(struct pr *pr, const struct pr_request *rq,
                                 struct pr_registration *self, struct pr_change *ch);

/* The target ports that a registration is for. */
static const uint16_t *ports_of(const struct pr_request *rq, unsigned *nr)
{
    *nr = rq->all_ports ? rq->nr_ports : 1;
    return rq->all_ports ? rq->ports : &rq->from.rel_port;
}

/* SPC-4 5.12.7.3 SPEC_I_PT: all or none. */
static enum pr_result register_others(struct pr *pr, const struct pr_request *rq)
{
    unsigned nr_ports;
    const uint16_t *ports = ports_of(rq, &nr_ports);

    if (pr->nr + rq->nr_others * nr_ports > PR_MAX_REGISTRATIONS)
        return PR_NO_ROOM;
    for (unsigned i = 0; i < rq->nr_others * nr_ports; i++) {
        struct pr_port port = rq->others[i / nr_ports];

        port.rel_port = ports[i % nr_ports];
        if (find(pr, &port)) /* registered already, or named twice, or is the sender */
            return PR_BAD_PORT;
        add(pr, &port, rq->action_key);
    }
    return PR_OK;
}

static enum pr_result register_one(struct pr *pr, const struct pr_request *rq,
                                   const struct pr_port *port, struct pr_change *ch)
{
    struct pr_registration *reg = find(pr, port);

    if (reg && rq->action_key)
        reg->key = rq->action_key;
    else if (reg)
        unregister(pr, reg, ch);
    else if (rq->action_key && pr->nr == PR_MAX_REGISTRATIONS)
        return PR_NO_ROOM;
    else if (rq->action_key)
        add(pr, port, rq->action_key);
    return PR_OK;
}

/* SPC-4 6.14.3 ALL_TG_PT: as if it had come by each target port. A nexus there that is registered
 * with another key is a conflict; one that isn't registered is taken along. */
static enum pr_result register_elsewhere(struct pr *pr, const struct pr_request *rq,
                                         struct pr_change *ch)
{
    enum pr_result res = PR_OK;

    for (unsigned i = 0; rq->all_ports && i < rq->nr_ports && res == PR_OK; i++) {
        const struct pr_registration *reg;
        struct pr_port port = rq->from;

        port.rel_port = rq->ports[i];
        if (port.rel_port == rq->from.rel_port)
            continue;
        reg = find(pr, &port);
        if (rq->action == PR_REGISTER && reg && reg->key != rq->key)
            return PR_CONFLICT;
        res = register_one(pr, rq, &port, ch);
    }
    return res;
}

static enum pr_result do_register(struct pr *pr, const struct pr_request *rq,
                                  struct pr_registration *self, struct pr_change *ch)
{
    enum pr_result res;

    if (rq->action == PR_REGISTER && rq->key != (self ? self->key : 0))
        return PR_CONFLICT;
    if (!self && !rq->action_key && !rq->all_ports)
        return PR_OK; /* nothing is to be done, whatever else is asked */
    if (rq->spec_i_pt && (self || !rq->action_key))
        return PR_BAD_PORT;
    pr->aptpl = rq->aptpl;
    res = register_one(pr, rq, &rq->from, ch);
    if (res == PR_OK)
        res = register_elsewhere(pr, rq, ch);
    return res == PR_OK ? register_others(pr, rq) : res;
}

static enum pr_result do_reserve(struct pr *pr, const struct pr_request *rq,
                                 struct pr_registration *self, struct pr_change *ch)
{
    (void)ch;
    if (!pr->type)
        set_reservation(pr, self, rq->type);
    else if (!pr_is_holder(pr, self) || pr->type != rq->type)
        return PR_CONFLICT;
    return PR_OK;
}

static enum pr_result do_release(struct pr *pr, const struct pr_request *rq,
                                 struct pr_registration *self, struct pr_change *ch)
{
    uint8_t type = pr->type;

    if (!pr_is_holder(pr, self)) /* nor if there is none */
        return PR_OK;
    if (type != rq->type)
        return PR_BAD_RELEASE;
    drop_reservation(pr);
    if (is_registrants_only(type) || is_all_registrants(type))
        tell_others(pr, &rq->from, ch, PR_NEWS_RELEASED);
    return PR_OK;
}

static enum pr_result do_clear(struct pr *pr, const struct pr_request *rq,
                               struct pr_registration *self, struct pr_change *ch)
{
    (void)self;
    tell_others(pr, &rq->from, ch, PR_NEWS_PREEMPTED);
    pr->type = PR_NONE;
    pr->nr = 0;
    return PR_OK;
}

/* Removes the registrations that have @key (@all: every one) but the sender's, if that stays. */
static unsigned remove_by_key(struct pr *pr, const struct pr_request *rq, bool all, bool keep_self,
                              struct pr_change *ch)
{
    unsigned n = 0;

    for (unsigned i = 0; i < pr->nr;) {
        const struct pr_registration *reg = &pr->regs[i];
        bool is_self = same_port(&reg->port, &rq->from);

        if ((!all && reg->key != rq->action_key) || (is_self && keep_self)) {
            i++;
            continue;
        }
        if (!is_self)
            tell(ch, &reg->port, PR_NEWS_REGISTRATION_PREEMPTED);
        remove_at(pr, i);
        n++;
    }
    return n;
}

static uint64_t holder_key(const struct pr *pr)
{
    for (unsigned i = 0; i < pr->nr; i++) {
        if (pr->regs[i].holder)
            return pr->regs[i].key;
    }
    return 0;
}

/* SPC-4 5.12.11.5: the reservation as well where the key is its holder's, or 0 with the shared
 * types; else registrations only. */
static enum pr_result do_preempt(struct pr *pr, const struct pr_request *rq,
                                 struct pr_registration *self, struct pr_change *ch)
{
    bool shared = pr_all_registrants(pr);
    uint8_t old_type = pr->type;

    (void)self;
    if (!rq->action_key && !shared)
        return PR_BAD_KEY;
    if (shared ? rq->action_key != 0 : !pr->type || rq->action_key != holder_key(pr)) {
        if (!remove_by_key(pr, rq, false, false, ch))
            return PR_CONFLICT;
        if (!pr->nr)
            pr->type = PR_NONE;
        return PR_OK;
    }
    if (!pr_type_valid(rq->type)) /* only a new reservation needs one */
        return PR_BAD_TYPE;
    remove_by_key(pr, rq, shared, true, ch);
    set_reservation(pr, find(pr, &rq->from), rq->type);
    if (old_type != rq->type)
        tell_others(pr, &rq->from, ch, PR_NEWS_RELEASED);
    return PR_OK;
}

/* SPC-4 5.12.8 */
static enum pr_result do_move(struct pr *pr, const struct pr_request *rq,
                              struct pr_registration *self, struct pr_change *ch)
{
    const struct pr_port *to = rq->others;
    uint8_t type = pr->type;
    struct pr_registration *dest;

    if (!type)
        return PR_NOTHING_TO_MOVE;
    if (!pr_is_holder(pr, self) || pr_all_registrants(pr))
        return PR_CONFLICT;
    if (!rq->action_key)
        return PR_BAD_KEY;
    if (rq->nr_others != 1 || same_port(to, &rq->from))
        return PR_BAD_PORT;
    dest = find(pr, to);
    if (!dest && pr->nr == PR_MAX_REGISTRATIONS)
        return PR_NO_ROOM;
    pr->aptpl = rq->aptpl;
    if (dest)
        dest->key = rq->action_key;
    else
        dest = add(pr, to, rq->action_key);
    set_reservation(pr, dest, type);
    if (rq->unregister)
        unregister(pr, find(pr, &rq->from), ch);
    return PR_OK;
}

static const struct {
    action_fn *fn;
    bool needs_key;  /* the sender is registered with this key, or it is a conflict */
    bool generation; /* counts */
} actions[PR_NR_ACTIONS] = {
    [PR_REGISTER] = {do_register, false, true},
    [PR_RESERVE] = {do_reserve, true, false},
    [PR_RELEASE] = {do_release, true, false},
    [PR_CLEAR] = {do_clear, true, true},
    [PR_PREEMPT] = {do_preempt, true, true},
    [PR_PREEMPT_AND_ABORT] = {do_preempt, true, true},
    [PR_REGISTER_AND_IGNORE] = {do_register, false, true},
    [PR_REGISTER_AND_MOVE] = {do_move, true, true},
};

enum pr_result pr_apply(struct pr *pr, const struct pr_request *rq, struct pr_change *change)
{
    struct pr_registration *self = find(pr, &rq->from);
    enum pr_result res;

    change->nr = 0;
    if (actions[rq->action].needs_key && (!self || self->key != rq->key))
        return PR_CONFLICT;
    res = actions[rq->action].fn(pr, rq, self, change);
    if (res == PR_OK && actions[rq->action].generation)
        pr->generation++;
    return res;
}
