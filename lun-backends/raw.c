/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * raw: the file is the disk. Everything in it is its own say, so nothing is ever unallocated.
 * A file that ends inside a sector is a disk of whole sectors: behind its end it reads zeros, and
 * what is written there is dropped, so the file keeps its size.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/block.h"
#include "lun-backends/formats.h"
#include "util/size.h"

#define SECTOR_BYTES 512

struct raw_node {
    struct blk_node node;
    uint64_t file_bytes; /* node.size_bytes before it was rounded up */
};

static struct raw_node *to_raw(struct blk_node *node)
{
    return (struct raw_node *)node;
}

static void raw_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

/* A change that goes past the end of the file, without what is past it. */
struct cut_req {
    struct blk_req req;
    struct blk_req *parent;
    struct iovec iov[];
};

static void cut_done(struct blk_req *req)
{
    struct cut_req *c = container_of(req, struct cut_req, req);
    struct blk_req *parent = c->parent;
    int result = req->result;

    free(c);
    blk_complete(parent, result);
}

static void submit_cut(struct blk_node *node, struct blk_req *req, uint64_t bytes)
{
    struct cut_req *c = calloc(1, sizeof(*c) + (size_t)req->niov * sizeof(c->iov[0]));

    if (!c) {
        blk_complete(req, -ENOMEM);
        return;
    }
    c->parent = req;
    c->req.verb = req->verb;
    c->req.flags = req->flags;
    c->req.offset_bytes = req->offset_bytes;
    c->req.length_bytes = bytes;
    c->req.done = cut_done;
    if (req->verb == BLK_WRITE) {
        c->req.iov = c->iov;
        c->req.niov = iov_slice(req->iov, req->niov, 0, bytes, c->iov, req->niov);
    }
    blk_submit(node->file.child, &c->req);
}

static void raw_change(struct blk_node *node, struct blk_req *req)
{
    uint64_t file_bytes = to_raw(node)->file_bytes;

    if (req->flags & BLK_IF_UNALLOCATED)
        blk_complete(req, 0); /* all of it has a say of its own already */
    else if (req->offset_bytes + req->length_bytes <= file_bytes)
        blk_forward(node->file.child, req);
    else if (req->offset_bytes < file_bytes)
        submit_cut(node, req, file_bytes - req->offset_bytes);
    else
        blk_complete(req, 0);
}

static int co_raw_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct blk_node *file = node->file.child;
    int ret;

    if (!file->drv->co_resize)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "'%s' can't be resized",
                               node->filename);
    ret = file->drv->co_resize(file, size_bytes, err);
    if (!ret) {
        to_raw(node)->file_bytes = size_bytes;
        node->size_bytes = round_up_pow2(size_bytes, SECTOR_BYTES);
    }
    return ret;
}

static const struct blk_driver raw_driver = {
    .name = "raw",
    .instance_bytes = sizeof(struct raw_node),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = raw_forward,
            [BLK_WRITE] = raw_change,
            [BLK_WRITE_ZEROES] = raw_change,
            [BLK_DISCARD] = raw_change,
            [BLK_FLUSH] = raw_forward,
            [BLK_STATUS] = raw_forward,
        },
    .co_resize = co_raw_resize,
};

int co_raw_open(struct blk_node *file, bool writable, struct blk_node **node, struct error *err)
{
    const char *filename = file->filename ? file->filename : file->name;
    struct blk_node *n;

    if (writable && file->read_only)
        return error_set(err, EROFS, "'%s' is open read-only", filename);
    if (file->size_bytes > INT64_MAX - SECTOR_BYTES)
        return error_set(err, EFBIG, "'%s' is too large for a disk", filename);
    n = blk_node_new(&raw_driver, NULL);
    if (n)
        n->filename = strdup(filename);
    if (!n || !n->filename) {
        blk_node_unref(n);
        return error_set(err, ENOMEM, "opening '%s': out of memory", filename);
    }
    to_raw(n)->file_bytes = file->size_bytes;
    n->size_bytes = round_up_pow2(file->size_bytes, SECTOR_BYTES);
    n->limits = file->limits;
    n->read_only = !writable;
    blk_set_file(n, file);
    *node = n;
    return 0;
}
