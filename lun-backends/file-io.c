/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing. What O_DIRECT can take as it is goes straight to the engine with the
 * caller's buffers; the rest goes through an aligned buffer in a coroutine, one piece at a time,
 * and with read-modify-write where a block is written in part (its range is exclusive then).
 *
 * The size of a file that does not end on a block is never changed by padding: a write into that
 * last block goes through the page cache.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/file-int.h"
#include "util/coroutine.h"
#include "util/size.h"

#define MAX_DIRECT_ENTRIES 1024 /* IOV_MAX */
#define BOUNCE_BYTES       (256u << 10)
#define MAX_BOUNCE_BUFFERS 64

/* ---- what fits as it is -------------------------------------------------------------- */

static bool range_fits(const struct file_node *f, const struct blk_req *req)
{
    return !((req->offset_bytes | req->length_bytes) & (f->offset_align - 1));
}

static bool memory_fits(const struct file_node *f, const struct blk_req *req)
{
    uintptr_t bases = 0, lengths = 0;

    if (!f->direct)
        return true;
    if (req->niov > MAX_DIRECT_ENTRIES)
        return false;
    for (int i = 0; i < req->niov; i++) {
        bases |= (uintptr_t)req->iov[i].iov_base;
        lengths |= req->iov[i].iov_len;
    }
    return !(bases & (f->mem_align - 1)) && !(lengths & (f->offset_align - 1));
}

/* The page cache is asked without waiting, and disks for writes into holes. */
static bool aio_nowait(const struct file_node *f, bool write)
{
    return f->direct ? write && f->sparse : !write;
}

static void start_aio(struct file_op *op, void (*done)(struct aio_op *))
{
    struct file_node *f = op->f;
    struct blk_req *req = op->req;

    op->aio.fd = f->fd;
    op->aio.file_slot = f->was_direct ? 0 : f->aio_slot;
    op->aio.writer = &f->writer;
    op->aio.write = req->verb == BLK_WRITE;
    op->aio.direct = f->direct;
    op->aio.nowait = aio_nowait(f, op->aio.write);
    op->aio.align_bytes = f->offset_align;
    op->aio.iov = req->iov;
    op->aio.niov = req->niov;
    op->aio.offset_bytes = req->offset_bytes;
    op->aio.length_bytes = req->length_bytes;
    op->aio.done = done;
    aio_submit(&op->aio);
}

/* ---- bounce buffers ------------------------------------------------------------------- */

static struct {
    struct co_queue waiting;
    bool ready;
    unsigned used, nr_free;
    void *free[MAX_BOUNCE_BUFFERS];
} bounce;

/* Waits for its turn; NULL: out of memory. Whoever has one needs no second one to finish. */
static void *co_bounce_get(void)
{
    void *buf;

    if (!bounce.ready) {
        co_queue_init(&bounce.waiting);
        bounce.ready = true;
    }
    while (bounce.used == MAX_BOUNCE_BUFFERS)
        co_queue_wait(&bounce.waiting);
    buf = bounce.nr_free ? bounce.free[--bounce.nr_free] : aligned_alloc(4096, BOUNCE_BYTES);
    bounce.used += buf != NULL;
    return buf;
}

static void bounce_put(void *buf)
{
    if (!buf)
        return;
    bounce.used--;
    if (bounce.nr_free < MAX_BOUNCE_BUFFERS / 4)
        bounce.free[bounce.nr_free++] = buf;
    else
        free(buf);
    co_queue_wake(&bounce.waiting);
}

struct co_aio {
    struct aio_op aio;
    struct coroutine *co;
    bool done, waiting;
};

static void co_aio_done(struct aio_op *aio)
{
    struct co_aio *c = container_of(aio, struct co_aio, aio);

    c->done = true;
    if (c->waiting)
        co_enter(c->co);
}

static int co_aio(struct file_node *f, bool write, uint64_t offset, void *buf, uint64_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct co_aio c = {
        .aio =
            {
                .fd = f->fd,
                .file_slot = f->was_direct ? 0 : f->aio_slot,
                .write = write,
                .direct = f->direct,
                .nowait = aio_nowait(f, write),
                .align_bytes = f->offset_align,
                .iov = &iov,
                .niov = 1,
                .offset_bytes = offset,
                .length_bytes = bytes,
                .done = co_aio_done,
            },
        .co = co_self(),
    };

    aio_submit(&c.aio);
    c.waiting = true;
    if (!c.done)
        co_yield ();
    return c.aio.result;
}

/* A piece of a request: [from, to) of the file, and the whole blocks around it. */
struct piece {
    uint64_t from, to, block_from, block_to;
};

static bool next_piece(const struct file_op *op, struct piece *p)
{
    uint64_t align = op->f->offset_align;
    uint64_t end = op->req->offset_bytes + op->req->length_bytes;

    p->from = p->to;
    if (p->from == end)
        return false;
    p->block_from = round_down_pow2(p->from, align);
    p->to = MIN_OF(p->block_from + BOUNCE_BYTES, end);
    p->block_to = round_up_pow2(p->to, align);
    return true;
}

static int co_bounced_read(struct file_op *op, uint8_t *buf)
{
    struct blk_req *req = op->req;
    struct piece p = {.to = req->offset_bytes};
    int ret = buf ? 0 : -ENOMEM;

    while (!ret && next_piece(op, &p)) {
        ret = co_aio(op->f, false, p.block_from, buf, p.block_to - p.block_from);
        if (!ret)
            iov_from_buf(req->iov, req->niov, p.from - req->offset_bytes,
                         buf + (p.from - p.block_from), p.to - p.from);
    }
    return ret;
}

/* Fills in what the write keeps of its first and last block. */
static int co_read_edges(struct file_node *f, const struct piece *p, uint8_t *buf)
{
    uint32_t align = f->offset_align;
    uint64_t last = p->block_to - align;
    int ret = 0;

    if (p->from != p->block_from)
        ret = co_aio(f, false, p->block_from, buf, align);
    if (!ret && p->to != p->block_to && (last != p->block_from || p->from == p->block_from))
        ret = co_aio(f, false, last, buf + (last - p->block_from), align);
    return ret;
}

static int co_bounced_write(struct file_op *op, uint8_t *buf)
{
    struct blk_req *req = op->req;
    struct piece p = {.to = req->offset_bytes};
    int ret = buf ? 0 : -ENOMEM;

    while (!ret && next_piece(op, &p)) {
        ret = co_read_edges(op->f, &p, buf);
        if (ret)
            break;
        iov_to_buf(req->iov, req->niov, p.from - req->offset_bytes, buf + (p.from - p.block_from),
                   p.to - p.from);
        ret = co_aio(op->f, true, p.block_from, buf, p.block_to - p.block_from);
    }
    return ret;
}

static void co_bounced(void *arg)
{
    struct file_op *op = arg;
    void *buf = co_bounce_get();
    bool write = op->req->verb == BLK_WRITE;
    int ret = write ? co_bounced_write(op, buf) : co_bounced_read(op, buf);

    bounce_put(buf);
    if (write)
        file_change_finish(op, ret);
    else
        file_op_finish(op, ret);
}

/* ---- read ------------------------------------------------------------------------------ */

static void read_done(struct aio_op *aio)
{
    file_op_finish(container_of(aio, struct file_op, aio), aio->result);
}

void file_submit_read(struct blk_node *node, struct blk_req *req)
{
    struct file_node *f = to_file(node);
    struct file_op *op;

    if (req->offset_bytes >= f->real_end) {
        iov_zero(req->iov, req->niov, 0, req->length_bytes);
        blk_complete(req, 0);
        return;
    }
    if (file_lend(f, req)) {
        blk_complete(req, 0);
        return;
    }
    op = file_op_get(f, req);
    if (range_fits(f, req) && memory_fits(f, req))
        start_aio(op, read_done);
    else
        co_spawn(co_bounced, op);
}

/* ---- write ----------------------------------------------------------------------------- */

void file_change_finish(struct file_op *op, int result)
{
    struct blk_req *req = op->req;
    struct blk_node *node = &op->f->node;
    uint64_t end = req->offset_bytes + req->length_bytes;

    if (!result && req->verb != BLK_DISCARD)
        node->size_bytes = MAX_OF(node->size_bytes, end);
    file_range_unlock(op);
    if (!result && (req->flags & BLK_FUA))
        file_flush_op(op);
    else
        file_op_finish(op, result);
}

static void write_done(struct aio_op *aio)
{
    file_change_finish(container_of(aio, struct file_op, aio), aio->result);
}

static void write_tail(struct file_op *op)
{
    struct blk_req *req = op->req;

    op->aio = (struct aio_op){
        .fd = op->f->tail_fd,
        .write = true,
        .may_block = true,
        .align_bytes = 1,
        .iov = req->iov,
        .niov = req->niov,
        .offset_bytes = req->offset_bytes,
        .length_bytes = req->length_bytes,
        .done = write_done,
    };
    aio_submit(&op->aio);
}

static void write_go(struct file_op *op)
{
    struct file_node *f = op->f;

    if (!file_have_space(op, op->req->offset_bytes + op->req->length_bytes))
        return;
    if (op->end_bytes > f->real_end)
        write_tail(op);
    else if (range_fits(f, op->req) && memory_fits(f, op->req))
        start_aio(op, write_done);
    else
        co_spawn(co_bounced, op);
}

void file_submit_write(struct blk_node *node, struct blk_req *req)
{
    struct file_node *f = to_file(node);
    struct file_op *op;

    if (req->flags & BLK_IF_UNALLOCATED) {
        blk_complete(req, -ENOTSUP);
        return;
    }
    op = file_op_get(f, req);
    op->start_bytes = round_down_pow2(req->offset_bytes, f->offset_align);
    op->end_bytes = round_up_pow2(req->offset_bytes + req->length_bytes, f->offset_align);
    op->exclusive = !range_fits(f, req);
    op->go = write_go;
    file_range_lock(op);
}
