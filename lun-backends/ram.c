/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A RAM disk: memory that the kernel gives page by page as it is written, and takes back when it
 * is discarded. Gone when the node is closed. Invariant: all RAM disks together can't outgrow
 * half of the host's memory, and a block whose bit is clear has never been written since, reads
 * zeros and takes no memory.
 */
#include "lun-backends/ram.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/bitmap.h"
#include "util/size.h"

#define BLOCK_BYTES  4096u
#define SECTOR_BYTES 512u
#define PREFIX       "ram:"

struct ram_node {
    struct blk_node node;
    uint8_t *mem;
    uint64_t *written; /* a bit for each block */
    uint64_t nr_blocks;
};

static uint64_t total_bytes; /* of all RAM disks */

static struct ram_node *to_ram(struct blk_node *node)
{
    return (struct ram_node *)node;
}

bool ram_is_name(const char *name)
{
    return !strncmp(name, PREFIX, strlen(PREFIX));
}

int ram_size_from_name(const char *name, uint64_t *size_bytes, struct error *err)
{
    if (!ram_is_name(name) || size_parse(name + strlen(PREFIX), size_bytes) || !*size_bytes)
        return error_set(err, EINVAL, "'%.80s': a RAM disk is ram:SIZE, like ram:4G", name);
    if (*size_bytes % SECTOR_BYTES)
        return error_set(err, EINVAL, "'%.80s': the size is no multiple of %u bytes", name,
                         SECTOR_BYTES);
    return 0;
}

/* Blocks that differ in state from the one at @off end the run. */
static uint64_t run_end(const struct ram_node *r, uint64_t off, uint64_t end, bool written)
{
    uint64_t first = off / BLOCK_BYTES, stop;

    stop = written ? bitmap_next_clear(r->written, r->nr_blocks, first)
                   : bitmap_next_set(r->written, r->nr_blocks, first);
    return stop >= r->nr_blocks ? end : MIN_OF(end, stop * BLOCK_BYTES);
}

static void ram_read(struct blk_node *node, struct blk_req *req)
{
    struct ram_node *r = to_ram(node);
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes, stop;

    for (; pos < end; pos = stop) {
        bool written = bitmap_test(r->written, pos / BLOCK_BYTES);
        size_t at = pos - req->offset_bytes;

        stop = run_end(r, pos, end, written);
        if (written)
            iov_from_buf(req->iov, req->niov, at, r->mem + pos, stop - pos);
        else
            iov_zero(req->iov, req->niov, at, stop - pos);
    }
    blk_complete(req, 0);
}

/* All of it has a say of its own: nothing lies below a RAM disk. */
static void ram_write(struct blk_node *node, struct blk_req *req)
{
    struct ram_node *r = to_ram(node);
    uint64_t end = req->offset_bytes + req->length_bytes;

    if (req->flags & BLK_IF_UNALLOCATED) {
        blk_complete(req, 0);
        return;
    }
    for (uint64_t b = req->offset_bytes / BLOCK_BYTES; b * BLOCK_BYTES < end; b++)
        bitmap_set(r->written, b);
    iov_to_buf(req->iov, req->niov, 0, r->mem + req->offset_bytes, req->length_bytes);
    blk_complete(req, 0);
}

/* Whole blocks go back to the kernel; parts are zeroed where there is something. */
static void zero_range(struct ram_node *r, uint64_t off, uint64_t end)
{
    uint64_t first = round_up_pow2(off, BLOCK_BYTES), last = round_down_pow2(end, BLOCK_BYTES);

    if (end == r->node.size_bytes)
        last = round_up_pow2(end, BLOCK_BYTES);
    if (first < last && madvise(r->mem + first, last - first, MADV_DONTNEED))
        memset(r->mem + first, 0, last - first);
    for (uint64_t b = first; b < last; b += BLOCK_BYTES)
        bitmap_clear(r->written, b / BLOCK_BYTES);
    if (first > last)
        first = last = end; /* inside one block */
    if (off < first && bitmap_test(r->written, off / BLOCK_BYTES))
        memset(r->mem + off, 0, first - off);
    if (last < end && bitmap_test(r->written, last / BLOCK_BYTES))
        memset(r->mem + last, 0, end - last);
}

static void ram_zero(struct blk_node *node, struct blk_req *req)
{
    if (!(req->flags & BLK_IF_UNALLOCATED))
        zero_range(to_ram(node), req->offset_bytes, req->offset_bytes + req->length_bytes);
    blk_complete(req, 0);
}

/* Nothing here outlives the process, so nothing can be made stable. */
static void ram_flush(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    blk_complete(req, 0);
}

static void ram_status(struct blk_node *node, struct blk_req *req)
{
    struct ram_node *r = to_ram(node);
    bool written = bitmap_test(r->written, req->offset_bytes / BLOCK_BYTES);
    uint64_t end = run_end(r, req->offset_bytes, req->offset_bytes + req->length_bytes, written);

    req->extent.offset_bytes = req->offset_bytes;
    req->extent.length_bytes = end - req->offset_bytes;
    req->extent.state = written ? BLK_ST_DATA : BLK_ST_ZERO;
    blk_complete(req, 0);
}

static void co_ram_close(struct blk_node *node)
{
    struct ram_node *r = to_ram(node);

    if (r->mem)
        munmap(r->mem, r->nr_blocks * BLOCK_BYTES);
    free(r->written);
    total_bytes -= r->nr_blocks * BLOCK_BYTES;
}

static const struct blk_driver ram_driver = {
    .name = "ram",
    .instance_bytes = sizeof(struct ram_node),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = ram_read,
            [BLK_WRITE] = ram_write,
            [BLK_WRITE_ZEROES] = ram_zero,
            [BLK_DISCARD] = ram_zero,
            [BLK_FLUSH] = ram_flush,
            [BLK_STATUS] = ram_status,
        },
    .co_close = co_ram_close,
};

uint64_t ram_used_bytes(const struct blk_node *node)
{
    const struct ram_node *r = (const struct ram_node *)node;

    return bitmap_count(r->written, r->nr_blocks) * BLOCK_BYTES;
}

static int reserve(struct ram_node *r, uint64_t size_bytes, struct error *err)
{
    uint64_t bytes = round_up_pow2(size_bytes, BLOCK_BYTES);
    uint64_t limit = (uint64_t)sysconf(_SC_PHYS_PAGES) / 2 * (uint64_t)sysconf(_SC_PAGESIZE);
    void *mem;

    if (size_bytes > limit || bytes > limit - MIN_OF(limit, total_bytes))
        return error_set(err, ENOMEM,
                         "a RAM disk of %" PRIu64
                         " bytes is too large: all of them may take %" PRIu64
                         " bytes, half of this host's memory, and %" PRIu64 " are taken",
                         size_bytes, limit, total_bytes);
    mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
               0);
    if (mem == MAP_FAILED)
        return error_set(err, errno, "no memory for a RAM disk: %s", strerror(errno));
    r->mem = mem;
    r->nr_blocks = bytes / BLOCK_BYTES;
    total_bytes += bytes;
    r->written = calloc(BITMAP_WORDS(r->nr_blocks), 8);
    return r->written ? 0 : error_set(err, ENOMEM, "out of memory");
}

int co_ram_open(const char *name, bool writable, struct blk_node **node, struct error *err)
{
    struct blk_node *n;
    uint64_t size_bytes;
    int ret = ram_size_from_name(name, &size_bytes, err);

    if (ret)
        return ret;
    n = blk_node_new(&ram_driver, NULL);
    if (!n)
        return error_set(err, ENOMEM, "out of memory");
    n->filename = strdup(name);
    n->size_bytes = size_bytes;
    n->read_only = !writable;
    n->limits.align_bytes = SECTOR_BYTES;
    ret =
        n->filename ? reserve(to_ram(n), size_bytes, err) : error_set(err, ENOMEM, "out of memory");
    if (ret) {
        co_blk_node_unref(n);
        return ret;
    }
    *node = n;
    return 0;
}
