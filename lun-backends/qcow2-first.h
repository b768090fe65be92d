/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of the first cluster that are more than one sector: extensions and the backing name.
 * Invariant: after a crash at any moment, torn at sectors, the image opens and its backing name is
 * the one it had or the one it was to get. For the file's lun-backends/qcow2-*.c only.
 */
#ifndef COWTGT_QCOW2_FIRST_H
#define COWTGT_QCOW2_FIRST_H

#include "lun-backends/qcow2-int.h"

struct qcow2_first {
    struct blk_node *file;
    struct qcow2 *q; /* open, its header_lock held, header_sector follows; NULL: nobody has it */
    uint8_t *now;    /* as it is on the disk, the caller's memory; follows what is written */
    size_t bytes;    /* of a cluster, a multiple of a sector */
    size_t header_bytes; /* extensions begin behind it; a multiple of 8 */
};

/*
 * The backing name, which there is, moves to @at: clear of the extensions and of its old place.
 * Two writes, each with a flush. -errno; -ENOSPC: no room at @at.
 */
int co_qcow2_first_move_name(struct qcow2_first *f, uint64_t at);

/*
 * The extensions become those of @fresh, a whole first cluster that differs from f->now only in
 * extensions at @from and behind it and in where the same backing name is. @from is where an
 * extension or the end mark begins in both. If the change is in one sector, it is one write; else
 * a crash may leave the image without the extensions at @from and behind, never with half of one.
 */
int co_qcow2_first_set_list(struct qcow2_first *f, const uint8_t *fresh, size_t from);

#endif
