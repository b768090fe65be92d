/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A qcow2 image of the fuzzer's making, opened by the real engine: read, asked for its mapping,
 * written, flushed, resized, closed, and opened once more. An image that had no fault before it
 * was written has none after, whatever failed meanwhile; if nothing failed, no leak either.
 *
 * Input: byte 0 flags (below), byte 1 the request of the file that fails (0: none), byte 2 the
 * number of operations, 5 bytes each; then the image as pieces: offset (4 bytes), length (2), data.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "lun-backends/qcow2.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem-file.h"
#include "tests/unit/mem-node.h"
#include "util/size.h"

#define IO_MAX_BYTES   (192u << 10)
#define ZERO_MAX_BYTES (UINT64_C(64) << 20)

#define FULL_BYTES  (MEM_FILE_MAX_BYTES - (4 << 20)) /* writes may have failed */
#define MAX_RUNNING 8

enum flags { WRITABLE = 1, BACKED = 2, NO_SPACE = 4, TRUNCATED = 8, CONCURRENT = 16 };

struct image {
    struct fuzz_bytes ops;
    uint8_t flags;
    unsigned fail_at;
    struct mem_file *file;
    struct mem_node *below;
    struct blk_node *node;
    unsigned nr_running;
    struct co_queue ended;
};

/* Where and how much: a place in the disk counted in sectors, clusters or 1/65536 of the disk, from
 * its start or its end. */
static void take_range(struct image *im, uint8_t how, uint64_t *offset, uint64_t *bytes)
{
    uint64_t size = im->node->size_bytes, cluster = im->node->limits.granularity_bytes;
    const uint64_t unit[] = {512, cluster, cluster * (cluster / 8), size >> 16};
    uint64_t place = fuzz_u16(&im->ops);
    uint64_t at = round_down_pow2(place * unit[how >> 6], 512);
    uint64_t len = fuzz_u8(&im->ops);

    len = how & 0x20 ? (len + 1) * 512 : MIN_OF((len % 8 + 1) * cluster, IO_MAX_BYTES);
    at %= size;
    *offset = round_down_pow2(how & 0x10 ? size - 1 - at : at, 512);
    *bytes = MIN_OF(len, size - *offset);
}

static void co_map_some(struct image *im, uint64_t offset)
{
    struct blk_extent ext[16];
    uint64_t size = im->node->size_bytes;

    for (unsigned turns = 0; turns < 16 && offset < size; turns++) {
        int n = co_blk_status_walk(im->node, offset, size - offset, 0, ext, 16);

        if (n < 0)
            return;
        FUZZ_REQUIRE(n > 0 && n <= 16);
        for (int i = 0; i < n; i++) {
            FUZZ_REQUIRE(ext[i].offset_bytes == offset && ext[i].length_bytes);
            FUZZ_REQUIRE(ext[i].length_bytes <= size - offset);
            offset += ext[i].length_bytes;
        }
    }
}

enum op {
    OP_READ,
    OP_WRITE,
    OP_ZERO,
    OP_UNMAP,
    OP_DISCARD,
    OP_FLUSH,
    OP_MAP,
    OP_FILL,
    OP_RESIZE,
    OP_BACKING,
    OP_EMPTY,
    OP_SETTLE,
};

static void co_rarer(struct image *im, enum op op, uint64_t offset)
{
    struct error err = ERROR_INIT;

    if (im->node->read_only)
        return;
    else if (op == OP_EMPTY)
        co_qcow2_make_empty(im->node, &err);
    else if (op == OP_SETTLE)
        im->node->drv->co_inactivate(im->node);
    else if (op == OP_RESIZE)
        im->node->drv->co_resize(im->node, offset ? offset : 512, &err);
    else
        im->node->drv->co_change_backing(im->node, offset ? "other" : NULL, "raw", &err);
}

struct io {
    struct image *im;
    uint8_t code;
    uint64_t offset, bytes;
};

static void co_io(void *arg)
{
    struct io io = *(struct io *)arg;
    struct blk_node *node = io.im->node;
    bool other = io.code & 0x80;
    uint8_t *buf = malloc(IO_MAX_BYTES);

    FUZZ_REQUIRE(buf);
    memset(buf, 0xa5, io.bytes);
    io.im->nr_running++;
    switch ((enum op)(io.code & 15)) {
    case OP_READ:
        co_blk_read(node, io.offset, buf, io.bytes, other ? BLK_LOCAL_ONLY : 0);
        break;
    case OP_WRITE:
        co_blk_write(node, io.offset, buf, io.bytes, other ? BLK_FUA : 0);
        break;
    case OP_FILL:
        co_blk_write(node, io.offset, buf, io.bytes, BLK_IF_UNALLOCATED);
        break;
    case OP_ZERO:
        if (other)
            io.bytes = MIN_OF(node->size_bytes - io.offset, ZERO_MAX_BYTES);
        co_blk_write_zeroes(node, io.offset, io.bytes, 0);
        break;
    case OP_UNMAP:
        co_blk_write_zeroes(node, io.offset, io.bytes, BLK_MAY_UNMAP);
        break;
    case OP_DISCARD:
        co_blk_discard(node, io.offset, io.bytes);
        break;
    case OP_FLUSH:
        co_blk_flush(node);
        break;
    default:
        co_map_some(io.im, io.offset);
    }
    free(buf);
    if (--io.im->nr_running == 0)
        co_queue_wake_all(&io.im->ended);
}

static void co_wait_all(struct image *im)
{
    while (im->nr_running)
        co_queue_wait(&im->ended);
}

/* What needs the node drained comes alone. */
static void co_operate(struct image *im)
{
    struct io io = {.im = im, .code = fuzz_u8(&im->ops)};
    uint8_t how = fuzz_u8(&im->ops);

    take_range(im, how, &io.offset, &io.bytes);
    if ((io.code & 15) > OP_FILL) {
        co_wait_all(im);
        co_rarer(im, (enum op)(io.code & 15), io.offset);
        return;
    }
    co_spawn(co_io, &io);
    if (!(im->flags & CONCURRENT) || im->nr_running >= MAX_RUNNING)
        co_wait_all(im);
}

static bool co_open(struct image *im, bool writable)
{
    struct error err = ERROR_INIT;
    int ret = co_qcow2_open(&im->file->node, writable, &im->node, &err);

    FUZZ_REQUIRE((ret == 0) == (err.msg[0] == '\0'));
    if (ret)
        return false;
    if (im->below)
        blk_set_backing(im->node, &im->below->node);
    return true;
}

static void co_look(struct image *im)
{
    struct qcow2_info info;
    struct io io = {.im = im, .code = OP_READ};
    uint64_t size = im->node->size_bytes;

    qcow2_get_info(im->node, &info);
    if (!size)
        return;
    co_map_some(im, 0);
    io.bytes = MIN_OF(size, IO_MAX_BYTES);
    co_io(&io);
    io.offset = size - io.bytes;
    co_io(&io);
}

/* False: not an image that can be checked. */
static bool co_check(struct image *im, unsigned fix, struct qcow2_check_result *res)
{
    struct error err = ERROR_INIT;

    return !co_qcow2_check(&im->file->node, fix, NULL, NULL, res, &err);
}

/* Refcounts behind the end of the file are no leaks before the file grows: they go first. */
static bool co_is_sound(struct image *im, struct qcow2_check_result *res)
{
    if (!co_check(im, 0, res) || res->check_errors || res->corruptions)
        return false;
    return res->leaks || co_check(im, QCOW2_FIX_LEAKS, res);
}

static void co_use(void *arg)
{
    struct image *im = arg;
    bool writable = im->flags & WRITABLE;
    struct qcow2_check_result before, after;
    bool sound = writable && co_is_sound(im, &before);

    im->file->fail_at = im->fail_at;
    if (co_open(im, writable)) {
        co_look(im);
        while (fuzz_left(&im->ops) && im->node->size_bytes)
            co_operate(im);
        co_wait_all(im);
        co_blk_node_unref(im->node);
        if (sound) {
            bool failed = im->fail_at && !im->file->fail_at;

            im->file->fail_at = 0;
            FUZZ_REQUIRE(co_check(im, 0, &after) && !after.check_errors && !after.corruptions);
            if (!before.leaks && !failed && im->file->node.size_bytes < FULL_BYTES)
                FUZZ_REQUIRE(!after.leaks);
        }
        if (writable && co_open(im, false)) {
            co_look(im);
            co_blk_node_unref(im->node);
        }
    }
    co_blk_node_unref(&im->file->node);
    if (im->below)
        co_blk_node_unref(&im->below->node);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes in = {data, data + size};
    struct image im = {.flags = fuzz_u8(&in)};
    unsigned fail_at = fuzz_u8(&in);
    size_t got;

    fuzz_world();
    got = (size_t)(fuzz_u8(&in) % 32) * 5;
    im.ops.pos = fuzz_take(&in, got, &got);
    im.ops.end = im.ops.pos + got;
    im.file = mem_file_from_pieces(&in, im.flags & TRUNCATED);
    im.fail_at = fail_at;
    im.file->fail_with = im.flags & NO_SPACE ? -ENOSPC : -EIO;
    if (im.flags & BACKED) {
        im.below = mem_node_new(1 << 20, 4096);
        mem_node_fill(im.below, 65536, 65536, BLK_ST_DATA, 0x5a);
    }
    co_queue_init(&im.ended);
    fuzz_run(co_use, &im);
    return 0;
}
