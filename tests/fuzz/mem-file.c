/* SPDX-License-Identifier: BSD-3-Clause */
/* See mem-file.h. */
#include "tests/fuzz/mem-file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/size.h"

static struct mem_file *to_mem_file(struct blk_node *node)
{
    return container_of(node, struct mem_file, node);
}

static uint64_t page_end(uint64_t at, uint64_t end)
{
    return MIN_OF(round_down_pow2(at, MEM_FILE_PAGE_BYTES) + MEM_FILE_PAGE_BYTES, end);
}

static uint8_t *page_at(const struct mem_file *f, uint64_t at)
{
    return at < MEM_FILE_MAX_BYTES ? f->pages[at / MEM_FILE_PAGE_BYTES] : NULL;
}

static uint8_t *make_page(struct mem_file *f, uint64_t at)
{
    uint8_t **page = &f->pages[at / MEM_FILE_PAGE_BYTES];

    if (!*page)
        *page = calloc(1, MEM_FILE_PAGE_BYTES);
    FUZZ_REQUIRE(*page);
    return *page + at % MEM_FILE_PAGE_BYTES;
}

void mem_file_put(struct mem_file *f, uint64_t offset, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    uint64_t end = MIN_OF(offset + bytes, MEM_FILE_MAX_BYTES);

    for (uint64_t at = offset, next; at < end; at = next) {
        next = page_end(at, end);
        memcpy(make_page(f, at), from + (at - offset), next - at);
        f->node.size_bytes = MAX_OF(f->node.size_bytes, next);
    }
}

/* Counts the request; its fault, if it has one. */
static int fault(struct mem_file *f)
{
    return f->fail_at && --f->fail_at == 0 ? f->fail_with : 0;
}

static void mem_file_read(struct blk_node *node, struct blk_req *req)
{
    struct mem_file *f = to_mem_file(node);
    uint64_t end = req->offset_bytes + req->length_bytes;

    for (uint64_t at = req->offset_bytes, next; at < end; at = next) {
        const uint8_t *page = page_at(f, at);
        uint64_t from = at - req->offset_bytes;

        next = page_end(at, end);
        if (page)
            iov_from_buf(req->iov, req->niov, from, page + at % MEM_FILE_PAGE_BYTES, next - at);
        else
            iov_zero(req->iov, req->niov, from, next - at);
    }
    blk_complete(req, fault(f));
}

static void mem_file_write(struct blk_node *node, struct blk_req *req)
{
    struct mem_file *f = to_mem_file(node);
    uint64_t end = req->offset_bytes + req->length_bytes;
    int ret = fault(f);

    if (!ret && end > MEM_FILE_MAX_BYTES)
        ret = -ENOSPC;
    for (uint64_t at = req->offset_bytes, next; !ret && at < end; at = next) {
        next = page_end(at, end);
        iov_to_buf(req->iov, req->niov, at - req->offset_bytes, make_page(f, at), next - at);
    }
    if (!ret)
        node->size_bytes = MAX_OF(node->size_bytes, end);
    blk_complete(req, ret);
}

/* Zeroes where there are pages; zeroing grows the file as writing does, a discard doesn't. */
static void mem_file_zero(struct blk_node *node, struct blk_req *req)
{
    struct mem_file *f = to_mem_file(node);
    uint64_t end = req->offset_bytes + req->length_bytes;
    int ret = fault(f);

    if (!ret && end > MEM_FILE_MAX_BYTES)
        ret = -ENOSPC;
    for (uint64_t at = req->offset_bytes, next; !ret && at < end; at = next) {
        uint8_t *page = page_at(f, at);

        next = page_end(at, end);
        if (page)
            memset(page + at % MEM_FILE_PAGE_BYTES, 0, next - at);
    }
    if (!ret && req->verb == BLK_WRITE_ZEROES)
        node->size_bytes = MAX_OF(node->size_bytes, end);
    blk_complete(req, ret);
}

static void mem_file_flush(struct blk_node *node, struct blk_req *req)
{
    blk_complete(req, fault(to_mem_file(node)));
}

static void mem_file_status(struct blk_node *node, struct blk_req *req)
{
    struct mem_file *f = to_mem_file(node);
    uint64_t end = req->offset_bytes + req->length_bytes;
    bool data = page_at(f, req->offset_bytes);
    uint64_t at = page_end(req->offset_bytes, end);

    while (at < end && !!page_at(f, at) == data)
        at = page_end(at, end);
    req->extent = (struct blk_extent){
        .offset_bytes = req->offset_bytes,
        .length_bytes = at - req->offset_bytes,
        .state = data ? BLK_ST_DATA : BLK_ST_ZERO,
    };
    blk_complete(req, fault(f));
}

static int co_mem_file_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    if (size_bytes > MEM_FILE_MAX_BYTES)
        return error_set(err, ENOSPC, "the file in memory is full");
    for (uint64_t at = size_bytes; at < node->size_bytes; at = page_end(at, UINT64_MAX)) {
        uint8_t *page = page_at(to_mem_file(node), at);

        if (page)
            memset(page + at % MEM_FILE_PAGE_BYTES, 0,
                   MEM_FILE_PAGE_BYTES - at % MEM_FILE_PAGE_BYTES);
    }
    node->size_bytes = size_bytes;
    return 0;
}

static void co_mem_file_close(struct blk_node *node)
{
    struct mem_file *f = to_mem_file(node);

    for (size_t i = 0; i < ARRAY_LEN(f->pages); i++)
        if (f->pages[i]) /* under ASan free(NULL) costs as much as free() */
            free(f->pages[i]);
}

static const struct blk_driver mem_file_driver = {
    .name = "mem-file",
    .instance_bytes = sizeof(struct mem_file),
    .grows = true,
    .submit =
        {
            [BLK_READ] = mem_file_read,
            [BLK_WRITE] = mem_file_write,
            [BLK_WRITE_ZEROES] = mem_file_zero,
            [BLK_DISCARD] = mem_file_zero,
            [BLK_FLUSH] = mem_file_flush,
            [BLK_STATUS] = mem_file_status,
        },
    .co_close = co_mem_file_close,
    .co_resize = co_mem_file_resize,
};

struct mem_file *mem_file_new(uint64_t size_bytes)
{
    struct blk_node *node = blk_node_new(&mem_file_driver, NULL);

    FUZZ_REQUIRE(node);
    node->filename = strdup("/images/image.qcow2");
    node->size_bytes = MIN_OF(size_bytes, MEM_FILE_MAX_BYTES);
    return to_mem_file(node);
}

struct mem_file *mem_file_from_pieces(struct fuzz_bytes *in, bool truncated)
{
    struct mem_file *f = mem_file_new(0);

    while (fuzz_left(in) > 6) {
        uint64_t offset = fuzz_u32(in);
        size_t len = fuzz_u16(in), got;
        const uint8_t *piece = fuzz_take(in, len, &got);

        mem_file_put(f, offset, piece, got);
    }
    if (!truncated)
        f->node.size_bytes = round_up_pow2(f->node.size_bytes, 2 << 20);
    return f;
}

int __wrap_co_file_open(const char *path, const struct file_opts *opts, struct blk_node **node,
                        struct error *err)
{
    struct mem_file *f;

    if (!path[0])
        return error_set(err, ENOENT, "no name");
    f = mem_file_new(1 << 20);
    f->node.read_only = !opts->writable;
    *node = &f->node;
    return 0;
}
