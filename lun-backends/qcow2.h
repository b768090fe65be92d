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
#include "lun-backends/file.h"
#include "lun-backends/image-settings.h"
#include "util/uuid.h"

struct qcow2_create_opts {
    uint64_t size_bytes;
    uint32_t cluster_bytes;  /* 0: 64 KiB (128 KiB with extended_l2) */
    bool extended_l2;        /* subclusters: cluster / 32 */
    bool compat_v2;          /* version 2 (compat=0.10) */
    bool lazy_refcounts;     /* QEMU may use them; we don't */
    bool zstd;               /* compression type of clusters that are written compressed */
    bool data_file_raw;      /* the data file is to be the disk, without this image */
    uint32_t refcount_bits;  /* 0: 16 */
    const char *backing;     /* may be NULL */
    const char *backing_fmt; /* may be NULL */
    const char *data_file;   /* name of an external data file, relative to the image; may be NULL */
};

/* Writes an empty image into @file (an empty, writable file node) and flushes it. */
int co_qcow2_create(struct blk_node *file, const struct qcow2_create_opts *opts, struct error *err);

struct qcow2_open_opts {
    bool writable;
    bool fix_leaks;        /* it was not closed in order: free what a crash may have leaked */
    bool no_lock;          /* as in struct file_opts, for the external data file */
    enum file_cache cache; /* for the external data file */
    uint64_t cache_bytes;  /* of L2 tables kept in memory; 0: as the image's own setting says, else
                              all of the disk's up to 32 MiB */
    const struct qcow2_snapshot_name *snapshot; /* the disk as it was then, read-only; NULL: now */
};

/* Names an internal snapshot: @any as ID, else as name; otherwise all that is not NULL fits. */
struct qcow2_snapshot_name {
    const char *any, *id, *name;
};

/*
 * Opens @file as qcow2, its external data file (named relative to the image) with it. Refuses,
 * naming image and feature: encryption, unknown incompatible bits, corrupt bit when writable.
 * Structural errors (tables outside the file, absurd sizes) are refused before anything is
 * allocated for them. Opening for writing repairs an image that is marked dirty.
 */
int co_qcow2_open_opts(struct blk_node *file, const struct qcow2_open_opts *opts,
                       struct blk_node **node, struct error *err);
int co_qcow2_open(struct blk_node *file, bool writable, struct blk_node **node, struct error *err);

/* Live. The bound of the L2 table cache, 0: the default. -ENOMEM changes nothing. */
int qcow2_set_cache_bytes(struct blk_node *node, uint64_t bytes);

/* cowtgt's settings in its header, as read at opening or written since; false: the node is of
 * another format. */
bool qcow2_node_settings(const struct blk_node *node, struct qcow2_settings *s);
/* Replaces all of them, durably, while the node is in use; it is open for writing. */
int co_qcow2_node_set_settings(struct blk_node *node, const struct qcow2_settings *s,
                               struct error *err);

/*
 * Gives a node a smaller disk, drained: what lies behind the new end is lost. Growing is
 * the driver's co_resize, which refuses to shrink.
 */
int co_qcow2_shrink(struct blk_node *node, uint64_t size_bytes, struct error *err);

/* Who hears of inconsistent metadata: the first of each kind. @fatal: the image is marked corrupt
 * now, and takes no more writes. */
typedef void qcow2_corrupt_fn(struct blk_node *node, const char *what, bool fatal);
void qcow2_set_corrupt_sink(qcow2_corrupt_fn *sink);

/* The first bytes of a file: is it qcow2? */
bool qcow2_probe(const void *buf, size_t len);

struct qcow2_info {
    uint32_t version, cluster_bytes, subcluster_bytes, refcount_bits;
    bool extended_l2;
    bool has_snapshots;
    bool zstd;           /* else zlib */
    bool corrupt;        /* marked so in its header */
    bool lazy_refcounts; /* as the header says; the engine keeps refcounts exact anyway */
    bool data_file_raw;
    const char *data_file;   /* external; as written in the header; NULL: none */
    const char *backing;     /* as written in the header; NULL: none. Owned by the node. */
    const char *backing_fmt; /* NULL: not recorded */
};
void qcow2_get_info(const struct blk_node *node, struct qcow2_info *info);

/* Since the node was opened. */
struct qcow2_stats {
    uint64_t hits, misses; /* of the metadata caches */
    uint64_t corrupt;      /* inconsistencies met in the image */
    uint64_t cycles, allocated_clusters, freed_clusters;
    uint64_t cached_bytes, cache_bytes; /* L2 tables in memory, and the bound */
};
void qcow2_get_stats(const struct blk_node *node, struct qcow2_stats *stats);

#endif
