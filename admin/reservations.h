/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What initiators want kept through a power loss, persistent reservations (APTPL) and mode
 * parameters (SP): lines of text in the chain's record, one of each for a LUN. The text is the
 * target's own; here it is only kept.
 */
#ifndef COWTGT_RESERVATIONS_H
#define COWTGT_RESERVATIONS_H

#include "admin/chains.h"

/* From now on the state keeps them, durable before an initiator hears of it. */
void reservations_init(struct daemon *d);
/* What is kept for a LUN; NULL: nothing. */
const char *reservations_of(const struct chain_record *rec, uint16_t lun);
const char *mode_parameters_of(const struct chain_record *rec, uint16_t lun);

#endif
