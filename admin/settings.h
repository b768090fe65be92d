/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settings of a chain: kept in its top image (docs/image-settings.md), or in the saved state where
 * the image's format has no place for them. Invariant: a change is durable before it acts.
 */
#ifndef COWTGT_SETTINGS_H
#define COWTGT_SETTINGS_H

#include <jansson.h>
#include "admin/chains.h"

/* The layers were just opened: takes what is kept, and the record of a pull follows it. */
void chain_settings_adopt(struct chain *c);
/* Coroutine, chain claimed. @list: "key=value" strings, all or none of them. */
int co_chain_settings_change(struct chain *c, const json_t *list, struct error *err);
/* Coroutine: another image is the top now: it keeps what the chain goes by. Saves no state. */
void co_chain_settings_follow(struct chain *c);
/* Coroutine: the user started, resumed or paused the stream itself. Where "prefetch" is set it
 * follows, so that the last word holds after a restart. */
void co_chain_prefetch_said(struct chain *c, bool on);
/* For query-chains: what is kept, and for a pull with a source what holds. */
json_t *chain_settings_info(const struct chain *c);

#endif
