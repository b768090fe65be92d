/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A raw image that is not complete yet: NAME.partial holds data at its final offset, NAME.cowmap
 * beside it says which blocks are local. The node answers as an overlay does: own say where the
 * map says local, else its backing's. When the backing reference is removed (co_change_backing
 * without a name) NAME.partial becomes NAME and the map is gone: what stays is a plain raw image.
 */
#ifndef COWTGT_COWMAP_H
#define COWTGT_COWMAP_H

#include "lun-backends/block.h"

#define COWMAP_PARTIAL_SUFFIX ".partial"
#define COWMAP_MAP_SUFFIX     ".cowmap"
#define COWMAP_DONE_SUFFIX    ".done"
#define COWMAP_MIN_BLOCK      4096u
#define COWMAP_MAX_BLOCK      (2u << 20)

/*
 * Makes both files, durably. @map NULL: the map goes beside. @path: what the image will be called,
 * absolute; nothing of it may exist. @block_bytes: power of two from 4 KiB to 2 MiB; 0: the
 * smallest that keeps the map at 32 MiB. @backing: what the image says of its backing. On failure
 * nothing is left.
 *
 * With @map, @path is a block device of exactly that size, whose content goes, and @map (absolute,
 * to be made) says what is local. There is no .partial then: the device is complete when @map has
 * become MAP.done, which stays until co_cowmap_tidy(): so a map that is lost is never taken for one
 * that is no longer needed.
 */
int co_cowmap_create(const char *path, const char *map, uint64_t size_bytes, uint32_t block_bytes,
                     const char *backing, struct error *err);
/* Takes away what co_cowmap_create() made. */
void co_cowmap_remove(const char *path, const char *map);
/* The owner has it on record that the device is complete. */
void co_cowmap_tidy(const char *map);
/*
 * Opens @path for writing: as far as it came, or, when it is complete, as plain raw (a map that a
 * crash left behind goes away then). The backing edge is the caller's to set.
 */
int co_cowmap_open(const char *path, const char *map, struct blk_node **node, struct error *err);
/* What the image says of its backing; NULL: it has none, it is complete. */
const char *cowmap_backing(const struct blk_node *node);

#endif
