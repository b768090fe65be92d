/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests: the one checked passage between the layers.
 *
 * While any submit is on the stack, completions are put off to the loop's next LOOP_NOW round, so
 * done() never runs inside submit. Submits and completions nested deeper than MAX_NEST are put
 * off as well: a chain of any depth fits on a coroutine's stack.
 */
#define LOG_AREA "block"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/block-int.h"
#include "lun-backends/merged.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define MAX_NEST      24
#define MAX_FREE_REQS 1024

static struct {
    struct list_head completed, submitted; /* put off, by req->link */
    struct deferred run;
    struct list_head free;
    unsigned nr_free;
    unsigned submit_depth, done_depth;
    void (*on_threshold)(const struct blk_node *node, uint64_t threshold_bytes,
                         uint64_t exceeded_bytes);
} core;

/* Of an empty one nothing can be torn. */
static int check_atomic(const struct blk_node *node, const struct blk_req *req)
{
    uint64_t unit = node->limits.atomic_bytes, last = req->offset_bytes + req->length_bytes - 1;

    if (!req->length_bytes)
        return 0;
    return unit && req->offset_bytes / unit == last / unit ? 0 : -ENOTSUP;
}

static int check(const struct blk_node *node, const struct blk_req *req)
{
    uint64_t offset = req->offset_bytes, length = req->length_bytes;

    if (req->verb >= BLK_NR_VERBS)
        return -EINVAL;
    if (node->read_only && verb_changes_data(req->verb))
        return -EROFS;
    if (!node->drv->submit[req->verb])
        return -ENOTSUP;
    if (req->verb == BLK_FLUSH)
        return 0;
    if (length > INT64_MAX || offset > INT64_MAX - length)
        return -EINVAL;
    if (!node->drv->grows && offset + length > node->size_bytes)
        return -EINVAL;
    if (req->verb != BLK_STATUS && ((offset | length) & (node->limits.align_bytes - 1)))
        return -EINVAL;
    if (req->flags & BLK_ANCHOR && !node->limits.can_anchor)
        return -ENOTSUP;
    return req->flags & BLK_ATOMIC ? check_atomic(node, req) : 0;
}

static void finish(struct blk_req *req)
{
    struct blk_head *head = req->head;

    core.done_depth++;
    if (head) {
        req->head = NULL;
        if (req->begun_ns)
            head_tell_ended(head, req);
        blk_head_exit(head);
    }
    req->done(req);
    core.done_depth--;
}

void blk_complete(struct blk_req *req, int result)
{
    assert(req->node && result <= 0); /* exactly once; no short success */
    req->node = NULL;
    req->result = result;
    if (core.submit_depth || core.done_depth >= MAX_NEST) {
        list_add_tail(&core.completed, &req->link);
        loop_defer(&core.run, LOOP_NOW);
        return;
    }
    finish(req);
}

static void call_driver(struct blk_node *node, struct blk_req *req)
{
    core.submit_depth++;
    if (req->verb != BLK_READ || !merged_submit_read(node, req))
        node->drv->submit[req->verb](node, req);
    core.submit_depth--;
}

static void complete_in_submit(struct blk_req *req, int result)
{
    core.submit_depth++;
    blk_complete(req, result);
    core.submit_depth--;
}

void blk_set_threshold_sink(void (*fn)(const struct blk_node *node, uint64_t threshold_bytes,
                                       uint64_t exceeded_bytes))
{
    core.on_threshold = fn;
}

static void watch_threshold(struct blk_node *node, const struct blk_req *req)
{
    uint64_t threshold = node->write_threshold_bytes;
    uint64_t end = req->offset_bytes + req->length_bytes;

    if ((req->verb != BLK_WRITE && req->verb != BLK_WRITE_ZEROES) || end <= threshold)
        return;
    node->write_threshold_bytes = 0;
    if (core.on_threshold)
        core.on_threshold(node, threshold, end - threshold);
}

void blk_forward(struct blk_node *node, struct blk_req *req)
{
    int ret = check(node, req);

    req->node = node;
    if (!ret && node->write_threshold_bytes)
        watch_threshold(node, req);
    if (ret || (!req->length_bytes && req->verb != BLK_FLUSH)) {
        complete_in_submit(req, ret);
    } else if (core.submit_depth >= MAX_NEST) {
        list_add_tail(&core.submitted, &req->link);
        loop_defer(&core.run, LOOP_NOW);
    } else {
        call_driver(node, req);
    }
}

static void start(struct blk_req *req, struct blk_head *head)
{
    req->head = head;
    req->result = 0;
    req->result_flags = 0;
    list_init(&req->link);
}

void request_submit(struct blk_node *node, struct blk_req *req, struct blk_head *head)
{
    start(req, head);
    blk_forward(node, req);
}

void request_reject(struct blk_node *node, struct blk_req *req, struct blk_head *head, int result)
{
    start(req, head);
    req->node = node;
    complete_in_submit(req, result);
}

void blk_submit(struct blk_node *node, struct blk_req *req)
{
    request_submit(node, req, NULL);
}

/* One batch: what is put off meanwhile comes in the next round. */
static void run_put_off(struct deferred *d)
{
    struct list_head completed = LIST_HEAD_INIT(completed);
    struct list_head submitted = LIST_HEAD_INIT(submitted);

    (void)d;
    list_splice_tail(&completed, &core.completed);
    list_splice_tail(&submitted, &core.submitted);
    while (!list_empty(&submitted)) {
        struct blk_req *req = list_first_entry(&submitted, struct blk_req, link);

        list_del(&req->link);
        call_driver(req->node, req);
    }
    while (!list_empty(&completed)) {
        struct blk_req *req = list_first_entry(&completed, struct blk_req, link);

        list_del(&req->link);
        finish(req);
    }
}

/* ---- what a node does not hold ---------------------------------------------------- */

/* A READ that ends behind its backing, or does not fit the backing's alignment. */
struct clipped {
    struct blk_req req;
    struct blk_req *parent;
    uint64_t bytes;      /* of the parent's that the backing has */
    uint8_t *bounce;     /* NULL: read straight into the parent's buffers */
    uint64_t skip_bytes; /* at the bounce buffer's start */
    struct iovec iov[];
};

static void clipped_done(struct blk_req *req)
{
    struct clipped *c = req->opaque;
    struct blk_req *parent = c->parent;
    int result = req->result;

    parent->result_flags |= req->result_flags;
    if (!result) {
        if (c->bounce)
            iov_from_buf(parent->iov, parent->niov, 0, c->bounce + c->skip_bytes, c->bytes);
        iov_zero(parent->iov, parent->niov, c->bytes, parent->length_bytes - c->bytes);
    }
    free(c->bounce);
    free(c);
    blk_complete(parent, result);
}

static int clipped_prepare(struct clipped *c, const struct blk_node *backing)
{
    struct blk_req *parent = c->parent;
    uint64_t align = backing->limits.align_bytes;
    uint64_t start = round_down_pow2(parent->offset_bytes, align);
    uint64_t end = round_up_pow2(parent->offset_bytes + c->bytes, align);
    int n;

    c->req.offset_bytes = start;
    c->req.length_bytes = end - start;
    c->req.iov = c->iov;
    if (start == parent->offset_bytes && end - start == c->bytes) {
        n = iov_slice(parent->iov, parent->niov, 0, c->bytes, c->iov, parent->niov);
        c->req.niov = n;
        return n < 0 ? n : 0;
    }
    c->skip_bytes = parent->offset_bytes - start;
    c->bounce = aligned_alloc(4096, round_up_pow2(end - start, 4096));
    c->req.iov = &c->req.small_iov;
    c->req.niov = 1;
    c->req.small_iov = (struct iovec){c->bounce, end - start};
    return c->bounce ? 0 : -ENOMEM;
}

static void read_clipped(struct blk_node *backing, struct blk_req *req, uint64_t bytes)
{
    struct clipped *c = calloc(1, sizeof(*c) + (size_t)req->niov * sizeof(c->iov[0]));
    int ret = -ENOMEM;

    if (c) {
        c->parent = req;
        c->bytes = bytes;
        c->req.verb = BLK_READ;
        c->req.flags = req->flags;
        c->req.done = clipped_done;
        c->req.opaque = c;
        ret = clipped_prepare(c, backing);
    }
    if (ret) {
        if (c)
            free(c->bounce);
        free(c);
        complete_in_submit(req, ret);
        return;
    }
    blk_submit(backing, &c->req);
}

static void answer_nothing_below(struct blk_req *req)
{
    if (req->verb == BLK_READ)
        iov_zero(req->iov, req->niov, 0, req->length_bytes);
    else
        req->extent =
            (struct blk_extent){req->offset_bytes, req->length_bytes, BLK_ST_ZERO, 0, false};
    complete_in_submit(req, 0);
}

void blk_submit_backing(struct blk_node *node, struct blk_req *req)
{
    struct blk_node *backing = node->backing.child;
    uint64_t have = 0;

    assert(req->verb == BLK_READ || req->verb == BLK_STATUS);
    req->node = node;
    if (backing && backing->size_bytes > req->offset_bytes)
        have = MIN_OF(backing->size_bytes - req->offset_bytes, req->length_bytes);
    if (!have || (req->flags & BLK_LOCAL_ONLY)) {
        answer_nothing_below(req);
        return;
    }
    if (req->verb == BLK_STATUS) {
        req->length_bytes = have;
        blk_forward(backing, req);
        return;
    }
    req->result_flags |= BLK_R_FROM_BACKING;
    if (have == req->length_bytes &&
        !((req->offset_bytes | have) & (backing->limits.align_bytes - 1)))
        blk_forward(backing, req);
    else
        read_clipped(backing, req, have);
}

/* ---- the free list ----------------------------------------------------------------- */

struct blk_req *blk_child_get(void)
{
    struct blk_req *req;

    if (!list_empty(&core.free)) {
        req = list_first_entry(&core.free, struct blk_req, link);
        list_del(&req->link);
        core.nr_free--;
        memset(req, 0, sizeof(*req));
        return req;
    }
    req = calloc(1, sizeof(*req));
    if (!req) {
        log_err("no memory for a block request");
        abort();
    }
    return req;
}

void blk_child_put(struct blk_req *req)
{
    if (core.nr_free >= MAX_FREE_REQS) {
        free(req);
        return;
    }
    list_add(&core.free, &req->link);
    core.nr_free++;
}

void blk_submit_copy(struct blk_node *node, struct blk_req *req, void (*done)(struct blk_req *))
{
    struct blk_req *child = blk_child_get();

    child->verb = req->verb;
    child->flags = req->flags;
    child->offset_bytes = req->offset_bytes;
    child->length_bytes = req->length_bytes;
    child->iov = req->iov;
    child->niov = req->niov;
    child->done = done;
    child->opaque = req;
    blk_submit(node, child);
}

struct blk_req *blk_part_get(struct blk_req *req, uint64_t from, uint64_t bytes)
{
    struct blk_req *part = blk_child_get();
    struct iovec *iov;

    part->verb = req->verb;
    part->flags = req->flags & BLK_BULK;
    part->length_bytes = bytes;
    part->opaque = req;
    if (!from && bytes == req->length_bytes) {
        part->iov = req->iov;
        part->niov = req->niov;
        return part;
    }
    part->iov = &part->small_iov;
    part->niov = iov_slice(req->iov, req->niov, from, bytes, &part->small_iov, 1);
    if (part->niov >= 0)
        return part;
    iov = malloc((size_t)req->niov * sizeof(*iov));
    if (!iov) {
        blk_child_put(part);
        return NULL;
    }
    part->iov = iov;
    part->niov = iov_slice(req->iov, req->niov, from, bytes, iov, req->niov);
    return part;
}

void blk_part_put(struct blk_req *part, const struct blk_req *parent)
{
    if (part->iov != &part->small_iov && part->iov != parent->iov)
        free((void *)part->iov);
    blk_child_put(part);
}

void request_init(void)
{
    list_init(&core.completed);
    list_init(&core.submitted);
    list_init(&core.free);
    core.run.fn = run_put_off;
}

void request_fini(void)
{
    while (!list_empty(&core.free)) {
        struct blk_req *req = list_first_entry(&core.free, struct blk_req, link);

        list_del(&req->link);
        free(req);
    }
    core.nr_free = 0;
}
