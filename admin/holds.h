/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a pulled chain needs of its source is held there: a persistent-reservation registration
 * (no reservation) with APTPL on each layer LUN, so that the source knows who still needs what,
 * whoever is switched off meanwhile. The record has the key and the LUNs before the source hears
 * of them, and forgets a LUN only after the source has.
 *
 * A source that refuses is used all the same. One that is away is asked again, later.
 */
#ifndef COWTGT_HOLDS_H
#define COWTGT_HOLDS_H

#include <jansson.h>
#include "admin/chains.h"
#include "discovery/chain-reader.h"

/* Before the first save: what the disk found->luns[picked] is made of, above the base that the
 * record names, goes into the record, with a new key. */
int holds_plan(struct chain_record *rec, const struct found_chain *found, unsigned picked,
               const struct iscsi_url *url, struct error *err);

/*
 * The chain has its nodes and its record is saved. Coroutine: first tries what is to be registered
 * or given back, then goes on by itself as long as that takes. @err says what the source does not
 * know, or will forget, and why (0: nothing to say).
 */
int co_holds_start(struct chain *c, struct error *err);
/* The same without waiting. */
void holds_start(struct chain *c);

/*
 * Nothing is needed any more, and that is durable. Into the record, not saved; then
 * co_holds_give_back() tells the source. An event for each layer that holds_plan() found, base
 * first, by holds_dropped_events(), called before.
 */
void holds_give_up(struct chain_record *rec);
json_t *holds_dropped_events(const struct chain_record *rec);
/* Of the layer that is held as number @i; NULL: it is the disk itself, which has an event of its
 * own. */
json_t *holds_dropped_event(const struct chain_record *rec, unsigned i);
/* One layer LUN is needed no more; -ENOENT if it is not held. */
int holds_give_up_one(struct chain_record *rec, uint16_t lun);
/* Tells the source now, if it is there; else later. */
void co_holds_give_back(struct chain *c);

/* Lets go of everything of this process: the registrations stay. */
void co_holds_close(struct chain *c);

/* For query-chains; NULL: nothing is held. */
json_t *holds_info(const struct chain *c);

/* ---- the other side: who holds what of ours ---- */
/* [{"initiator", "key"}...] of one LUN of the chain; NULL: nobody. */
json_t *holders_of(const struct chain *c, uint16_t lun);
/* ERR_DEVICE_IN_USE naming somebody who holds one of the chain's LUNs; 0: nobody does. Also for
 * a chain that is not served. */
int holders_check(const struct chain *c, struct error *err);

#endif
