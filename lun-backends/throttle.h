/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Throttle groups: heads (LUNs) that share limits, served in turn, reads and writes apart. A
 * member holds requests back before its head counts them, so a drain never waits for a limit, and
 * the graph below may change as it likes. READ counts as a read; WRITE, WRITE_ZEROES and DISCARD
 * as writes; the others pass.
 */
#ifndef COWTGT_THROTTLE_H
#define COWTGT_THROTTLE_H

#include "lun-backends/block.h"
#include "lun-backends/throttle-bucket.h"

struct throttle_member;

/* @head joins the group @name (made if there is none), whose limits become @cfg; NULL: stay as they
 * are, none in a new group. The head must have no other member. NULL: out of memory. */
struct throttle_member *throttle_join(struct blk_head *head, const char *name,
                                      const struct throttle_config *cfg);
/* What is held back goes on at once; before the head goes away. NULL is fine. */
void throttle_leave(struct throttle_member *m);
bool throttle_group_exists(const char *name);
const char *throttle_group_name(const struct throttle_member *m);
/* The limits of the group now. */
const struct throttle_config *throttle_group_config(const struct throttle_member *m);

#endif
