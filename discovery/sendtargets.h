/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The answer to SendTargets (RFC 7143 Appendix C), pure: names and portals in, text keys out.
 */
#ifndef COWTGT_SENDTARGETS_H
#define COWTGT_SENDTARGETS_H

#include <stddef.h>

struct sendtargets_entry {
    const char *name;
    const char *const *portals; /* "ADDR:PORT" */
    unsigned nr_portals;
    unsigned portal_group;
};

/*
 * Appends "TargetName=...\0TargetAddress=ADDR:PORT,GROUP\0..." for all entries (@which NULL or
 * "All") or for the one named @which, to a buffer grown with realloc: *@text, *@len.
 * 0, or -ENOMEM. No match: nothing is appended.
 */
int sendtargets_format(const struct sendtargets_entry *e, unsigned n, const char *which,
                       char **text, size_t *len);

#endif
