/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Turns what a source says of a range into runs of whole units of the destination. Pure.
 *
 * Extents come contiguous and ascending, with any boundaries; runs go out the same way, with
 * boundaries on units (and at the first and last byte fed). A unit that several extents share
 * gets the highest kind of them, so that one with a byte of data in it is copied. Over layers that
 * stay, where what is skipped may have data, a unit of zeros and of what is skipped has to be
 * copied as well: plan_mixed_end().
 */
#ifndef COWTGT_STREAM_PLAN_H
#define COWTGT_STREAM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum plan_kind {
    PLAN_SKIP, /* nobody has a say: reads zeros without a backing too */
    PLAN_ZERO,
    PLAN_COPY,
};

struct plan_run {
    uint64_t start, end;
    enum plan_kind kind;
};

struct plan {
    uint32_t unit_bytes;  /* power of two */
    bool vast;            /* the open run is zeros beyond measure: its parts are left alone */
    struct plan_run open; /* start == end: none */
};

void plan_init(struct plan *p, uint32_t unit_bytes);
/* Adds [start, end), start being where the last one ended. True if that closed a run (*@run). */
bool plan_feed(struct plan *p, uint64_t start, uint64_t end, enum plan_kind kind,
               struct plan_run *run);
/* Up to where [start, end), which is of @kind and comes next, shares a unit in which only one of
 * what is there already and itself is zeros, the other skipped; @start if it does not. */
uint64_t plan_mixed_end(const struct plan *p, uint64_t start, uint64_t end, enum plan_kind kind);
/* Nothing follows: closes what is open. */
bool plan_finish(struct plan *p, struct plan_run *run);
/*
 * Takes a part off the front of the open run that can be acted on before the run's end is known:
 * all of what is skipped, @copy_bytes of what is copied. Zeros are held back up to @vast_bytes,
 * from there on they are skipped. @copy_bytes: at least a unit; parts end on @align_bytes.
 */
bool plan_take(struct plan *p, uint64_t copy_bytes, uint64_t align_bytes, uint64_t vast_bytes,
               struct plan_run *run);
/* The length of the first part of @run: at most @bytes, ends on @align_bytes or with the run. */
uint64_t plan_part_bytes(const struct plan_run *run, uint64_t bytes, uint64_t align_bytes);

#endif
