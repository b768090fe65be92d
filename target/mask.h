/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LUN masks: which LUN numbers one initiator sees of a target. Pure but for memory. A mask for "*"
 * is for every initiator that has none of its own; without either all LUNs are seen.
 */
#ifndef COWTGT_MASK_H
#define COWTGT_MASK_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

#define MASK_MAX_RANGES 64
#define MASK_ANYBODY    "*"

struct lun_mask {
    struct lun_mask *next;
    char *initiator; /* in small letters, or MASK_ANYBODY */
    unsigned nr;
    struct {
        uint16_t first, last;
    } ranges[MASK_MAX_RANGES];
};

/* "0,2-4", "none", "all"; NULL with @err. The caller frees it with mask_free(). */
struct lun_mask *mask_parse(const char *initiator, const char *luns, struct error *err);
void mask_free(struct lun_mask *m);
void mask_free_all(struct lun_mask *list);

/* What holds for @initiator; NULL: it sees all. */
const struct lun_mask *mask_find(const struct lun_mask *list, const char *initiator);
/* @m NULL: yes. */
bool mask_shows(const struct lun_mask *m, uint16_t lun);
/* Takes the initiator's own one off @list; NULL: there is none. */
struct lun_mask *mask_take(struct lun_mask **list, const char *initiator);

#endif
