/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the block core share among themselves; nobody else includes this. */
#ifndef COWTGT_BLOCK_INT_H
#define COWTGT_BLOCK_INT_H

#include "lun-backends/block.h"

/*
 * Heads found above a node. While a set lives it is known to the core, and a head that goes away
 * leaves it: its slot becomes NULL.
 */
struct head_set {
    struct list_head link;
    struct blk_node *node; /* holds a reference */
    bool draining;         /* heads that come later join */
    unsigned nr;
    struct blk_head **heads;
};

/* All heads above @node (and on it), each once. */
struct head_set *head_set_new(struct blk_node *node);
void head_set_free(struct head_set *set);

void block_edge_init(struct blk_edge *edge);
void block_edge_link(struct blk_edge *edge, struct blk_node *child);
/* Unlinks and hands the edge's reference to the caller. */
struct blk_node *block_edge_unlink(struct blk_edge *edge);

void request_init(void);
void request_fini(void);
void head_init(void);
/* A watched request (req->begun_ns) of @head has ended. */
void head_tell_ended(struct blk_head *head, struct blk_req *req);

/* blk_submit() for a request that belongs to @head. */
void request_submit(struct blk_node *node, struct blk_req *req, struct blk_head *head);
/* Ends it at once with @result; done() comes later, as for any other. */
void request_reject(struct blk_node *node, struct blk_req *req, struct blk_head *head, int result);

static inline bool verb_changes_data(enum blk_verb verb)
{
    return verb == BLK_WRITE || verb == BLK_WRITE_ZEROES || verb == BLK_DISCARD;
}

#endif
