/* SPDX-License-Identifier: BSD-3-Clause */
/* The answer to SendTargets, RFC 7143 Appendix C: each name, then where it can be reached. */
#include "discovery/sendtargets.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int append(char **text, size_t *len, const char *key, const char *value, const char *tail)
{
    size_t need = strlen(key) + 1 + strlen(value) + strlen(tail) + 1; /* the NUL is text too */
    char *p = realloc(*text, *len + need);

    if (!p)
        return -ENOMEM;
    snprintf(p + *len, need, "%s=%s%s", key, value, tail);
    *text = p;
    *len += need;
    return 0;
}

static bool in_groups(const struct sendtargets_entry *e, uint16_t group)
{
    for (unsigned i = 0; i < e->nr_groups; i++) {
        if (e->groups[i] == group)
            return true;
    }
    return !e->nr_groups;
}

static int append_entry(const struct sendtargets_entry *e, const struct sendtargets_portal *portals,
                        unsigned nr_portals, char **text, size_t *len)
{
    bool named = false;
    char group[16];
    int rc = 0;

    for (unsigned i = 0; !rc && i < nr_portals; i++) {
        if (!in_groups(e, portals[i].group))
            continue;
        if (!named)
            rc = append(text, len, "TargetName", e->name, "");
        named = true;
        snprintf(group, sizeof(group), ",%u", portals[i].group);
        if (!rc)
            rc = append(text, len, "TargetAddress", portals[i].address, group);
    }
    return rc;
}

int sendtargets_format(const struct sendtargets_entry *e, unsigned n,
                       const struct sendtargets_portal *portals, unsigned nr_portals,
                       const char *which, char **text, size_t *len)
{
    bool all = !which || !strcmp(which, "All");
    int rc = 0;

    for (unsigned i = 0; !rc && i < n; i++) {
        if (all || !strcmp(e[i].name, which))
            rc = append_entry(&e[i], portals, nr_portals, text, len);
    }
    return rc;
}
