/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry of targets: names, who may log in, and the end of a target: first its sessions,
 * then its LUNs, then itself.
 */
#include "target/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/isns.h"
#include "target/nexus.h"
#include "target/session.h"
#include "target/target-int.h"
#include "target/text.h"

static struct list_head targets = LIST_HEAD_INIT(targets);
static struct auth discovery_auth;

/* ASCII as the stringprep profile of RFC 3722 leaves it; other UTF-8 is taken as it is. */
static bool name_chars_good(const char *s)
{
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;

        if (ch < 0x80 && !(ch >= 'a' && ch <= 'z') && !(ch >= '0' && ch <= '9') &&
            !strchr("-.:", ch))
            return false;
    }
    return true;
}

static bool digits(const char *s, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
    }
    return true;
}

/* iqn.YYYY-MM.naming.authority[:anything], RFC 7143 4.2.7.4 */
static bool is_iqn(const char *s)
{
    size_t len = strlen(s);

    return len > 12 && !strncmp(s, "iqn.", 4) && digits(s, 4, 4) && s[8] == '-' &&
           digits(s, 9, 2) && s[11] == '.' && s[12] != ':' && s[12] != '.';
}

static bool is_hex_name(const char *s, const char *prefix, size_t n1, size_t n2)
{
    size_t len = strlen(s) - 4;

    return !strncmp(s, prefix, 4) && (len == n1 || len == n2) &&
           strspn(s + 4, "0123456789abcdef") == len;
}

/* Lower-cases @name into @out (ISCSI_NAME_MAX + 1) and checks it, RFC 7143 4.2.7. */
static int check_name(const char *name, char *out, struct error *err)
{
    size_t len = strlen(name);

    if (!len || len > ISCSI_NAME_MAX)
        return error_set(err, EINVAL,
                         "\"%.32s...\" is not an iSCSI name: it has %zu bytes, 1 to %d "
                         "are allowed",
                         name, len, ISCSI_NAME_MAX);
    for (size_t i = 0; i <= len; i++)
        out[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
    if (len > 4 && name_chars_good(out) &&
        (is_iqn(out) || is_hex_name(out, "eui.", 16, 16) || is_hex_name(out, "naa.", 16, 32)))
        return 0;
    return error_set(err, EINVAL,
                     "\"%s\" is not an iSCSI name; use iqn.YYYY-MM.reversed.domain:name, eui. with "
                     "16 or naa. with 16 or 32 hexadecimal digits",
                     name);
}

static void (*list_sink)(void);

void target_set_list_sink(void (*fn)(void))
{
    list_sink = fn;
}

void target_list_changed(void)
{
    if (list_sink)
        list_sink();
}

struct target *target_create(const char *iqn, struct error *err)
{
    char name[ISCSI_NAME_MAX + 1];
    struct target *t;

    if (check_name(iqn, name, err))
        return NULL;
    if (target_find(name)) {
        error_set_class(err, ERR_DEVICE_IN_USE, EEXIST, "target %s exists already", name);
        return NULL;
    }
    t = calloc(1, sizeof(*t));
    if (t)
        t->name = strdup(name);
    if (!t || !t->name) {
        free(t);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    list_init(&t->luns);
    list_init(&t->nexuses);
    list_init(&t->sessions);
    co_queue_init(&t->session_gone);
    list_add_tail(&targets, &t->link);
    target_list_changed();
    return t;
}

struct target *target_find(const char *iqn)
{
    struct target *t;

    list_for_each_entry (t, &targets, link) {
        if (!strcasecmp(t->name, iqn))
            return t;
    }
    return NULL;
}

const char *target_name(const struct target *t)
{
    return t->name;
}

unsigned target_nr_sessions(const struct target *t)
{
    return t->nr_sessions;
}

void target_for_each(bool (*fn)(struct target *, void *), void *arg)
{
    struct target *t, *tmp;

    list_for_each_entry_safe (t, tmp, &targets, link) {
        if (!fn(t, arg))
            return;
    }
}

int target_check_allow(const char *who, struct error *err)
{
    char name[ISCSI_NAME_MAX + 1];
    struct access_prefix prefix;

    return access_prefix_parse(who, &prefix) ? 0 : check_name(who, name, err);
}

int target_allow(struct target *t, const char *who, struct error *err)
{
    char name[ISCSI_NAME_MAX + 1];
    struct access_prefix prefix;
    int rc;

    if (access_prefix_parse(who, &prefix)) {
        rc = access_add_prefix(&t->allowed, &prefix);
    } else {
        rc = check_name(who, name, err);
        if (rc)
            return rc;
        rc = access_add_name(&t->allowed, name);
    }
    return rc ? error_set(err, -rc, "out of memory") : 0;
}

int target_set_allowed(struct target *t, char *const *who, unsigned nr, struct error *err)
{
    struct access_list old = t->allowed;

    t->allowed = (struct access_list){0};
    for (unsigned i = 0; i < nr; i++) {
        if (target_allow(t, who[i], err)) {
            access_release(&t->allowed);
            t->allowed = old;
            return -err->errnum;
        }
    }
    access_release(&old);
    return 0;
}

int target_check_name(const char *name, struct error *err)
{
    char checked[ISCSI_NAME_MAX + 1];

    return check_name(name, checked, err);
}

int target_check_mask(const char *initiator, const char *luns, struct error *err)
{
    struct lun_mask *m = mask_parse(initiator, luns, err);

    mask_free(m);
    return m ? 0 : -err->errnum;
}

int target_set_mask(struct target *t, const char *initiator, const char *luns, struct error *err)
{
    struct lun_mask *fresh = luns ? mask_parse(initiator, luns, err) : NULL, *old;

    if (luns && !fresh)
        return -err->errnum;
    old = mask_take(&t->masks, initiator);
    if (fresh) {
        fresh->next = t->masks;
        t->masks = fresh;
    }
    nexuses_mask_again(t);
    mask_free(old);
    return 0;
}

int target_set_portal_groups(struct target *t, const uint64_t *groups, unsigned nr,
                             struct error *err)
{
    uint64_t *copy = nr ? calloc(nr, sizeof(*copy)) : NULL;

    if (nr && !copy)
        return error_set(err, ENOMEM, "out of memory");
    for (unsigned i = 0; i < nr; i++) {
        copy[i] = groups[i];
        if (groups[i] && groups[i] <= UINT16_MAX)
            continue;
        free(copy);
        return error_set(err, EINVAL, "a portal group is a number from 1 to 65535");
    }
    free(t->portal_groups);
    t->portal_groups = copy;
    t->nr_portal_groups = nr;
    return 0;
}

bool target_in_group(const struct target *t, uint16_t group)
{
    for (unsigned i = 0; i < t->nr_portal_groups; i++) {
        if (t->portal_groups[i] == group)
            return true;
    }
    return !t->nr_portal_groups;
}

bool target_allows(const struct target *t, const char *initiator, const char *peer)
{
    return access_allows(&t->allowed, initiator, peer) && sns_allows(t->name, initiator);
}

int target_set_accounts(struct target *t, const struct chap_account *accounts, unsigned nr,
                        const struct chap_account *outgoing, bool required, struct error *err)
{
    return auth_set(t ? &t->auth : &discovery_auth, accounts, nr, outgoing, required, err);
}

const struct auth *target_auth(const struct target *t)
{
    return t ? &t->auth : &discovery_auth;
}

static int replace(char **member, const char *text, struct error *err)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        return error_set(err, ENOMEM, "out of memory");
    free(*member);
    *member = copy;
    return 0;
}

int target_set_alias(struct target *t, const char *alias, struct error *err)
{
    if (alias && strlen(alias) > TEXT_VALUE_MAX)
        return error_set(err, EINVAL, "an alias has at most %d bytes", TEXT_VALUE_MAX);
    return replace(&t->alias, alias, err);
}

int target_redirect(struct target *t, const char *to, bool permanently, struct error *err)
{
    char address[64];

    if (to && !portal_address(to, address))
        return error_set(err, EINVAL, "\"%.80s\" is no address; use ADDRESS[:PORT] or [IPV6]:PORT",
                         to);
    t->redirect_permanently = permanently;
    return replace(&t->redirect_to, to ? address : NULL, err);
}

void co_target_destroy(struct target *t)
{
    t->closing = true;
    session_close_all_but(t, NULL);
    while (!list_empty(&t->sessions))
        co_queue_wait(&t->session_gone);
    co_target_free_luns(t);
    list_del(&t->link);
    target_list_changed();
    access_release(&t->allowed);
    mask_free_all(t->masks);
    free(t->portal_groups);
    auth_release(&t->auth);
    free(t->alias);
    free(t->redirect_to);
    free(t->name);
    free(t);
}
