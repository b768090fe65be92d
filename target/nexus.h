/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What one I_T nexus may see of its target. A LUN out of its reach is, to this nexus, not there at
 * all: no command finds it, REPORT LUNS leaves it out, EXTENDED COPY neither reads nor writes it.
 */
#ifndef COWTGT_NEXUS_H
#define COWTGT_NEXUS_H

#include <stdbool.h>
#include <stdint.h>

struct lun;
struct nexus;
struct target;

/* Asked anew by each command, so it may change while the nexus lasts. */
bool nexus_may_reach(const struct nexus *n, const struct lun *lun);
/* All that @old knows and holds is @n's now, which is new. */
void nexus_take_over(struct nexus *n, struct nexus *old);
/* The LUN of this number, if there is one and the nexus may reach it; else NULL. */
struct lun *nexus_find_lun(const struct nexus *n, uint16_t number);
/* The target's masks have changed; before old ones are freed. */
void nexuses_mask_again(struct target *t);

#endif
