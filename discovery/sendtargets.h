/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The answer to SendTargets (RFC 7143 Appendix C), pure: names and portals in, text keys out.
 */
#ifndef COWTGT_SENDTARGETS_H
#define COWTGT_SENDTARGETS_H

#include <stddef.h>
#include <stdint.h>

struct sendtargets_portal {
    const char *address; /* "HOST:PORT" */
    uint16_t group;      /* portal group tag */
};

struct sendtargets_entry {
    const char *name;
    const uint64_t *groups; /* tags of the portal groups it is bound to; ... */
    unsigned nr_groups;     /* ... 0: all */
};

/*
 * Appends "TargetName=...\0TargetAddress=HOST:PORT,GROUP\0..." for all entries (@which NULL or
 * "All") or for the one named @which, to a buffer grown with realloc: *@text, *@len. Of @portals
 * each entry has those of its groups; one that has none is left out.
 * 0, or -ENOMEM. No match: nothing is appended.
 */
int sendtargets_format(const struct sendtargets_entry *e, unsigned n,
                       const struct sendtargets_portal *portals, unsigned nr_portals,
                       const char *which, char **text, size_t *len);

#endif
