/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine of helper threads, and what all engines share: reading the page cache without waiting,
 * writing to it, accounting for what came short.
 *
 * A write to the page cache is little more than a copy, but one that may sleep, so it is never made
 * on the loop. Those of a file go to one thread together: they could not run beside each other (the
 * kernel locks the inode), and waking a thread for each costs more than they do.
 */
#include <errno.h>

#include "lun-backends/aio.h"
#include "lun-backends/block.h"
#include "util/loop.h"
#include "util/size.h"

#define WINDOW_ENTRIES   64
#define INLINE_MAX_BYTES (256u << 10) /* copied on the loop's thread at most */
#define BATCH_MAX_BYTES  (512u << 10) /* written by one thread in one go */

/* As many entries as fit of what is left of the op; returns how many. */
static int window(const struct aio_op *op, struct iovec *out)
{
    size_t skip = op->done_bytes;
    int used = 0;

    for (int i = 0; i < op->niov && used < WINDOW_ENTRIES; i++) {
        size_t len = op->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        out[used++] = (struct iovec){(char *)op->iov[i].iov_base + skip, len - skip};
        skip = 0;
    }
    return used;
}

static int64_t transfer(struct aio_op *op, int flags)
{
    struct iovec iov[WINDOW_ENTRIES];
    int n = window(op, iov);
    off_t at = (off_t)(op->offset_bytes + op->done_bytes);
    ssize_t got;

    if (op->write)
        got = pwritev2(op->fd, iov, n, at, flags);
    else
        got = preadv2(op->fd, iov, n, at, flags);
    return got < 0 ? -errno : got;
}

/*
 * A transfer by O_DIRECT that stopped between two aligned places has met the end of the file
 * (read) or has to be written again from the last one (write).
 */
bool aio_account(struct aio_op *op, int64_t got)
{
    uint32_t align = op->align_bytes;

    if (got == -EINTR || got == -EAGAIN)
        return false;
    if (got < 0 || (op->write && !got)) {
        op->result = got ? (int)got : -EIO;
        return true;
    }
    op->done_bytes += (uint64_t)got;
    if (!op->write && (!got || op->done_bytes % align)) {
        iov_zero(op->iov, op->niov, op->done_bytes, op->length_bytes - op->done_bytes);
        op->done_bytes = op->length_bytes;
    }
    if (op->done_bytes == op->length_bytes) {
        op->result = 0;
        return true;
    }
    op->done_bytes = round_down_pow2(op->done_bytes, align);
    return false;
}

static void on_thread(struct work *w)
{
    struct aio_op *op = container_of(w, struct aio_op, u.work);

    while (!aio_account(op, transfer(op, 0)))
        ;
}

static void back_on_loop(struct work *w)
{
    struct aio_op *op = container_of(w, struct aio_op, u.work);

    op->done(op);
}

void aio_to_thread(struct aio_op *op)
{
    op->u.work = (struct work){.run = on_thread, .done = back_on_loop};
    workers_submit(&op->u.work);
}

/* ---- writes to the page cache ------------------------------------------------------------ */

/* The first op of a batch is its work, and its link the list of the others. */
static void write_batch(struct work *w)
{
    struct aio_op *first = container_of(w, struct aio_op, u.work), *op;

    on_thread(w);
    list_for_each_entry (op, &first->link, link)
        on_thread(&op->u.work);
}

static void submit_batch(struct aio_writer *writer);

static void batch_written(struct work *w)
{
    struct aio_op *first = container_of(w, struct aio_op, u.work);

    first->writer->busy = false;
    if (!list_empty(&first->writer->waiting))
        submit_batch(first->writer);
    while (!list_empty(&first->link)) {
        struct aio_op *op = list_first_entry(&first->link, struct aio_op, link);

        list_del(&op->link);
        op->done(op);
    }
    first->done(first);
}

static void submit_batch(struct aio_writer *writer)
{
    struct aio_op *first = list_first_entry(&writer->waiting, struct aio_op, link), *op, *next;
    uint64_t bytes = 0;

    list_del(&first->link);
    list_for_each_entry_safe (op, next, &writer->waiting, link) {
        bytes += op->length_bytes;
        if (bytes > BATCH_MAX_BYTES)
            break;
        list_del(&op->link);
        list_add_tail(&first->link, &op->link);
    }
    writer->busy = true;
    first->u.work = (struct work){.run = write_batch, .done = batch_written};
    workers_submit(&first->u.work);
}

static void end_of_turn(struct deferred *d)
{
    struct aio_writer *writer = container_of(d, struct aio_writer, defer);

    if (!writer->busy && !list_empty(&writer->waiting))
        submit_batch(writer);
}

void aio_writer_init(struct aio_writer *writer)
{
    list_init(&writer->waiting);
    writer->defer = (struct deferred){.fn = end_of_turn};
    writer->busy = false;
}

void aio_write_cached(struct aio_op *op)
{
    list_add_tail(&op->writer->waiting, &op->link);
    if (!op->writer->busy)
        loop_defer(&op->writer->defer, LOOP_END);
}

bool aio_try_now(struct aio_op *op)
{
    int64_t got;

    if (!op->nowait || op->write || op->length_bytes > INLINE_MAX_BYTES)
        return false;
    got = transfer(op, RWF_NOWAIT);
    /* 0 may be the end of the file, which whoever is next settles as well */
    return got > 0 && aio_account(op, got);
}

static int threads_init(void)
{
    return 0;
}

static void threads_fini(void)
{
}

const struct aio_engine aio_threads = {
    .name = "threads",
    .init = threads_init,
    .fini = threads_fini,
    .submit = aio_to_thread,
};
