/* SPDX-License-Identifier: BSD-3-Clause */
/* Data from below made local: see store.h. Everything goes through the caller's head. */
#include "lun-backends/store.h"

#include <errno.h>

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

int co_store_data(struct blk_head *head, uint64_t offset, const struct store_buf *b, size_t bytes,
                  bool keep_out, uint64_t *data_bytes, uint64_t *zero_bytes)
{
    const struct blk_limits *lim = &blk_head_node(head)->limits;
    uint32_t cluster = MAX_OF(lim->granularity_bytes, lim->subunit_bytes);

    for (size_t at = 0, run; at < bytes; at += run) {
        struct iovec part[STORE_MAX_BUFS];
        bool zero = false;
        int ret;

        run = run_of_one_kind(b, offset, at, bytes, cluster, &zero);
        if (keep_out && head->drain_count)
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
        *(zero ? zero_bytes : data_bytes) += run;
    }
    return 0;
}
