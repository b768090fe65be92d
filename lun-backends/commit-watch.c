/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The watch of a commit: passes everything on and marks what was changed in a bitmap. A change is
 * marked when it has completed, failed or not: whoever copied the range before that may have read
 * old data, whoever comes later reads what is there then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/commit.h"
#include "util/bitmap.h"
#include "util/size.h"

#define MIN_CHUNK_BITS 16
#define MAX_CHUNKS     (UINT64_C(1) << 23) /* a bitmap of 1 MiB at most */

struct watch {
    struct blk_node node;
    uint64_t *map;
    uint64_t nr_chunks;
    unsigned chunk_bits;
};

static struct watch *to_watch(const struct blk_node *node)
{
    return (struct watch *)node;
}

void commit_watch_mark(struct blk_node *node, uint64_t start, uint64_t end)
{
    struct watch *w = to_watch(node);

    for (uint64_t i = start >> w->chunk_bits; i < w->nr_chunks && i << w->chunk_bits < end; i++)
        bitmap_set(w->map, i);
}

bool commit_watch_take(struct blk_node *node, uint64_t from, uint64_t *start, uint64_t *end)
{
    struct watch *w = to_watch(node);
    uint64_t first = bitmap_next_set(w->map, w->nr_chunks, from >> w->chunk_bits), last;

    if (first >= w->nr_chunks)
        return false;
    last = bitmap_next_clear(w->map, w->nr_chunks, first);
    for (uint64_t i = first; i < last; i++)
        bitmap_clear(w->map, i);
    *start = first << w->chunk_bits;
    *end = MIN_OF(last << w->chunk_bits, node->size_bytes);
    return true;
}

uint64_t commit_watch_dirty_bytes(const struct blk_node *node)
{
    const struct watch *w = to_watch(node);

    return bitmap_count(w->map, w->nr_chunks) << w->chunk_bits;
}

static void watch_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

static void change_done(struct blk_req *child)
{
    struct blk_req *req = child->opaque;
    int result = child->result;

    commit_watch_mark(req->node, req->offset_bytes, req->offset_bytes + req->length_bytes);
    blk_child_put(child);
    blk_complete(req, result);
}

static void watch_change(struct blk_node *node, struct blk_req *req)
{
    blk_submit_copy(node->file.child, req, change_done);
}

static void watch_close(struct blk_node *node)
{
    free(to_watch(node)->map);
}

static const struct blk_driver watch_driver = {
    .name = "commit-watch",
    .instance_bytes = sizeof(struct watch),
    .is_filter = true,
    .submit =
        {
            [BLK_READ] = watch_forward,
            [BLK_WRITE] = watch_change,
            [BLK_WRITE_ZEROES] = watch_change,
            [BLK_DISCARD] = watch_change,
            [BLK_FLUSH] = watch_forward,
            [BLK_STATUS] = watch_forward,
        },
    .co_close = watch_close,
};

struct blk_node *commit_watch_new(struct blk_node *top)
{
    struct blk_node *node = blk_node_new(&watch_driver, NULL);
    struct watch *w;

    if (!node)
        return NULL;
    w = to_watch(node);
    w->chunk_bits = MIN_CHUNK_BITS;
    while (top->size_bytes >> w->chunk_bits >= MAX_CHUNKS)
        w->chunk_bits++;
    w->nr_chunks = (top->size_bytes >> w->chunk_bits) + 1;
    w->map = calloc(BITMAP_WORDS(w->nr_chunks), sizeof(*w->map));
    if (!w->map) {
        blk_node_unref(node);
        return NULL;
    }
    node->size_bytes = top->size_bytes;
    node->limits = top->limits;
    node->read_only = top->read_only;
    blk_set_file(node, top);
    return node;
}
