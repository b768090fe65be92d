/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent reservations as one line of text, for whoever keeps them through a power loss:
 *     LUN:TYPE:[*]KEY/ISID[@PORT]/NAME,[*]KEY/ISID[@PORT]/NAME...
 * in hex but for LUN and TYPE; * is the holder, PORT the target port, 1 if left out. Bytes of a
 * name that iSCSI names rarely have are %XX. A damaged line is an error, never half a reservation.
 */
#include "target/pr.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_MAX (1 + 16 + 1 + 12 + 5 + 1 + 3 * ISCSI_NAME_MAX + 1)

static bool is_plain(unsigned char ch)
{
    return isalnum(ch) || strchr("-.:", ch);
}

static size_t put_name(char *out, const char *name)
{
    char *p = out;

    for (; *name; name++) {
        if (is_plain((unsigned char)*name))
            *p++ = *name;
        else
            p += sprintf(p, "%%%02x", (unsigned char)*name);
    }
    return (size_t)(p - out);
}

char *pr_to_text(const struct pr *pr, uint16_t lun)
{
    char *text = malloc(32 + pr->nr * (size_t)ENTRY_MAX), *p = text;

    if (!text)
        return NULL;
    p += sprintf(p, "%u:%u:", lun, pr->type);
    for (unsigned i = 0; i < pr->nr; i++) {
        const struct pr_registration *r = &pr->regs[i];
        const uint8_t *s = r->port.isid;

        p += sprintf(p, "%s%s%016" PRIx64 "/%02x%02x%02x%02x%02x%02x", i ? "," : "",
                     r->holder ? "*" : "", r->key, s[0], s[1], s[2], s[3], s[4], s[5]);
        if (r->port.rel_port != 1)
            p += sprintf(p, "@%04x", r->port.rel_port);
        *p++ = '/';
        p += put_name(p, r->port.name);
    }
    *p = '\0';
    return text;
}

/* ---- back ---- */

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Exactly @digits of them. */
static bool take_hex(const char **p, unsigned digits, uint64_t *v)
{
    *v = 0;
    while (digits--) {
        int d = hex_digit(**p);

        if (d < 0)
            return false;
        *v = *v << 4 | (unsigned)d;
        (*p)++;
    }
    return true;
}

static bool take_port(const char **p, uint16_t *rel_port)
{
    uint64_t v = 1;

    if (**p == '@') {
        (*p)++;
        if (!take_hex(p, 4, &v) || !v)
            return false;
    }
    *rel_port = (uint16_t)v;
    return true;
}

static bool take_name(const char **p, char name[ISCSI_NAME_MAX + 1])
{
    size_t n = 0;

    while (**p && **p != ',') {
        int ch = (unsigned char)*(*p)++;

        if (ch == '%') {
            int hi = hex_digit((*p)[0]), lo = hi < 0 ? -1 : hex_digit((*p)[1]);

            if (lo < 0)
                return false;
            ch = hi << 4 | lo;
            *p += 2;
        } else if (!is_plain((unsigned char)ch)) {
            return false;
        }
        if (!ch || n == ISCSI_NAME_MAX)
            return false;
        name[n++] = (char)ch;
    }
    name[n] = '\0';
    return n > 0;
}

static bool take_registration(struct pr *pr, const char **p)
{
    struct pr_registration *r = &pr->regs[pr->nr];
    uint64_t isid;

    if (pr->nr == PR_MAX_REGISTRATIONS)
        return false;
    r->holder = **p == '*';
    *p += r->holder;
    if (!take_hex(p, 16, &r->key) || !r->key || *(*p)++ != '/' || !take_hex(p, 12, &isid) ||
        !take_port(p, &r->port.rel_port) || *(*p)++ != '/' || !take_name(p, r->port.name))
        return false;
    for (int i = 5; i >= 0; i--, isid >>= 8)
        r->port.isid[i] = (uint8_t)isid;
    if (pr_find(pr, r->port.name, r->port.isid, r->port.rel_port))
        return false;
    pr->nr++;
    return true;
}

static bool holders_right(const struct pr *pr)
{
    unsigned holders = 0;

    for (unsigned i = 0; i < pr->nr; i++)
        holders += pr->regs[i].holder;
    return holders == (pr->type && !pr_all_registrants(pr) ? 1 : 0);
}

int pr_from_text(struct pr *pr, const char *text, uint16_t lun)
{
    unsigned number, type;
    int used = 0;
    const char *p;
    bool good;

    if (sscanf(text, "%5u:%1u:%n", &number, &type, &used) != 2 || !used || number != lun ||
        (type && !pr_type_valid((uint8_t)type)))
        return -EINVAL;
    pr->regs = calloc(PR_MAX_REGISTRATIONS, sizeof(*pr->regs));
    if (!pr->regs)
        return -ENOMEM;
    pr->type = (uint8_t)type;
    pr->aptpl = true;
    p = text + used;
    do {
        good = take_registration(pr, &p);
    } while (good && *p == ',' && *++p);
    if (good && !*p && holders_right(pr))
        return 0;
    pr_release(pr);
    return -EINVAL;
}
