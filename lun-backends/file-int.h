/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the file node share; nobody else includes this.
 *
 * A regular file being written may be longer than its user knows: size_bytes of the node is the
 * logical end, real_end is the file's own size, space up to there exists and reads zeros behind
 * the logical end. Close and inactivate cut the file back to the logical end.
 */
#ifndef COWTGT_FILE_INT_H
#define COWTGT_FILE_INT_H

#include "lun-backends/aio.h"
#include "lun-backends/file.h"
#include "util/workers.h"

struct file_op;
struct file_window;

struct file_stretch {
    uint64_t end_bytes;
    bool data;
};

#define FILE_STATUS_AHEAD 64

/* Data and holes from start_bytes on, each stretch beginning where the one before ends. */
struct file_status {
    uint64_t start_bytes;
    unsigned nr;
    struct file_stretch stretch[FILE_STATUS_AHEAD];
};

struct file_node {
    struct blk_node node;
    int fd;
    int claim_fd; /* O_EXCL on a block device that is written: the kernel mounts it nowhere; -1 */
    int tail_fd;  /* page cache, for a partial last block of an O_DIRECT file; -1: none */
    unsigned aio_slot; /* fd's, of the engine */
    struct aio_writer writer;
    enum file_cache cache;
    bool direct, is_blkdev;
    bool was_direct;              /* when the engine was told of it */
    struct list_head reader_link; /* among those that only read; empty: not one */
    bool grown;                   /* real_end was moved by us */
    bool sparse;                  /* a write may meet a hole */
    uint32_t offset_align, mem_align;
    uint64_t real_end;
    struct file_identity identity;

    struct list_head changes; /* file_ops that change data, in order of arrival */
    unsigned nr_exclusive, nr_waiting;

    bool growing;
    struct list_head grow_waiters;
    struct work grow_work;
    uint64_t grow_from, grow_need, grow_to;
    int grow_result;
    bool grow_sparse;

    bool flushing;
    struct list_head flush_now, flush_next;
    struct work flush_work;
    int flush_result; /* of the last fdatasync; a failure is remembered for good */
    bool flush_told;  /* of a failure */

    bool lends;                 /* its pages may be mapped, and it can be told which are there */
    struct list_head loans;     /* of struct blk_loan */
    struct file_window *window; /* the last that was used */
    unsigned nr_windows;

    struct file_status known; /* files open read-only: the last look at data and holes */
};

/* One request under way in a file node; from a free list. */
struct file_op {
    struct aio_op aio;
    struct file_node *f;
    struct blk_req *req;
    struct list_head link;           /* where it waits: for space, for a flush */
    struct list_head change_link;    /* in f->changes */
    uint64_t start_bytes, end_bytes; /* what it touches, whole blocks */
    bool exclusive;
    bool waiting;
    void (*go)(struct file_op *op); /* when its range, or its space, is there */
    struct work work;
    int result;
};

static inline struct file_node *to_file(const struct blk_node *node)
{
    return (struct file_node *)node;
}

extern const struct blk_driver file_driver;

struct file_op *file_op_get(struct file_node *f, struct blk_req *req);
void file_op_put(struct file_op *op);
/* Frees the op and completes its request. */
void file_op_finish(struct file_op *op, int result);
/* Finishes a change: logical end, range, FUA. */
void file_change_finish(struct file_op *op, int result);

/* file-range.c: calls op->go, now or when no earlier change is in the way. */
void file_range_lock(struct file_op *op);
void file_range_unlock(struct file_op *op);

/* file-space.c */
/* True if the file reaches to @end; else op->go is called again later, or the op fails. */
bool file_have_space(struct file_op *op, uint64_t end_bytes);
/* Completes op's request when all changes completed so far are stable. */
void file_flush_op(struct file_op *op);
void file_submit_flush(struct blk_node *node, struct blk_req *req);
void file_submit_zeroes(struct blk_node *node, struct blk_req *req);
void file_submit_discard(struct blk_node *node, struct blk_req *req);
int co_file_trim_tail(struct file_node *f);
int co_file_resize(struct blk_node *node, uint64_t size_bytes, struct error *err);

/* file-shared.c: @f is open for reading alone; or is so no more. */
void file_share(struct file_node *f);
void file_unshare(struct file_node *f);

/* file-io.c */
void file_submit_read(struct blk_node *node, struct blk_req *req);
void file_submit_write(struct blk_node *node, struct blk_req *req);

/* file-lend.c */
/* True: @req's loan has its data now, and nothing is left to be read. */
bool file_lend(struct file_node *f, struct blk_req *req);
/* Before the bytes change: who borrowed of them gets a copy. */
void file_recall(struct file_node *f, uint64_t from_bytes, uint64_t end_bytes);
/* The same of all, and nothing stays mapped. */
void file_stop_lending(struct file_node *f);

/* file-status.c */
void file_submit_status(struct blk_node *node, struct blk_req *req);

/* file-lock.c: blocking, for a helper thread. 0 or -EAGAIN with @err. */
int file_lock(int fd, const char *path, bool writable, struct error *err);
/* The same for @to, a second way into the file that is locked through @from. Success: @from holds
 * no lock any more, or only what a reader holds. */
int file_lock_move(int from, int to, const char *path, bool writable, struct error *err);

#endif
