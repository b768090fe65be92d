/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The requests of a partial raw image. What is local goes straight to the file, with no metadata;
 * a change that decides blocks runs in a coroutine under their lock: data first, the rest of a
 * block from the backing, then the bits. A zeroed or discarded block becomes local zeros, or the
 * backing's data would come back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/cowmap-int.h"
#include "util/bitmap.h"
#include "util/size.h"

/* The run of blocks that are alike from @at on, in bytes up to @end; *@local: what they are. */
static uint64_t run_end(const struct cowmap *cm, uint64_t at, uint64_t end, bool *local)
{
    uint64_t block = at / cm->header->block_bytes;
    uint64_t last = (end - 1) / cm->header->block_bytes + 1;
    uint64_t next;

    *local = bitmap_test(cm->local, block);
    next = *local ? bitmap_next_clear(cm->local, last, block)
                  : bitmap_next_set(cm->local, last, block);
    return next < last ? next * cm->header->block_bytes : end;
}

static bool all_local(const struct cowmap *cm, const struct blk_req *req)
{
    uint64_t end = req->offset_bytes + req->length_bytes;
    bool local;

    return run_end(cm, req->offset_bytes, end, &local) == end && local;
}

/* ---- READ, STATUS --------------------------------------------------------------------- */

/* In req->scratch of a read that became several. */
struct read_op {
    uint32_t pending, result_flags;
    int result;
};

static struct read_op *op_of(struct blk_req *req)
{
    _Static_assert(sizeof(struct read_op) <= sizeof(req->scratch), "read_op fits the scratch");
    return (struct read_op *)&req->scratch;
}

static void op_put(struct blk_req *req)
{
    struct read_op *op = op_of(req);

    if (--op->pending)
        return;
    req->result_flags |= op->result_flags;
    blk_complete(req, op->result);
}

struct part {
    struct blk_req req;
    struct iovec iov[];
};

static void part_done(struct blk_req *child)
{
    struct blk_req *req = child->opaque;
    struct read_op *op = op_of(req);

    if (child->result && !op->result)
        op->result = child->result;
    op->result_flags |= child->result_flags;
    free(container_of(child, struct part, req));
    op_put(req);
}

static void read_part(struct cowmap *cm, struct blk_req *req, uint64_t at, uint64_t end, bool local)
{
    struct part *p = calloc(1, sizeof(*p) + (size_t)req->niov * sizeof(p->iov[0]));

    if (!p) {
        op_of(req)->result = -ENOMEM;
        return;
    }
    p->req.verb = BLK_READ;
    p->req.flags = req->flags;
    p->req.offset_bytes = at;
    p->req.length_bytes = end - at;
    p->req.iov = p->iov;
    p->req.niov =
        iov_slice(req->iov, req->niov, at - req->offset_bytes, end - at, p->iov, req->niov);
    p->req.done = part_done;
    p->req.opaque = req;
    op_of(req)->pending++;
    if (local)
        blk_submit(cm->node.file.child, &p->req);
    else
        blk_submit_backing(&cm->node, &p->req);
}

static void cowmap_read(struct blk_node *node, struct blk_req *req)
{
    struct cowmap *cm = to_cowmap(node);
    uint64_t at = req->offset_bytes, end = at + req->length_bytes, next;
    bool local = true;

    next = cm->map_file ? run_end(cm, at, end, &local) : end;
    if (next == end) {
        if (local)
            blk_forward(node->file.child, req);
        else
            blk_submit_backing(node, req);
        return;
    }
    *op_of(req) = (struct read_op){.pending = 1};
    for (; at < end; at = next) {
        next = run_end(cm, at, end, &local);
        read_part(cm, req, at, next, local);
    }
    op_put(req);
}

static void cowmap_status(struct blk_node *node, struct blk_req *req)
{
    struct cowmap *cm = to_cowmap(node);
    uint64_t at = req->offset_bytes;
    bool local = true;

    if (cm->map_file)
        req->length_bytes = run_end(cm, at, at + req->length_bytes, &local) - at;
    if (local) {
        blk_forward(node->file.child, req);
        return;
    }
    req->extent = (struct blk_extent){at, req->length_bytes, BLK_ST_UNALLOCATED, 0, false};
    blk_complete(req, 0);
}

/* ---- changes -------------------------------------------------------------------------- */

struct backing_read {
    struct blk_req req;
    struct coroutine *co;
};

static void backing_read_done(struct blk_req *req)
{
    co_enter(container_of(req, struct backing_read, req)->co);
}

static int co_read_backing(struct cowmap *cm, uint64_t offset, void *buf, uint64_t bytes,
                           uint32_t flags)
{
    struct backing_read r = {
        .req = {.verb = BLK_READ,
                .flags = flags & BLK_BULK,
                .offset_bytes = offset,
                .length_bytes = bytes,
                .niov = 1,
                .small_iov = {buf, bytes},
                .done = backing_read_done},
        .co = co_self(),
    };

    r.req.iov = &r.req.small_iov;
    blk_submit_backing(&cm->node, &r.req);
    co_yield ();
    return r.req.result;
}

/* The part of a block that a change leaves as it was. */
static int co_fill(struct cowmap *cm, uint64_t start, uint64_t end, uint32_t flags)
{
    uint64_t bytes = end - start;
    void *buf;
    int ret;

    if (start >= end)
        return 0;
    buf = aligned_alloc(4096, round_up_pow2(bytes, 4096));
    if (!buf)
        return -ENOMEM;
    ret = co_read_backing(cm, start, buf, bytes, flags);
    if (!ret)
        ret = co_blk_write(cm->node.file.child, start, buf, bytes, 0);
    free(buf);
    return ret;
}

/* @req's part [at, end) to the file. */
static int co_change_file(struct cowmap *cm, const struct blk_req *req, uint64_t at, uint64_t end)
{
    struct blk_node *file = cm->node.file.child;
    struct iovec *iov;
    int n, ret;

    if (req->verb != BLK_WRITE)
        return co_blk_write_zeroes(file, at, end - at,
                                   req->verb == BLK_DISCARD ? BLK_MAY_UNMAP
                                                            : req->flags & BLK_MAY_UNMAP);
    if (at == req->offset_bytes && end - at == req->length_bytes)
        return co_blk_rw(file, BLK_WRITE, at, req->iov, req->niov, 0);
    iov = malloc((size_t)req->niov * sizeof(*iov));
    if (!iov)
        return -ENOMEM;
    n = iov_slice(req->iov, req->niov, at - req->offset_bytes, end - at, iov, req->niov);
    ret = co_blk_rw(file, BLK_WRITE, at, iov, n, 0);
    free(iov);
    return ret;
}

/* A run of blocks without own say, of which @req changes [at, end). */
static int co_decide(struct cowmap *cm, const struct blk_req *req, uint64_t at, uint64_t end)
{
    uint32_t block = cm->header->block_bytes;
    uint64_t lo = round_down_pow2(at, block);
    uint64_t hi = MIN_OF(round_up_pow2(end, block), cm->node.size_bytes);
    int ret = co_fill(cm, lo, at, req->flags);

    if (!ret)
        ret = co_fill(cm, end, hi, req->flags);
    if (!ret)
        ret = co_change_file(cm, req, at, end);
    if (!ret)
        cowmap_set_local(cm, lo / block, (hi - 1) / block + 1);
    return ret;
}

static void co_change(void *arg)
{
    struct blk_req *req = arg;
    struct cowmap *cm = to_cowmap(req->node);
    uint64_t at = req->offset_bytes, end = at + req->length_bytes, next;
    uint32_t block = cm->header->block_bytes;
    struct cowmap_change ch;
    int ret = 0;

    co_cowmap_lock(cm, &ch, at / block, (end - 1) / block + 1);
    for (; !ret && at < end; at = next) {
        bool local;

        next = run_end(cm, at, end, &local);
        if (!local)
            ret = co_decide(cm, req, at, next);
        else if (!(req->flags & BLK_IF_UNALLOCATED))
            ret = co_change_file(cm, req, at, next);
    }
    cowmap_unlock(cm, &ch);
    if (!ret && req->flags & BLK_FUA)
        ret = co_cowmap_flush(cm);
    blk_complete(req, ret);
}

static void cowmap_change(struct blk_node *node, struct blk_req *req)
{
    struct cowmap *cm = to_cowmap(node);
    bool local = !cm->map_file || all_local(cm, req);

    if (local && req->flags & BLK_IF_UNALLOCATED)
        blk_complete(req, 0);
    else if (local && (!cm->map_file || !(req->flags & BLK_FUA) || cowmap_is_clean(cm)))
        blk_forward(node->file.child, req);
    else
        co_spawn(co_change, req);
}

static void co_flush(void *arg)
{
    struct blk_req *req = arg;

    blk_complete(req, co_cowmap_flush(to_cowmap(req->node)));
}

static void cowmap_flush(struct blk_node *node, struct blk_req *req)
{
    struct cowmap *cm = to_cowmap(node);

    if (!cm->map_file || cowmap_is_clean(cm))
        blk_forward(node->file.child, req);
    else
        co_spawn(co_flush, req);
}

static int co_inactivate(struct blk_node *node)
{
    struct cowmap *cm = to_cowmap(node);

    return cm->map_file ? co_cowmap_flush(cm) : co_blk_flush(node->file.child);
}

/* ---- once it is complete, as any raw image --------------------------------------------- */

static int need_complete(const struct cowmap *cm, struct error *err)
{
    if (!cm->map_file)
        return 0;
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "'%s' is not complete yet",
                           cm->node.filename);
}

static int co_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct blk_node *file = node->file.child;
    int ret = need_complete(to_cowmap(node), err);

    if (!ret)
        ret = file->drv->co_resize(file, size_bytes, err);
    if (!ret && (ret = co_blk_flush(file)))
        error_set(err, -ret, "flushing '%s': %s", node->filename, strerror(-ret));
    if (ret)
        return ret;
    node->size_bytes = round_up_pow2(size_bytes, node->limits.align_bytes);
    blk_node_notify(node, BLK_EV_RESIZED);
    return 0;
}

static int co_reopen(struct blk_node *node, bool writable, struct error *err)
{
    int ret = need_complete(to_cowmap(node), err);

    if (!ret)
        ret = co_blk_reopen(node->file.child, writable, err);
    if (!ret)
        node->read_only = !writable;
    return ret;
}

const struct blk_driver cowmap_driver = {
    .name = "cowmap",
    .instance_bytes = sizeof(struct cowmap),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = cowmap_read,
            [BLK_WRITE] = cowmap_change,
            [BLK_WRITE_ZEROES] = cowmap_change,
            [BLK_DISCARD] = cowmap_change,
            [BLK_FLUSH] = cowmap_flush,
            [BLK_STATUS] = cowmap_status,
        },
    .co_close = co_cowmap_close,
    .co_inactivate = co_inactivate,
    .co_resize = co_resize,
    .co_reopen = co_reopen,
    .co_change_backing = co_cowmap_change_backing,
};
