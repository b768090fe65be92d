/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests as calls that wait, for coroutines. */
#include <errno.h>

#include "lun-backends/block.h"
#include "util/coroutine.h"
#include "util/size.h"

struct co_req {
    struct blk_req req;
    struct coroutine *co;
};

static void co_req_done(struct blk_req *req)
{
    co_enter(container_of(req, struct co_req, req)->co);
}

/* The core never calls done() before submit has returned, so there is always a yield to end. */
static int co_run(struct blk_node *node, struct co_req *c)
{
    c->req.done = co_req_done;
    c->co = co_self();
    blk_submit(node, &c->req);
    co_yield ();
    return c->req.result;
}

int co_blk_rw(struct blk_node *node, enum blk_verb verb, uint64_t offset, const struct iovec *iov,
              int niov, uint32_t flags)
{
    struct co_req c = {
        .req =
            {
                .verb = verb,
                .flags = flags,
                .offset_bytes = offset,
                .length_bytes = iov_bytes(iov, niov),
                .iov = iov,
                .niov = niov,
            },
    };

    return co_run(node, &c);
}

int co_blk_read(struct blk_node *node, uint64_t offset, void *buf, size_t bytes, uint32_t flags)
{
    struct iovec iov = {buf, bytes};

    return co_blk_rw(node, BLK_READ, offset, &iov, 1, flags);
}

int co_blk_write(struct blk_node *node, uint64_t offset, const void *buf, size_t bytes,
                 uint32_t flags)
{
    struct iovec iov = {(void *)buf, bytes};

    return co_blk_rw(node, BLK_WRITE, offset, &iov, 1, flags);
}

static int co_no_data(struct blk_node *node, enum blk_verb verb, uint64_t offset, uint64_t bytes,
                      uint32_t flags)
{
    struct co_req c = {
        .req = {.verb = verb, .flags = flags, .offset_bytes = offset, .length_bytes = bytes},
    };

    return co_run(node, &c);
}

int co_blk_write_zeroes(struct blk_node *node, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    return co_no_data(node, BLK_WRITE_ZEROES, offset, bytes, flags);
}

int co_blk_discard(struct blk_node *node, uint64_t offset, uint64_t bytes)
{
    return co_no_data(node, BLK_DISCARD, offset, bytes, 0);
}

int co_blk_flush(struct blk_node *node)
{
    return co_no_data(node, BLK_FLUSH, 0, 0, 0);
}

int co_blk_status(struct blk_node *node, uint64_t offset, uint64_t bytes, struct blk_extent *ext)
{
    struct co_req c = {
        .req = {.verb = BLK_STATUS, .offset_bytes = offset, .length_bytes = bytes},
    };
    int ret = bytes ? co_run(node, &c) : -EINVAL;

    if (ret)
        return ret;
    if (!c.req.extent.length_bytes)
        return -EIO;
    ext->offset_bytes = offset;
    ext->length_bytes = MIN_OF(c.req.extent.length_bytes, bytes);
    ext->state = c.req.extent.state;
    ext->depth = 0;
    ext->anchored = c.req.extent.anchored;
    return 0;
}
