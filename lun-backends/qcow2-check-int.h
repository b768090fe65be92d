/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the qcow2 checker: what the counting (qcow2-check.c), the comparing
 * (qcow2-check-refs.c) and the repair (qcow2-check-fix.c) share.
 */
#ifndef COWTGT_QCOW2_CHECK_INT_H
#define COWTGT_QCOW2_CHECK_INT_H

#include "lun-backends/qcow2-format.h"
#include "lun-backends/qcow2-offline.h"

#define QCHECK_CHUNK_BITS    15
#define QCHECK_LOST_CLUSTERS (UINT64_C(1) << 24)

/* What a host cluster is used as. Data clusters may share one (compressed, snapshots), L2 tables
 * too (snapshots); everything else is alone. */
enum qcheck_kind { QCHECK_FREE, QCHECK_DATA, QCHECK_L2, QCHECK_ALONE };

struct qcheck_chunk {
    void *refs; /* uint16_t, or uint32_t once one does not fit */
    uint8_t *kind;
    bool wide;
};

struct qcheck {
    struct blk_node *file;
    uint64_t file_bytes;
    uint64_t clusters; /* of the file; the last one may be cut off */
    struct qcow2_header h;
    struct qcow2_geometry g;
    uint8_t sector[QCOW2_SECTOR];
    struct qcow2_description d;
    unsigned fix;
    qcow2_say_fn *say;
    void *opaque;
    struct qcow2_check_result *res;

    struct qcheck_chunk *chunks;
    uint64_t nr_chunks;
    uint8_t *table; /* room for one cluster */
    bool out_of_memory;

    uint64_t *rt;
    uint64_t rt_entries;
    bool rebuild;         /* the refcount structures can't be repaired in place */
    uint8_t *block;       /* one refcount block */
    uint64_t block_index; /* which; UINT64_MAX: none */
    uint64_t low, high;   /* refcounts found too low, too high */
    uint64_t beyond;      /* clusters past the end of the file that are counted, for nothing */

    /* The clusters behind the file's end, as far as QCHECK_LOST_CLUSTERS, that something refers
     * to: the file was cut off. Nothing new is put there. NULL: none. */
    uint64_t *lost;
    uint64_t lost_end; /* the cluster after the last of them; 0: none */
};

/* Reads zeros past the end of the file; an error is counted and said. */
int co_qcheck_read(struct qcheck *c, uint64_t offset, void *buf, size_t bytes);
void qcheck_corrupt(struct qcheck *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void qcheck_say(struct qcheck *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* References that were counted. */
uint64_t qcheck_refs(const struct qcheck *c, uint64_t cluster);
/* Whether @cluster is behind the end of the file and referred to all the same. */
bool qcheck_is_lost(const struct qcheck *c, uint64_t cluster);
/* One more for each cluster of the range; false: it is not in the file (said, counted). */
bool qcheck_count(struct qcheck *c, uint64_t offset, uint64_t bytes, enum qcheck_kind kind,
                  const char *what);
/* Counts everything; without the refcount structures if they are to be rebuilt. */
int co_qcheck_count_all(struct qcheck *c, bool with_refcounts);
/* Everything is to be counted again. */
void qcheck_forget(struct qcheck *c);

/* qcow2-check-refs.c */
int co_qcheck_load_table(struct qcheck *c, struct error *err);
void co_qcheck_count_refcounts(struct qcheck *c);
/* The refcount that the image has for @cluster; 0 where there is no block. */
int co_qcheck_disk_ref(struct qcheck *c, uint64_t cluster, uint64_t *refs);
int co_qcheck_load_block(struct qcheck *c, uint64_t index);
int co_qcheck_compare(struct qcheck *c);
/* Compares COPIED flags with the image's refcounts; repairs them if @repair. */
int co_qcheck_copied(struct qcheck *c, bool repair);

/* qcow2-check-fix.c */
int co_qcheck_fix_refcounts(struct qcheck *c, struct error *err);
/* An auto-clear bit that QEMU opens no image with. */
int co_qcheck_raw_bit(struct qcheck *c, struct error *err);
int co_qcheck_mark_clean(struct qcheck *c, struct error *err);

/* Frees leaked clusters of an image without other faults; -EIO if it has some. */
int co_qcheck_free_leaks(struct blk_node *file, uint64_t *freed, struct error *err);

#endif
