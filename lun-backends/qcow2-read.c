/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads. One cached contiguous run goes straight to the file node or the backing, with no
 * coroutine and no allocation; several runs become children submitted at once; a table that is
 * not cached, or compressed data, is waited for in a coroutine. On a writable image every
 * request that may touch host clusters is counted in an epoch until it ends (qcow2-reclaim.c).
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <string.h>
#include "util/size.h"

/* In req->scratch of a read that became several. */
struct read_op {
    uint64_t pos;
    uint32_t pending;
    uint32_t result_flags;
    int result;
    unsigned epoch;
};

static struct read_op *op_of(struct blk_req *req)
{
    _Static_assert(sizeof(struct read_op) <= sizeof(req->scratch), "read_op fits the scratch");
    return (struct read_op *)&req->scratch;
}

static void op_put(struct blk_req *req)
{
    struct read_op *op = op_of(req);
    int result = op->result;

    if (--op->pending)
        return;
    req->result_flags |= op->result_flags;
    qcow2_io_end(qcow2_of(req->node), op->epoch);
    blk_complete(req, result);
}

static void child_done(struct blk_req *child)
{
    struct blk_req *req = child->opaque;
    struct read_op *op = op_of(req);

    if (child->result && !op->result)
        op->result = child->result;
    op->result_flags |= child->result_flags;
    blk_part_put(child, req);
    op_put(req);
}

/* Zeros, data of the file, or the backing; not compressed. */
static void submit_run(struct qcow2 *q, struct blk_req *req, const struct qrun *run)
{
    struct read_op *op = op_of(req);
    uint64_t from = op->pos - req->offset_bytes;
    struct blk_req *child;

    if (run->kind == QRUN_ZERO || run->past_end ||
        (run->kind == QRUN_UNALLOCATED &&
         (!q->node.backing.child || (req->flags & BLK_LOCAL_ONLY)))) {
        iov_zero(req->iov, req->niov, from, run->bytes);
        return;
    }
    child = blk_part_get(req, from, run->bytes);
    if (!child) {
        op->result = -ENOMEM;
        return;
    }
    child->done = child_done;
    if (child->length_bytes == req->length_bytes)
        child->loan = req->loan;
    op->pending++;
    if (run->kind == QRUN_DATA) {
        child->offset_bytes = run->host;
        blk_submit(qcow2_host_node(q, &child->offset_bytes), child);
    } else {
        child->offset_bytes = op->pos;
        blk_submit_backing(&q->node, child);
    }
}

static void read_co(void *arg)
{
    struct blk_req *req = arg;
    struct qcow2 *q = qcow2_of(req->node);
    struct read_op *op = op_of(req);
    uint64_t end = req->offset_bytes + req->length_bytes;
    struct qrun run;
    int ret = 0;

    while (op->pos < end && !op->result && !ret) {
        ret = co_qcow2_map(q, op->pos, end - op->pos, &run);
        if (ret)
            break;
        if (run.kind == QRUN_COMPRESSED)
            ret = co_qcow2_read_compressed(q, run.host, op->pos & (qcow2_cluster_bytes(&q->g) - 1),
                                           run.bytes, req->iov, req->niov,
                                           op->pos - req->offset_bytes);
        else
            submit_run(q, req, &run);
        op->pos += run.bytes;
    }
    if (ret && !op->result)
        op->result = ret;
    op_put(req);
}

/* Submits all runs that are known; goes on in a coroutine where one is not. */
static void read_split(struct qcow2 *q, struct blk_req *req)
{
    struct read_op *op = op_of(req);
    uint64_t end = req->offset_bytes + req->length_bytes;
    struct qrun run;
    int ret;

    *op = (struct read_op){.pos = req->offset_bytes, .pending = 1};
    op->epoch = qcow2_io_begin(q);
    while (op->pos < end && !op->result) {
        ret = qcow2_map(q, op->pos, end - op->pos, &run);
        if (ret == -EAGAIN || (!ret && run.kind == QRUN_COMPRESSED)) {
            co_spawn(read_co, req);
            return;
        }
        if (ret) {
            op->result = ret;
            break;
        }
        submit_run(q, req, &run);
        op->pos += run.bytes;
    }
    op_put(req);
}

void qcow2_submit_read(struct blk_node *node, struct blk_req *req)
{
    struct qcow2 *q = qcow2_of(node);
    struct qrun run;
    int ret = qcow2_map(q, req->offset_bytes, req->length_bytes, &run);

    if (ret || run.bytes < req->length_bytes || run.kind == QRUN_COMPRESSED) {
        read_split(q, req);
    } else if (run.kind == QRUN_UNALLOCATED && node->backing.child &&
               !(req->flags & BLK_LOCAL_ONLY)) {
        blk_submit_backing(node, req);
    } else if (run.kind == QRUN_DATA && !run.past_end) {
        if (!node->read_only) {
            read_split(q, req); /* counted: its cluster must not be reused meanwhile */
            return;
        }
        req->offset_bytes = run.host;
        blk_forward(qcow2_host_node(q, &req->offset_bytes), req);
    } else {
        iov_zero(req->iov, req->niov, 0, req->length_bytes);
        blk_complete(req, 0);
    }
}

/* ---- old content for copies ---------------------------------------------------------- */

struct backing_wait {
    struct coroutine *co;
    bool done;
    int result;
};

static void backing_read_done(struct blk_req *child)
{
    struct backing_wait *w = child->opaque;

    w->result = child->result;
    w->done = true;
    blk_child_put(child);
    if (w->co)
        co_enter(w->co);
}

static int co_read_backing(struct qcow2 *q, uint64_t off, void *buf, size_t bytes, uint32_t flags)
{
    struct blk_req *child = blk_child_get();
    struct backing_wait w = {0};

    child->verb = BLK_READ;
    child->flags = flags & BLK_BULK;
    child->offset_bytes = off;
    child->length_bytes = bytes;
    child->small_iov = (struct iovec){buf, bytes};
    child->iov = &child->small_iov;
    child->niov = 1;
    child->done = backing_read_done;
    child->opaque = &w;
    blk_submit_backing(&q->node, child);
    w.co = co_self();
    if (!w.done)
        co_yield ();
    return w.result;
}

static int co_read_run(struct qcow2 *q, uint64_t off, uint8_t *buf, const struct qrun *run,
                       uint32_t flags)
{
    struct iovec iov = {buf, run->bytes};
    struct blk_node *where;
    uint64_t host = run->host;

    if (run->kind == QRUN_COMPRESSED)
        return co_qcow2_read_compressed(q, run->host, off & (qcow2_cluster_bytes(&q->g) - 1),
                                        run->bytes, &iov, 1, 0);
    if (run->kind == QRUN_DATA && !run->past_end) {
        where = qcow2_host_node(q, &host);
        return co_blk_read(where, host, buf, run->bytes, 0);
    }
    if (run->kind == QRUN_UNALLOCATED && q->node.backing.child)
        return co_read_backing(q, off, buf, run->bytes, flags);
    memset(buf, 0, run->bytes);
    return 0;
}

int co_qcow2_read_old(struct qcow2 *q, uint64_t off, void *buf, size_t bytes, uint32_t flags)
{
    uint8_t *p = buf;
    struct qrun run;
    int ret;

    while (bytes) {
        if (off >= q->node.size_bytes) {
            memset(p, 0, bytes);
            return 0;
        }
        ret = co_qcow2_map(q, off, MIN_OF(bytes, q->node.size_bytes - off), &run);
        if (!ret)
            ret = co_read_run(q, off, p, &run, flags);
        if (ret)
            return ret;
        off += run.bytes;
        p += run.bytes;
        bytes -= run.bytes;
    }
    return 0;
}
