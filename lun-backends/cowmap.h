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
#define COWMAP_MIN_BLOCK      4096u
#define COWMAP_MAX_BLOCK      (2u << 20)

/*
 * Makes both files, durably. @path: what the image will be called, absolute; nothing of it may
 * exist. @block_bytes: power of two from 4 KiB to 2 MiB; 0: the smallest that keeps the map at
 * 32 MiB. @backing: what the image says of its backing. On failure nothing is left.
 */
int co_cowmap_create(const char *path, uint64_t size_bytes, uint32_t block_bytes,
                     const char *backing, struct error *err);
/* Takes away what co_cowmap_create() made. */
void co_cowmap_remove(const char *path);
/*
 * Opens @path for writing: as far as it came, or, when it is complete, as plain raw (a map that a
 * crash left behind goes away then). The backing edge is the caller's to set.
 */
int co_cowmap_open(const char *path, struct blk_node **node, struct error *err);
/* What the image says of its backing; NULL: it has none, it is complete. */
const char *cowmap_backing(const struct blk_node *node);

#endif
