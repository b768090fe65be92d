/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Format, view and filter nodes that have no header of their own. Openers run in coroutines,
 * take their own reference on the file node given and return a node with one reference, with no
 * backing edge set: the chain opener joins layers.
 */
#ifndef COWTGT_FORMATS_H
#define COWTGT_FORMATS_H

#include "lun-backends/block.h"

/* raw: the file as the disk; odd sizes are rounded up to 512 and read zeros there. */
int co_raw_open(struct blk_node *file, bool writable, struct blk_node **node, struct error *err);

/* A disk of zeros: the end of every chain that needs one. */
struct blk_node *zero_node_new(uint64_t size_bytes);

/* Delta view: reads and status of @layer alone, what it does not hold reads as zeros. */
struct blk_node *delta_view_new(struct blk_node *layer);

/*
 * The topmost @layers of @source (a disk on another host) over @base: data and zeros that they
 * decide are read from @source, the rest from @base (NULL: zeros). What decides is asked for once
 * and remembered. @generation: of the source's chain, 0 = not known yet; when it is another, or the
 * source does not tell of layers, they are counted anew, or everything is taken as decided above
 * @base, which reads the same. UPPER_ANY_GENERATION: the count holds, whatever is done to the chain
 * below.
 */
#define UPPER_ANY_GENERATION UINT32_MAX
struct blk_node *upper_node_new(struct blk_node *source, unsigned layers, struct blk_node *base,
                                uint32_t generation);
/*
 * Coroutine: how many layers of the source are to be looked into, in its chain of *@generation;
 * what those below decide must be the base's or be decided above @upper. 0, -EAGAIN and -EHOSTDOWN
 * for "not now", or another -errno with @err: nobody knows. Without one nobody does.
 */
typedef int (*upper_count_fn)(void *opaque, unsigned *layers, uint32_t *generation,
                              struct error *err);
void upper_set_count(struct blk_node *upper, upper_count_fn co_count, void *opaque);
/* The disk on another host; NULL: @node is no such node. */
struct blk_node *upper_source(const struct blk_node *node);

/* Image view: the bytes of a layer's file node, read-only, size rounded up to 512. */
struct blk_node *image_view_new(struct blk_node *file);

/*
 * Copy-on-read over @overlay: data read from its backing goes back to the reader first and is
 * then written into @overlay with BLK_IF_UNALLOCATED, whole subunits. Bounded memory: when its
 * budget is used up it just doesn't keep. Can be switched at any time.
 */
struct blk_node *copy_on_read_new(struct blk_node *overlay);
void copy_on_read_enable(struct blk_node *cor, bool on);
/* Only what the topmost @layers below the overlay decide is kept; 0: all. */
void copy_on_read_set_layers(struct blk_node *cor, unsigned layers);

struct copy_on_read_stats {
    uint64_t kept_bytes, skipped_bytes;
};
void copy_on_read_get_stats(const struct blk_node *cor, struct copy_on_read_stats *st);

#endif
