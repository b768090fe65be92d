/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 format node (QEMU's docs/interop/qcow2.txt, versions 2 and 3), read and write.
 *
 * Crash rule: nothing that is reachable on disk ever points to something that is not there yet.
 * Metadata changes stay in memory until a flush cycle: (1) refcounts, new tables and all data
 * written so far, (2) fdatasync, (3) L2 and L1 entries as they were at (1), (4) fdatasync. A
 * crash between leaves clusters leaked at worst. Freed clusters are used again only after the
 * cycle that made their freeing durable, and after all I/O that may still use them has ended.
 */
#ifndef COWTGT_QCOW2_H
#define COWTGT_QCOW2_H

#include "lun-backends/block.h"
#include "util/uuid.h"

struct qcow2_create_opts {
    uint64_t size_bytes;
    uint32_t cluster_bytes;  /* 0: 64 KiB (128 KiB with extended_l2) */
    bool extended_l2;        /* subclusters: cluster / 32 */
    bool compat_v2;          /* version 2 (compat=0.10) */
    const char *backing;     /* may be NULL */
    const char *backing_fmt; /* may be NULL */
};

/* Writes an empty image into @file (an empty, writable file node) and flushes it. */
int co_qcow2_create(struct blk_node *file, const struct qcow2_create_opts *opts, struct error *err);

/*
 * Opens @file as qcow2. Refuses, naming image and feature: encryption, external data file,
 * unknown incompatible bits, corrupt bit when writable. Structural errors (tables outside the
 * file, absurd sizes) are refused before anything is allocated for them.
 */
int co_qcow2_open(struct blk_node *file, bool writable, struct blk_node **node, struct error *err);

/* The first bytes of a file: is it qcow2? */
bool qcow2_probe(const void *buf, size_t len);

struct qcow2_info {
    uint32_t version, cluster_bytes, subcluster_bytes;
    bool extended_l2;
    bool has_snapshots;
    const char *backing;     /* as written in the header; NULL: none. Owned by the node. */
    const char *backing_fmt; /* NULL: not recorded */
};
void qcow2_get_info(const struct blk_node *node, struct qcow2_info *info);

/* Since the node was opened. */
struct qcow2_stats {
    uint64_t hits, misses; /* of the metadata caches */
    uint64_t corrupt;      /* inconsistencies met in the image */
    uint64_t cycles, allocated_clusters, freed_clusters;
};
void qcow2_get_stats(const struct blk_node *node, struct qcow2_stats *stats);

/* Bytes of guest data clusters the image holds, counted while loading; for progress displays.
 * In a coroutine: walks all L2 tables, yields in between. */
int co_qcow2_allocated_bytes(struct blk_node *node, uint64_t *bytes);

#endif
