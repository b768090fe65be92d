/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A write into a cluster that can't be overwritten in place: compressed, shared with an internal
 * snapshot, or to be changed atomically. All of its own content moves to a new host cluster
 * together with the new data; what the cluster left to the backing stays there.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "util/size.h"

const uint8_t qcow2_zeros[QCOW2_ZEROS_BYTES] __attribute__((aligned(4096)));

/* Reads into @buf the subclusters of @mask, as they are now. */
static int co_read_subs(struct qcow2 *q, uint64_t base, uint32_t mask, uint8_t *buf, uint32_t flags)
{
    uint64_t sub = qcow2_sub_bytes(&q->g);
    unsigned first = 0, last;
    int ret = 0;

    while (mask && !ret) {
        first = (unsigned)__builtin_ctz(mask);
        for (last = first; last + 1 < q->g.subs && mask >> (last + 1) & 1; last++)
            ;
        ret = co_qcow2_read_old(q, base + first * sub, buf + first * sub, (last - first + 1) * sub,
                                flags);
        mask &= ~qcow2_sub_mask(first, last);
    }
    return ret;
}

/* Subclusters that [from, to) inside the cluster covers wholly. */
static uint32_t covered_subs(const struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t first = (from + qcow2_sub_bytes(&q->g) - 1) >> q->g.sub_bits;
    uint64_t end = to >> q->g.sub_bits;

    return first < end ? qcow2_sub_mask((unsigned)first, (unsigned)end - 1) : 0;
}

/* c->wide. */
int co_qcow2_move_cluster(struct qchange *c, uint64_t off, uint64_t bytes, const struct iovec *iov,
                          int niov, uint64_t data_off, uint32_t flags)
{
    struct qcow2 *q = c->q;
    uint64_t cluster = qcow2_cluster_bytes(&q->g), from = off & (cluster - 1), host, got;
    uint64_t base = off - from;
    struct qcow2_entry e, moved = {.copied = true};
    uint8_t *buf;
    bool fresh;
    int ret;

    if (!qcow2_get_entry(q, c->slice, off, &e))
        return -EIO;
    moved.alloc = (e.compressed ? qcow2_sub_mask(0, q->g.subs - 1) : e.alloc) |
                  qcow2_sub_mask((unsigned)(from >> q->g.sub_bits),
                                 (unsigned)((from + bytes - 1) >> q->g.sub_bits));
    moved.zero = e.zero & ~moved.alloc;
    buf = aligned_alloc(QCOW2_SECTOR, cluster);
    if (!buf)
        return -ENOMEM;
    memset(buf, 0, cluster);
    ret = co_read_subs(q, base, moved.alloc & ~covered_subs(q, from, from + bytes), buf, flags);
    if (ret)
        goto out;
    if (iov)
        iov_to_buf(iov, niov, off - data_off, buf + from, bytes);
    else
        memset(buf + from, 0, bytes);
    ret = co_qcow2_alloc(q, 1, &host, &got, &fresh);
    if (ret)
        goto out;
    ret = co_blk_write(qcow2_file(q), host, buf, cluster, 0);
    if (ret) {
        co_qcow2_free_now(q, host, 1);
        goto out;
    }
    moved.host = host;
    qchange_set_entry(c, off, &moved);
    qcow2_free_entry_later(q, &e);
out:
    free(buf);
    return ret;
}
