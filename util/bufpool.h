/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data buffers, aligned to 4096 bytes (fit for O_DIRECT), bounded in bytes.
 * Size classes are powers of two from 4 KiB to 1 MiB (BUFPOOL_MAX_BYTES), all in one mapping
 * that never moves. When the bound is reached, bufpool_get() fails and the caller
 * queues a waiter or sheds load; it never allocates past the bound.
 * Of a pool of 32 MiB or more an eighth is kept for buffers of up to 64 KiB, and those have a line
 * of their own to wait in. Loop thread only.
 */
#ifndef COWTGT_UTIL_BUFPOOL_H
#define COWTGT_UTIL_BUFPOOL_H

#include <stdint.h>
#include <stddef.h>
#include <sys/uio.h>
#include "util/list.h"

#define BUFPOOL_MAX_BYTES (1u << 20)

struct bufpool;

/*
 * fn() is called (LOOP_NOW) once, when @bytes (0: the smallest size) are free in one piece and all
 * who waited longer in its line were served; the waiter is off the queue then. While anyone waits,
 * bufpool_get() from elsewhere fails: newcomers don't overtake.
 */
struct buf_waiter {
    struct list_head link;
    size_t bytes;
    void (*fn)(struct buf_waiter *);
};

/* @limit_bytes: bound on the memory handed out; that much address space is taken, and memory as it
 * is used. NULL: out of memory. */
struct bufpool *bufpool_new(uint64_t limit_bytes);
void bufpool_free(struct bufpool *p);
/* At least @bytes (1..BUFPOOL_MAX_BYTES), not zeroed; NULL when the bound is reached. */
void *bufpool_get(struct bufpool *p, size_t bytes);
/* @bytes as given to bufpool_get(). */
void bufpool_put(struct bufpool *p, void *buf, size_t bytes);
void bufpool_wait(struct bufpool *p, struct buf_waiter *w);
void bufpool_unwait(struct buf_waiter *w);
uint64_t bufpool_used_bytes(const struct bufpool *p);
/* Where all buffers lie: for engines that tell the kernel beforehand. */
struct iovec bufpool_arena(const struct bufpool *p);

/* The process-wide pool for guest data, and what of it large buffers may have. */
#define BUFPOOL_MAIN_BYTES       (UINT64_C(64) << 20)
#define BUFPOOL_MAIN_LARGE_BYTES (BUFPOOL_MAIN_BYTES / 8 * 7)
struct bufpool *bufpool_main(void);

#endif
