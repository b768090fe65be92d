/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tools do to qcow2 images beside reading and writing the disk: check and repair, describe,
 * cowtgt's own settings, where guest data lies in the file, emptying an overlay.
 * Functions on @file take the image's file node, locked by its opener; no qcow2 node may be open
 * on it, but where a qcow2 node is asked for.
 */
#ifndef COWTGT_QCOW2_OFFLINE_H
#define COWTGT_QCOW2_OFFLINE_H

#include "lun-backends/block.h"
#include "lun-backends/image-settings.h"

/* ---- check ------------------------------------------------------------------------------- */

struct qcow2_check_result {
    uint64_t check_errors; /* what could not be read: the check is not complete */
    uint64_t corruptions, leaks, corruptions_fixed, leaks_fixed;
    uint64_t image_end_bytes; /* behind the last host cluster in use */
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
};

enum qcow2_fix {
    QCOW2_FIX_LEAKS = 1 << 0,
    QCOW2_FIX_ERRORS = 1 << 1,
};

/* Gets one line for each inconsistency. */
typedef void qcow2_say_fn(void *opaque, const char *line);

/*
 * Counts every reference to every host cluster (header, L1 and L2 tables of the disk and of its
 * internal snapshots, compressed clusters, bitmaps, refcount structures) and compares with the
 * refcounts and COPIED flags. @fix: enum qcow2_fix, @file writable then. Repairs what can be
 * repaired without losing data: leaks, refcounts, COPIED flags, refcount structures; entries that
 * point nowhere stay, and are counted. -errno only where no check was possible.
 * Memory: 3 bytes for each host cluster of the parts of the file in use.
 */
int co_qcow2_check(struct blk_node *file, unsigned fix, qcow2_say_fn *say, void *opaque,
                   struct qcow2_check_result *res, struct error *err);

/*
 * For a writable qcow2 node before any request to it, after an unclean end: frees leaked
 * clusters. Changes nothing, and says so by -EIO, when the image has other faults.
 */
int co_qcow2_fix_leaks(struct blk_node *node, uint64_t *freed_clusters, struct error *err);

/* ---- describe ---------------------------------------------------------------------------- */

struct qcow2_snapshot_info {
    char *id, *name;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_ns, vm_state_bytes, disk_bytes;
    uint64_t icount; /* UINT64_MAX: not recorded */
    uint64_t l1_offset;
    uint32_t l1_entries;
};

struct qcow2_bitmap_info {
    char *name;
    bool in_use, autoload;
    uint64_t granularity_bytes;
    uint64_t table_offset;
    uint32_t table_entries;
};

struct qcow2_description {
    uint32_t version, cluster_bytes, refcount_bits;
    uint64_t size_bytes;
    bool dirty, corrupt, lazy_refcounts, extended_l2, zstd, data_file_raw;
    const char *encryption; /* NULL: none */
    char *backing, *backing_fmt, *data_file;
    unsigned nr_snapshots, nr_bitmaps;
    struct qcow2_snapshot_info *snapshots;
    struct qcow2_bitmap_info *bitmaps;
    uint64_t snapshots_offset, snapshots_bytes; /* the snapshot table */
    uint64_t bitmaps_offset, bitmaps_bytes;     /* the bitmap directory, if it is valid */
};

/* From the header and the tables it names, also of images that can't be served. */
int co_qcow2_describe(struct blk_node *file, struct qcow2_description *d, struct error *err);
void qcow2_description_release(struct qcow2_description *d);

/* ---- where things are ---------------------------------------------------------------------- */

struct qcow2_place {
    enum blk_state state;
    bool has_host;
    uint64_t host_bytes; /* has_host: offset of the first byte in the file, or in the data file */
    uint64_t length_bytes;
};

/* What @node itself has at @off, and where: a piece of at most @max bytes. */
int co_qcow2_place(struct blk_node *node, uint64_t off, uint64_t max, struct qcow2_place *place);

enum qcow2_prealloc {
    QCOW2_PREALLOC_OFF,
    QCOW2_PREALLOC_METADATA, /* clusters have their place, the file is sparse */
    QCOW2_PREALLOC_FALLOC,   /* and disk space */
    QCOW2_PREALLOC_FULL,     /* and zeros are written */
};

/*
 * Gives all clusters of the disk behind @from a place of their own, durably. The range reads as
 * zeros and goes on doing so; with @below set it may read from the backing instead (extended L2
 * only). Nobody else uses the node.
 */
int co_qcow2_preallocate(struct blk_node *node, uint64_t from, enum qcow2_prealloc how, bool below,
                         struct error *err);

/*
 * Writes one cluster, or the part of it that the disk has, compressed; as it is where that would
 * not make it smaller. @offset is that of the cluster, @bytes up to its end. -errno; -ENOTSUP with
 * an external data file. Several may be under way. co_qcow2_end_compressed() after the last one.
 */
int co_qcow2_write_compressed(struct blk_node *node, uint64_t offset, const void *buf,
                              size_t bytes);
int co_qcow2_end_compressed(struct blk_node *node);

/* Makes a writable node that nobody uses hold nothing of its own: all reads as its backing does.
 * Refuses where that can't be undone for internal snapshots' sake. */
int co_qcow2_make_empty(struct blk_node *node, struct error *err);

/* ---- settings ------------------------------------------------------------------------------ */

/* Pure. Bytes written into @buf of QCOW2_SETTINGS_BYTES; 0, -EINVAL, or -ENOTSUP (of a later
 * version). */
uint32_t qcow2_settings_encode(const struct qcow2_settings *s, uint8_t *buf);
int qcow2_settings_decode(const uint8_t *data, uint32_t len, struct qcow2_settings *s);

/* Nothing stored: s->set is 0. */
int co_qcow2_get_settings(struct blk_node *file, struct qcow2_settings *s, struct error *err);
/* Replaces all of them, durably; s->set 0: none. */
int co_qcow2_set_settings(struct blk_node *file, const struct qcow2_settings *s, struct error *err);

#endif
