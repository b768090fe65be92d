/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Unit attentions per nexus and LUN. The state of a LUN is made when the nexus first uses it, with
 * POWER ON pending, which covers everything that happened before. Kinds are bits: the same news
 * twice is told once, and no more than NEXUS_MAX_UA are ever pending (initiators retry a command
 * 7 times): beyond that the least important one goes.
 */
#include <stdio.h>
#include <stdlib.h>
#include "target/nexus.h"
#include "target/lun.h"
#include "target/target-int.h"
#include "util/loop.h"

struct nexus_lun {
    struct list_head link;
    uint16_t number;
    uint16_t pending; /* bits by enum ua_kind */
    bool prevents_removal;
    uint64_t read_ns; /* when data was read last; 0: never */
};

void nexus_init(struct nexus *n, struct target *t, const char *initiator, const uint8_t isid[6],
                uint16_t rel_port)
{
    n->target = t;
    n->initiator = initiator;
    memcpy(n->isid, isid, sizeof(n->isid));
    n->rel_port = rel_port;
    n->mask = mask_find(t->masks, initiator);
    list_init(&n->luns);
    list_add_tail(&t->nexuses, &n->link);
}

void nexus_fini(struct nexus *n)
{
    struct nexus_lun *nl, *tmp;
    struct lun *lun;

    list_for_each_entry (lun, &n->target->luns, link)
        lun_nexus_lost(lun, n);
    list_for_each_entry_safe (nl, tmp, &n->luns, link)
        free(nl);
    list_init(&n->luns);
    list_del(&n->link);
}

void nexus_take_over(struct nexus *n, struct nexus *old)
{
    struct lun *lun;

    list_splice_tail(&n->luns, &old->luns);
    list_for_each_entry (lun, &n->target->luns, link) {
        if (lun->reserved_by == old)
            lun->reserved_by = n;
        for (unsigned i = 0; i < LUN_KEPT_COPIES; i++) {
            if (lun->copies[i].by == old)
                lun->copies[i].by = n;
        }
    }
}

bool nexus_may_reach(const struct nexus *n, const struct lun *lun)
{
    return lun->target == n->target && !lun->gone && mask_shows(n->mask, lun->number);
}

struct lun *nexus_find_lun(const struct nexus *n, uint16_t number)
{
    struct lun *lun = target_find_lun(n->target, number);

    return lun && nexus_may_reach(n, lun) ? lun : NULL;
}

static struct nexus_lun *find(struct nexus *n, uint16_t number)
{
    struct nexus_lun *nl;

    list_for_each_entry (nl, &n->luns, link) {
        if (nl->number == number)
            return nl;
    }
    return NULL;
}

/* The LUN used last is found first. */
static struct nexus_lun *find_or_make(struct nexus *n, uint16_t number)
{
    struct nexus_lun *nl = find(n, number);

    if (!nl) {
        nl = calloc(1, sizeof(*nl));
        if (!nl)
            return NULL;
        nl->number = number;
        nl->pending = 1u << UA_POWER_ON;
        list_add(&n->luns, &nl->link);
    } else if (n->luns.next != &nl->link) {
        list_del(&nl->link);
        list_add(&n->luns, &nl->link);
    }
    return nl;
}

bool nexus_take_ua(struct nexus *n, uint16_t lun, enum ua_kind *kind)
{
    struct nexus_lun *nl = find_or_make(n, lun);

    if (!nl || !nl->pending)
        return false;
    *kind = (enum ua_kind)__builtin_ctz(nl->pending);
    nl->pending &= (uint16_t) ~(1u << *kind);
    return true;
}

static void raise_on(struct nexus_lun *nl, enum ua_kind kind)
{
    if (nl->pending & 1u << UA_POWER_ON)
        return;
    nl->pending |= (uint16_t)(1u << kind);
    if (__builtin_popcount(nl->pending) > NEXUS_MAX_UA)
        nl->pending &= (uint16_t) ~(1u << (31 - __builtin_clz(nl->pending)));
}

void nexus_raise(struct nexus *n, uint16_t lun, enum ua_kind kind)
{
    struct nexus_lun *nl = find(n, lun);

    if (nl)
        raise_on(nl, kind);
}

void ua_raise_others(struct target *t, uint16_t lun, enum ua_kind kind, const struct nexus *but)
{
    struct nexus *n;

    list_for_each_entry (n, &t->nexuses, link) {
        struct nexus_lun *nl = n == but ? NULL : find(n, lun);

        if (nl)
            raise_on(nl, kind);
    }
}

void ua_raise(struct target *t, uint16_t lun, enum ua_kind kind)
{
    ua_raise_others(t, lun, kind, NULL);
}

void ua_raise_port(struct target *t, uint16_t lun, enum ua_kind kind, const struct pr_port *port)
{
    struct nexus *n;

    list_for_each_entry (n, &t->nexuses, link) {
        struct nexus_lun *nl = find(n, lun);

        if (nl && pr_port_equal(port, n->initiator, n->isid, n->rel_port))
            raise_on(nl, kind);
    }
}

void nexus_prevent_removal(struct nexus *n, uint16_t lun, bool prevent)
{
    struct nexus_lun *nl = prevent ? find_or_make(n, lun) : find(n, lun);

    if (nl)
        nl->prevents_removal = prevent;
}

bool removal_prevented(struct target *t, uint16_t lun)
{
    struct nexus *n;

    list_for_each_entry (n, &t->nexuses, link) {
        struct nexus_lun *nl = find(n, lun);

        if (nl && nl->prevents_removal)
            return true;
    }
    return false;
}

static void mask_again(struct nexus *n, const struct lun_mask *mask)
{
    const struct lun_mask *old = n->mask;
    struct nexus_lun *nl;
    bool changed = false;
    struct lun *lun;

    n->mask = mask;
    list_for_each_entry (lun, &n->target->luns, link) {
        bool was_seen = mask_shows(old, lun->number), is_seen = mask_shows(mask, lun->number);

        changed |= was_seen != is_seen;
        if (was_seen && !is_seen) {
            lun_nexus_lost(lun, n);
            nexus_prevent_removal(n, lun->number, false);
        }
    }
    if (!changed)
        return;
    list_for_each_entry (nl, &n->luns, link)
        raise_on(nl, UA_REPORTED_LUNS);
}

void nexuses_mask_again(struct target *t)
{
    struct nexus *n;

    list_for_each_entry (n, &t->nexuses, link)
        mask_again(n, mask_find(t->masks, n->initiator));
}

void ua_raise_all_luns(struct target *t, enum ua_kind kind)
{
    struct nexus *n;
    struct nexus_lun *nl;

    list_for_each_entry (n, &t->nexuses, link) {
        list_for_each_entry (nl, &n->luns, link)
            raise_on(nl, kind);
    }
}

void nexus_clear_ua(struct nexus *n, enum ua_kind kind)
{
    struct nexus_lun *nl;

    list_for_each_entry (nl, &n->luns, link)
        nl->pending &= (uint16_t) ~(1u << kind);
}

void nexus_note_read(struct nexus *n, uint16_t lun)
{
    struct nexus_lun *nl = find(n, lun);

    if (nl)
        nl->read_ns = now_ns();
}

bool lun_in_use(struct lun *lun, char *who, size_t len)
{
    struct nexus *n;

    list_for_each_entry (n, &lun->target->nexuses, link) {
        const struct nexus_lun *nl = find(n, lun->number);

        if (!nl || !nl->read_ns || now_ns() - nl->read_ns > LUN_READER_NS)
            continue;
        snprintf(who, len, "%s reads from LUN %u", n->initiator, lun->number);
        return true;
    }
    if (lun->pr.nr) {
        snprintf(who, len, "%s is registered with LUN %u", lun->pr.regs[0].port.name, lun->number);
        return true;
    }
    if (!lun->nr_commands)
        return false;
    snprintf(who, len, "%u commands are under way on LUN %u", lun->nr_commands, lun->number);
    return true;
}

void nexuses_forget_lun(struct target *t, uint16_t lun)
{
    struct nexus *n;

    list_for_each_entry (n, &t->nexuses, link) {
        struct nexus_lun *nl = find(n, lun);

        if (nl) {
            list_del(&nl->link);
            free(nl);
        }
    }
}

void scsi_lun_reset(struct target *t, uint16_t number, struct nexus *by)
{
    struct lun *lun = target_find_lun(t, number);
    struct nexus *n;

    (void)by; /* SAM-5 6.3.3: every nexus hears of it, the one that asked for it too */
    if (lun) {
        lun_nexus_lost(lun, NULL);
        mode_reset(lun);
    }
    list_for_each_entry (n, &t->nexuses, link)
        nexus_prevent_removal(n, number, false);
    ua_raise(t, number, UA_DEVICE_RESET);
}
