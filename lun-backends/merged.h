/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Merged maps: one table for a whole run of sealed layers.
 *
 * Sealed layers don't change, so who decides a range and where its bytes lie can be worked out once
 * and kept. The first READ at a read-only node with sealed layers below makes a map for the node;
 * the map is filled range by range as they are read, and a read of a known range goes straight to
 * the deciding layer's file, whatever the depth. It covers the layers from the node down to the
 * first that is writable, remote, a filter, or has a coarser alignment; below that, requests go on
 * layer by layer.
 *
 * A map is forgotten whenever a node it could have looked at is opened anew or gets another edge;
 * that happens only while everything above is drained.
 */
#ifndef COWTGT_MERGED_H
#define COWTGT_MERGED_H

#include "lun-backends/block.h"

bool merged_take_read(struct blk_node *node, struct blk_req *req);
/* For the core, in front of the driver. False: not taken, the driver is to have it. */
static inline bool merged_submit_read(struct blk_node *node, struct blk_req *req)
{
    return (node->merged || !node->merge_decided) && merged_take_read(node, req);
}
/* Drops what was merged at @node and at every node above it. */
void merged_forget(struct blk_node *node);

struct merged_stats {
    unsigned layers;           /* covered */
    uint64_t hits, misses;     /* ranges found, and worked out */
    uint64_t bytes, max_bytes; /* of memory */
};
/* False: there is no map at @node (yet). */
bool merged_get_stats(const struct blk_node *node, struct merged_stats *stats);
/* The bound of one map from now on, for those made later as well; default 32 MiB. */
void merged_set_max_bytes(uint64_t bytes);

#endif
