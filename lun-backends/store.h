/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the stream job and copy-on-read share: requests through a head in a coroutine, buffers
 * from a bounded pool, and the way data from below is made local: only where the overlay has no
 * say of its own, zeros as zero clusters.
 */
#ifndef COWTGT_STORE_H
#define COWTGT_STORE_H

#include "lun-backends/block.h"
#include "util/bufpool.h"

/* The biggest allocation unit there is (a qcow2 cluster of 2 MiB). */
#define STORE_MAX_BYTES (2u << 20)
/* The most that one buffer holds. */
#define STORE_BUF_BYTES (4u << 20)
#define STORE_MAX_BUFS  (STORE_BUF_BYTES / BUFPOOL_MAX_BYTES)

/* In a coroutine: one request through @head; waits in its queue while it is drained.
 * @result_flags may be NULL. */
int co_head_rw(struct blk_head *head, enum blk_verb verb, uint64_t offset, uint64_t bytes,
               const struct iovec *iov, int niov, uint32_t flags, uint32_t *result_flags);
int co_head_flush(struct blk_head *head);
/* The root node's own say, one extent that starts at @offset. */
int co_head_status(struct blk_head *head, uint64_t offset, uint64_t bytes, struct blk_extent *ext);

/* Up to STORE_BUF_BYTES in pool buffers. */
struct store_buf {
    unsigned niov;
    size_t bytes;
    struct iovec iov[STORE_MAX_BUFS];
};
/* False when the pool's bound is reached; nothing is held then. */
bool store_buf_get(struct store_buf *b, struct bufpool *pool, size_t bytes);
void store_buf_put(struct store_buf *b, struct bufpool *pool);

/* The node's smallest range that can become local; 0: it can't tell local from not local. */
uint32_t store_unit_bytes(const struct blk_node *overlay);

struct store_how {
    bool keep_out;          /* ends with -EBUSY rather than wait in the queue of a drained head */
    bool as_is;             /* data stays data, zeros or not */
    struct blk_head *below; /* whole units that read the same through it are left to it; NULL */
    uint64_t *data_bytes, *zero_bytes; /* what was written is added */
};

/*
 * In a coroutine: writes [from, from + bytes) of @b, which starts at @offset, whole units (or up to
 * the end of the disk), with BLK_IF_UNALLOCATED; clusters of zeros become zero clusters.
 */
int co_store_data(struct blk_head *head, uint64_t offset, const struct store_buf *b, size_t from,
                  size_t bytes, const struct store_how *how);

#endif
