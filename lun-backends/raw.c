/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * raw: the file is the disk. Everything in it is its own say, so nothing is ever unallocated.
 * A file that ends inside a sector is a disk of whole sectors: behind its end it reads zeros, and
 * a write of its last sector makes the file end with that.
 */
#include <errno.h>
#include <string.h>

#include "lun-backends/block.h"
#include "lun-backends/formats.h"
#include "util/size.h"

#define SECTOR_BYTES 512

static void raw_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

/* All of it has a say of its own already. */
static void raw_change(struct blk_node *node, struct blk_req *req)
{
    if (req->flags & BLK_IF_UNALLOCATED)
        blk_complete(req, 0);
    else
        blk_forward(node->file.child, req);
}

static int co_raw_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct blk_node *file = node->file.child;
    int ret;

    if (!file->drv->co_resize)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "'%s' can't be resized",
                               node->filename);
    ret = file->drv->co_resize(file, size_bytes, err);
    if (ret)
        return ret;
    ret = co_blk_flush(file); /* whoever was told of the new size finds it after a crash */
    if (ret)
        return error_set(err, -ret, "flushing '%s': %s", node->filename, strerror(-ret));
    node->size_bytes = round_up_pow2(size_bytes, SECTOR_BYTES);
    blk_node_notify(node, BLK_EV_RESIZED);
    return 0;
}

static int co_raw_reopen(struct blk_node *node, bool writable, struct error *err)
{
    int ret = co_blk_reopen(node->file.child, writable, err);

    if (!ret)
        node->read_only = !writable;
    return ret;
}

static int co_raw_locate(struct blk_node *node, uint64_t offset, uint64_t bytes,
                         struct blk_place *place)
{
    *place = (struct blk_place){BLK_PLACE_HOST, node->file.child, offset, bytes};
    return 0;
}

static const struct blk_driver raw_driver = {
    .name = "raw",
    .instance_bytes = sizeof(struct blk_node),
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
    .co_reopen = co_raw_reopen,
    .co_locate = co_raw_locate,
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
    n->size_bytes = round_up_pow2(file->size_bytes, SECTOR_BYTES);
    n->limits = file->limits;
    n->read_only = !writable;
    blk_set_file(n, file);
    *node = n;
    return 0;
}
