/* SPDX-License-Identifier: BSD-3-Clause */
/* Judging one crash image: see image.c. */
#ifndef COWTGT_CRASH_IMAGE_H
#define COWTGT_CRASH_IMAGE_H

#include "tests/crash/workload.h"

struct judge {
    uint8_t *disk;        /* content of the image judged last */
    uint64_t disk_bytes;  /* its size */
    uint64_t max_bytes;   /* of @disk */
    uint64_t leaked_most; /* clusters */
    uint64_t leaked_total;
    uint64_t asked_qemu, went_on;
};

/*
 * Judges @image, the file as it is after a crash at @moment. @known_leaks: clusters that were
 * leaked before. False: w->failure says why.
 */
bool co_judge(struct judge *j, struct world *w, struct record_node *image, uint64_t moment,
              uint64_t known_leaks);
/* The same image, just judged, by qemu-img: check and content. */
bool judge_by_qemu(struct judge *j, struct world *w, const struct record_node *image);
/* Leaves it where it can be looked at. */
void judge_keep(const struct world *w, const struct record_node *image);
/* Writes to @image go on as if nothing had happened, and it is right afterwards. */
bool co_judge_going_on(struct judge *j, struct world *w, struct record_node *image);

#endif
