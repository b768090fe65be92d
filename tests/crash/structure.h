/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Does a qcow2 image hold together? A second reading of the format's specification that shares
 * no code with the engine.
 */
#ifndef COWTGT_CRASH_STRUCTURE_H
#define COWTGT_CRASH_STRUCTURE_H

#include <stdbool.h>
#include <stdint.h>

struct structure {
    uint64_t leaked_clusters;
    char text[200]; /* the first thing that is wrong */
};

/*
 * True if every reference lies inside the file, every cluster is counted at least as often as it
 * is used, by the disk and by internal snapshots, and the COPIED flags say the truth.
 */
bool structure_check(const uint8_t *image, uint64_t bytes, struct structure *out);

#endif
