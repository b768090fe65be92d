/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a layer LUN shows its layer (COW layer extension, section 1): delta is what the layer holds
 * itself, image the bytes of its file. Flat, the layer with all below, needs no node. Both are
 * read-only, and what the node below says of its own mapping is what they say: a delta view has
 * no backing, so what its layer leaves to the parent stays unallocated.
 */
#include <string.h>

#include "lun-backends/block.h"
#include "lun-backends/formats.h"
#include "util/size.h"

static void view_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

static void delta_read(struct blk_node *node, struct blk_req *req)
{
    req->flags |= BLK_LOCAL_ONLY;
    blk_forward(node->file.child, req);
}

/* Nothing can be written through a view, so there is nothing to make stable. */
static void view_flush(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    blk_complete(req, 0);
}

static const struct blk_driver delta_driver = {
    .name = "delta-view",
    .instance_bytes = sizeof(struct blk_node),
    .submit =
        {
            [BLK_READ] = delta_read,
            [BLK_FLUSH] = view_flush,
            [BLK_STATUS] = view_forward,
        },
};

/* The file node itself answers zeros past the end of the file. */
static const struct blk_driver image_driver = {
    .name = "image-view",
    .instance_bytes = sizeof(struct blk_node),
    .submit =
        {
            [BLK_READ] = view_forward,
            [BLK_FLUSH] = view_flush,
            [BLK_STATUS] = view_forward,
        },
};

static struct blk_node *view_new(const struct blk_driver *drv, struct blk_node *child,
                                 uint64_t size_bytes)
{
    struct blk_node *node = blk_node_new(drv, NULL);

    if (!node)
        return NULL;
    if (child->filename)
        node->filename = strdup(child->filename);
    node->size_bytes = size_bytes;
    node->limits = child->limits;
    node->read_only = true;
    blk_set_file(node, child);
    return node;
}

struct blk_node *delta_view_new(struct blk_node *layer)
{
    return view_new(&delta_driver, layer, layer->size_bytes);
}

struct blk_node *image_view_new(struct blk_node *file)
{
    return view_new(&image_driver, file, round_up_pow2(file->size_bytes, 512));
}
