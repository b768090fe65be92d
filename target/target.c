/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry of targets: names, who may log in, and the end of a target: first its sessions,
 * then its LUNs, then itself.
 */
#include "target/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target/session.h"
#include "target/target-int.h"

static struct list_head targets = LIST_HEAD_INIT(targets);

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

int target_allow(struct target *t, const char *initiator_name, struct error *err)
{
    char name[ISCSI_NAME_MAX + 1];
    char **list;
    int rc = check_name(initiator_name, name, err);

    if (rc || (t->nr_allowed && target_allows(t, name)))
        return rc;
    list = realloc(t->allowed, (t->nr_allowed + 1) * sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    t->allowed = list;
    list[t->nr_allowed] = strdup(name);
    if (!list[t->nr_allowed])
        return error_set(err, ENOMEM, "out of memory");
    t->nr_allowed++;
    return 0;
}

bool target_allows(const struct target *t, const char *initiator)
{
    for (unsigned i = 0; i < t->nr_allowed; i++) {
        if (!strcasecmp(t->allowed[i], initiator))
            return true;
    }
    return !t->nr_allowed;
}

void co_target_destroy(struct target *t)
{
    t->closing = true;
    session_close_all_but(t, NULL);
    while (!list_empty(&t->sessions))
        co_queue_wait(&t->session_gone);
    co_target_free_luns(t);
    list_del(&t->link);
    for (unsigned i = 0; i < t->nr_allowed; i++)
        free(t->allowed[i]);
    free(t->allowed);
    free(t->name);
    free(t);
}
