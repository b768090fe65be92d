/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Target ports: a portal group is one (RFC 7143 4.4.2). Its tag is the relative target port
 * identifier, so that stays what it is as long as the portals keep their groups.
 */
#ifndef COWTGT_PORTS_H
#define COWTGT_PORTS_H

#include <stdbool.h>
#include <stdint.h>

struct nexus;
struct target;

#define ALUA_GROUP 1  /* the one target port group */
#define PORTS_MAX  64 /* portals there can be, and the one of a nexus whose portal is closed */

/*
 * The ports of @t: portal groups that it is served at and that have a portal, and that of @n (or
 * NULL), ascending into @out of PORTS_MAX; returns how many.
 */
unsigned target_ports(const struct target *t, const struct nexus *n, uint16_t *out);
/* @rel_port is one of them. */
bool target_has_port(const struct target *t, const struct nexus *n, uint16_t rel_port);

#endif
