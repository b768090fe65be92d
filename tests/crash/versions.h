/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What each sector of the disk may hold after a crash. Every write of the workload has a version
 * number, which its sectors carry, so that any sector can be told apart.
 *
 * The workload changes a sector by one request at a time. After a crash at moment T a sector may
 * have the newest version that was durable at T, or any that was submitted later and before T.
 */
#ifndef COWTGT_CRASH_VERSIONS_H
#define COWTGT_CRASH_VERSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VERSION_ZERO  0u         /* all zeros */
#define VERSION_BASE  1u         /* what the backing image has */
#define VERSION_FIRST 2u         /* of the workload */
#define VERSION_OTHER UINT32_MAX /* no sector of ours, or of another place */

struct version_op {
    uint32_t version;
    uint64_t start, end, durable; /* moments */
};

struct version_flush {
    uint64_t start, end;
};

struct version_sector {
    uint32_t initial;
    uint32_t nr, max;
    uint32_t *ops; /* in order */
};

/* All of it is there after a crash, or nothing. */
struct version_atomic {
    uint32_t op;
    uint64_t sector, sectors;
};

struct versions {
    uint64_t nr_sectors;
    struct version_sector *sector;
    struct version_op *ops;
    size_t nr_ops, max_ops;
    struct version_flush *flushes;
    size_t nr_flushes, max_flushes;
    struct version_atomic *atomics;
    size_t nr_atomics, max_atomics;
    uint32_t next;
};

void versions_init(struct versions *v, uint64_t nr_sectors);
void versions_free(struct versions *v);

/* An acknowledged request; its sectors are added one by one. */
uint32_t versions_add_op(struct versions *v, uint32_t version, uint64_t start, uint64_t end,
                         bool fua);
void versions_add_sector(struct versions *v, uint64_t sector, uint32_t op);
void versions_add_flush(struct versions *v, uint64_t start, uint64_t end);
/* The sectors of the op @op, which are added besides, change together. */
void versions_add_atomic(struct versions *v, uint32_t op, uint64_t sector, uint64_t sectors);
/* True if @disk, with content of @nr_sectors at @moment, tears none of them; else *@torn. */
bool versions_atomic_ok(const struct versions *v, const uint8_t *disk, uint64_t nr_sectors,
                        uint64_t moment, uint64_t *torn);
/* After the workload: when each request became durable. */
void versions_work_out(struct versions *v);

uint32_t versions_now(const struct versions *v, uint64_t sector);
bool versions_may_be(const struct versions *v, uint64_t sector, uint64_t moment, uint32_t version);
/* Forgets the past: the sectors' content is what @read finds in @disk, a copy of it. */
void versions_restart(struct versions *v, const uint8_t *disk, uint64_t sectors);

void version_fill(uint8_t *buf, uint32_t version, uint64_t sector, uint64_t sectors);
uint32_t version_of(const uint8_t *buf, uint64_t sector);

#endif
