/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk of zeros, of any size and no memory. */
#include "lun-backends/block.h"
#include "lun-backends/formats.h"

static void zero_read(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    iov_zero(req->iov, req->niov, 0, req->length_bytes);
    blk_complete(req, 0);
}

static void zero_flush(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    blk_complete(req, 0);
}

static void zero_status(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    req->extent = (struct blk_extent){req->offset_bytes, req->length_bytes, BLK_ST_ZERO, 0, false};
    blk_complete(req, 0);
}

static const struct blk_driver zero_driver = {
    .name = "zero",
    .instance_bytes = sizeof(struct blk_node),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = zero_read,
            [BLK_FLUSH] = zero_flush,
            [BLK_STATUS] = zero_status,
        },
};

struct blk_node *zero_node_new(uint64_t size_bytes)
{
    struct blk_node *node = blk_node_new(&zero_driver, NULL);

    if (node) {
        node->size_bytes = size_bytes;
        node->read_only = true;
    }
    return node;
}
