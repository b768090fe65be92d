/* SPDX-License-Identifier: BSD-3-Clause */
/* What query-chains says of a chain. */
#ifndef COWTGT_CHAIN_INFO_H
#define COWTGT_CHAIN_INFO_H

#include <jansson.h>
#include "admin/chains.h"

/* Coroutine (asks the disk for allocated bytes); the caller holds a reference on @c. */
json_t *co_chain_info(struct chain *c);
/* Who is logged in to @target: [{id, initiator, peer}]. */
json_t *target_sessions(const struct target *target);
/* Bytes on disk of a layer's file, or -1. Coroutine; takes its own reference for the time. */
int64_t co_layer_allocated(struct blk_node *node);

#endif
