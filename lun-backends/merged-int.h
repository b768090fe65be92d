/* SPDX-License-Identifier: BSD-3-Clause */
/* What merged.c and merged-build.c share; nobody else includes this. */
#ifndef COWTGT_MERGED_INT_H
#define COWTGT_MERGED_INT_H

#include "lun-backends/block.h"
#include "util/coroutine.h"

/* A map is kept by ranges of the disk; 8 MiB of random 4 KiB pieces are 32 KiB of memory. */
#define MERGED_RANGE_BITS  23
#define MERGED_RANGE_BYTES (UINT64_C(1) << MERGED_RANGE_BITS)

/* A piece of a range: from start_bytes up to the next one's. */
struct merged_run {
    uint32_t start_bytes; /* in the range */
    uint16_t layer;       /* HOST: of this layer; ASK: ask it; BELOW: the one under the map */
    uint16_t kind;        /* enum blk_place_kind */
    uint64_t host_offset_bytes;
};

/* Invariant: once ready, runs[0] starts at 0 and they cover what the disk has of the range. */
struct merged_range {
    struct merged_range *hash_next;
    struct list_head lru;
    struct co_queue waiters; /* for ready */
    uint64_t index;
    unsigned pins;
    bool ready;
    int error; /* ready, but with nothing in it: out of memory */
    uint32_t nr_runs;
    struct merged_run *runs;
};

struct merged_layer {
    struct blk_node *node; /* kept by the edges above it */
    struct blk_node *host; /* of its data; NULL until met */
    uint64_t end_bytes;    /* what of it can be seen through the layers above */
};

struct merged_map {
    unsigned refs; /* the node, and whoever works on it across a wait */
    unsigned nr_layers;
    bool open_end; /* something is below the last layer, not covered */
    struct merged_layer *layers;

    struct merged_range **hash;
    uint32_t hash_mask;
    struct list_head lru; /* ready ones */
    uint64_t bytes, max_bytes;
    uint64_t hits, misses;
};

/* Works out the runs of @r, which is @bytes long. 0 or -ENOMEM: what can't be known becomes ASK. */
int co_merged_build(struct merged_map *map, struct merged_range *r, uint64_t bytes);

#endif
