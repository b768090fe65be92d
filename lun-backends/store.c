/* SPDX-License-Identifier: BSD-3-Clause */
/* Data from below made local: see store.h. Everything goes through the caller's head. */
#include "lun-backends/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/coroutine.h"
#include "util/size.h"

struct head_call {
    struct blk_req req;
    struct coroutine *co;
};

static void head_call_done(struct blk_req *req)
{
    co_enter(container_of(req, struct head_call, req)->co);
}

/* A completion never comes before submit has returned, so the yield can't miss it. */
static int co_head_call(struct blk_head *head, struct head_call *call)
{
    call->co = co_self();
    call->req.done = head_call_done;
    blk_head_submit(head, &call->req);
    co_yield ();
    return call->req.result;
}

int co_head_rw(struct blk_head *head, enum blk_verb verb, uint64_t offset, uint64_t bytes,
               const struct iovec *iov, int niov, uint32_t flags, uint32_t *result_flags)
{
    struct head_call call = {
        .req =
            {
                .verb = verb,
                .flags = flags,
                .offset_bytes = offset,
                .length_bytes = bytes,
                .iov = iov,
                .niov = niov,
            },
    };
    int ret = co_head_call(head, &call);

    if (result_flags)
        *result_flags = call.req.result_flags;
    return ret;
}

int co_head_flush(struct blk_head *head)
{
    return co_head_rw(head, BLK_FLUSH, 0, 0, NULL, 0, 0, NULL);
}

int co_head_status(struct blk_head *head, uint64_t offset, uint64_t bytes, struct blk_extent *ext)
{
    struct head_call call = {
        .req = {.verb = BLK_STATUS, .offset_bytes = offset, .length_bytes = bytes},
    };
    int ret = co_head_call(head, &call);

    if (ret == 0)
        *ext = call.req.extent;
    return ret;
}

bool store_buf_get(struct store_buf *b, struct bufpool *pool, size_t bytes)
{
    b->niov = 0;
    b->bytes = bytes;
    for (size_t at = 0; at < bytes; b->niov++) {
        size_t part = MIN_OF(bytes - at, (size_t)BUFPOOL_MAX_BYTES);
        void *buf = b->niov < STORE_MAX_BUFS ? bufpool_get(pool, part) : NULL;

        if (!buf) {
            store_buf_put(b, pool);
            return false;
        }
        b->iov[b->niov] = (struct iovec){.iov_base = buf, .iov_len = part};
        at += part;
    }
    return true;
}

void store_buf_put(struct store_buf *b, struct bufpool *pool)
{
    for (unsigned i = 0; i < b->niov; i++)
        bufpool_put(pool, b->iov[i].iov_base, b->iov[i].iov_len);
    b->niov = 0;
}

uint32_t store_unit_bytes(const struct blk_node *overlay)
{
    uint32_t unit = overlay->limits.subunit_bytes;

    return unit ? MAX_OF(unit, overlay->limits.align_bytes) : 0;
}

static bool part_is_zero(const struct store_buf *b, size_t from, size_t bytes)
{
    struct iovec part[STORE_MAX_BUFS];
    int n = iov_slice(b->iov, (int)b->niov, from, bytes, part, STORE_MAX_BUFS);

    return n > 0 && iov_is_zero(part, n);
}

/*
 * The longest run from @from of clusters that are all zero, or all not. Smaller zeros are not
 * worth it: their cluster takes its room anyway, and the write is cut in two.
 */
static size_t run_of_one_kind(const struct store_buf *b, uint64_t offset, size_t from, size_t bytes,
                              uint32_t cluster, bool *zero)
{
    size_t at = from;

    while (at < bytes) {
        uint64_t edge = round_up_pow2(offset + at + 1, cluster);
        size_t part = MIN_OF((size_t)(edge - (offset + at)), bytes - at);
        bool z = part_is_zero(b, at, part);

        if (at == from)
            *zero = z;
        else if (z != *zero)
            break;
        at += part;
    }
    return at - from;
}

static int co_store_run(struct blk_head *head, uint64_t offset, const struct store_buf *b,
                        size_t from, size_t bytes, const struct store_how *how)
{
    const struct blk_limits *lim = &blk_head_node(head)->limits;
    uint32_t cluster = MAX_OF(lim->granularity_bytes, lim->subunit_bytes);

    for (size_t at = from, run; at < from + bytes; at += run) {
        struct iovec part[STORE_MAX_BUFS];
        bool zero = false;
        int ret;

        run = how->as_is ? from + bytes - at
                         : run_of_one_kind(b, offset, at, from + bytes, cluster, &zero);
        if (how->keep_out && head->drain_count)
            return -EBUSY;
        if (zero) {
            ret = co_head_rw(head, BLK_WRITE_ZEROES, offset + at, run, NULL, 0, BLK_IF_UNALLOCATED,
                             NULL);
        } else {
            int n = iov_slice(b->iov, (int)b->niov, at, run, part, STORE_MAX_BUFS);

            ret = co_head_rw(head, BLK_WRITE, offset + at, run, part, n, BLK_IF_UNALLOCATED, NULL);
        }
        if (ret)
            return ret;
        *(zero ? how->zero_bytes : how->data_bytes) += run;
    }
    return 0;
}

/* What @below has at [offset, offset + bytes), zeros past its end; to be freed. NULL with *@ret. */
static uint8_t *co_read_below(struct blk_head *below, uint64_t offset, size_t bytes, int *ret)
{
    const struct blk_node *node = blk_head_node(below);
    uint64_t size = round_down_pow2(node->size_bytes, node->limits.align_bytes);
    struct iovec iov = {.iov_base = aligned_alloc(4096, round_up_pow2(bytes, 4096))};

    *ret = iov.iov_base ? 0 : -ENOMEM;
    if (*ret)
        return NULL;
    memset(iov.iov_base, 0, bytes);
    iov.iov_len = offset < size ? MIN_OF(bytes, size - offset) : 0;
    if (iov.iov_len)
        *ret = co_head_rw(below, BLK_READ, offset, iov.iov_len, &iov, 1, 0, NULL);
    if (!*ret)
        return iov.iov_base;
    free(iov.iov_base);
    return NULL;
}

static bool same_part(const struct store_buf *b, size_t from, size_t bytes, const uint8_t *other)
{
    struct iovec part[STORE_MAX_BUFS];
    int n = iov_slice(b->iov, (int)b->niov, from, bytes, part, STORE_MAX_BUFS);

    for (int i = 0; i < n; i++) {
        if (memcmp(part[i].iov_base, other, part[i].iov_len))
            return false;
        other += part[i].iov_len;
    }
    return n > 0;
}

static int co_store_differing(struct blk_head *head, uint64_t offset, const struct store_buf *b,
                              size_t from, size_t bytes, const struct store_how *how)
{
    size_t unit = store_unit_bytes(blk_head_node(head)), end = from + bytes, first = from;
    int ret;
    uint8_t *other = co_read_below(how->below, offset + from, bytes, &ret);

    if (!other)
        return ret;
    for (size_t at = from; at < end && !ret; at += unit) {
        size_t part = MIN_OF(unit, end - at);

        if (!same_part(b, at, part, other + (at - from)))
            continue;
        if (first < at)
            ret = co_store_run(head, offset, b, first, at - first, how);
        first = at + part;
    }
    if (!ret && first < end)
        ret = co_store_run(head, offset, b, first, end - first, how);
    free(other);
    return ret;
}

int co_store_data(struct blk_head *head, uint64_t offset, const struct store_buf *b, size_t from,
                  size_t bytes, const struct store_how *how)
{
    if (how->below)
        return co_store_differing(head, offset, b, from, bytes, how);
    return co_store_run(head, offset, b, from, bytes, how);
}
