/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Faults on purpose, for tests: a filter on a format node's file edge that fails or delays what
 * its rules name. What no rule names passes unchanged.
 */
#ifndef COWTGT_INJECT_H
#define COWTGT_INJECT_H

#include "lun-backends/block.h"

#define INJECT_MAX_RULES 32

enum inject_part {
    INJECT_ANY,
    INJECT_DATA,     /* what the disk above holds */
    INJECT_METADATA, /* the format's own tables: BLK_META */
};

/* A request that fits all of it is a hit. */
struct inject_rule {
    unsigned verbs; /* 1 << enum blk_verb, or-ed */
    enum inject_part part;
    uint64_t start_bytes, end_bytes; /* of the file, touched; FLUSH has no range and fits any */
    uint64_t skip;                   /* so many fitting requests pass first */
    bool once;                       /* it is gone after its first hit */
    int error;                       /* positive errno; 0: only the delay */
    uint64_t delay_ns;
};

/* A filter over @child; NULL: out of memory. */
struct blk_node *inject_node_new(struct blk_node *child);
/* The filter on @parent's file edge, or NULL. */
struct blk_node *inject_node_below(const struct blk_node *parent);
int inject_add_rule(struct blk_node *inject, const struct inject_rule *rule, struct error *err);
/* Requests that a rule has failed or delayed so far. */
uint64_t inject_hits(const struct blk_node *inject);

/* Coroutines: put a filter on @parent's file edge (give the one that is there), take it away. */
int co_inject_insert(struct blk_node *parent, struct blk_node **inject, struct error *err);
void co_inject_remove(struct blk_node *parent);

#endif
