/* SPDX-License-Identifier: BSD-3-Clause */
/* How much room the file behind a node takes, and how much it could still get. */
#ifndef COWTGT_SPACE_H
#define COWTGT_SPACE_H

#include "lun-backends/block.h"

struct blk_space {
    uint64_t used_bytes; /* allocated to the file that is written: the node's own layer */
    uint64_t free_bytes; /* of its file system, for us */
};

/* Coroutine, node held. -ENOTSUP: there is no file (a remote, a disk in memory). */
int co_blk_space(struct blk_node *node, struct blk_space *space);

#endif
