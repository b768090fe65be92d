/* SPDX-License-Identifier: BSD-3-Clause */
/* The pure part of reading a chain: which LUNs there are, and whether their layers join up. */
#ifndef COWTGT_CHAIN_JOIN_H
#define COWTGT_CHAIN_JOIN_H

#include <stddef.h>
#include <stdint.h>
#include "discovery/chain-reader.h"

/*
 * LUN numbers in a REPORT LUNS answer (SPC-4 6.33) of @len bytes, ascending, each once: peripheral
 * device and flat space addressing (SAM-5 4.7.7), others are left out. Their number, -E2BIG if
 * there are more than @max, -EINVAL if the answer contradicts itself.
 */
int report_luns_decode(const uint8_t *buf, size_t len, uint16_t *luns, unsigned max);

/*
 * Do the layers join up? Each parent that is said to be exported here must be, be the layer just
 * below, and belong to the same chain. -EAGAIN: the LUNs tell of different generations, so the
 * topology changed while they were read.
 */
int found_chain_check(const struct found_chain *c, struct error *err);

#endif
