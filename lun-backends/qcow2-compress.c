/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing compressed clusters, for copies. They are packed one behind the other, several to a host
 * cluster, which has one reference for each. Packing is done on helper threads, placing one at a
 * time; the L2 entry comes last, as for all data.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>
#include "lun-backends/qcow2-offline.h"
#include "util/size.h"
#include "util/workers.h"

#define ZLIB_WINDOW_BITS 12

struct pack_job {
    bool zstd;
    const uint8_t *in;
    uint8_t *out;
    size_t in_bytes, out_bytes; /* out: room, then what is used */
};

/* "Compressed Clusters": a raw deflate stream. -ENOSPC: no smaller than before. */
static int pack_zlib(struct pack_job *j)
{
    z_stream z = {.next_in = (uint8_t *)j->in,
                  .avail_in = (uInt)j->in_bytes,
                  .next_out = j->out,
                  .avail_out = (uInt)j->out_bytes};
    int ret;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -ZLIB_WINDOW_BITS, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    ret = deflate(&z, Z_FINISH);
    j->out_bytes -= z.avail_out;
    deflateEnd(&z);
    return ret == Z_STREAM_END ? 0 : -ENOSPC;
}

static int pack_zstd(struct pack_job *j)
{
    size_t n = ZSTD_compress(j->out, j->out_bytes, j->in, j->in_bytes, ZSTD_CLEVEL_DEFAULT);

    if (ZSTD_isError(n))
        return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ? -ENOMEM : -ENOSPC;
    j->out_bytes = n;
    return 0;
}

static int pack_run(void *arg)
{
    struct pack_job *j = arg;

    return j->zstd ? pack_zstd(j) : pack_zlib(j);
}

/* A new cluster for the packed data; it goes on from the one before where they are neighbours,
 * which has been given its reference. */
static int co_place_further(struct qcow2 *q, uint64_t bytes, bool joined, uint64_t *host)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), before = q->pack_pos, got;
    bool fresh;
    int ret = co_qcow2_alloc(q, 1, host, &got, &fresh);

    if (joined && (ret || *host != round_up_pow2(before, cluster)))
        co_qcow2_free_now(q, round_down_pow2(before, cluster), 1);
    else if (joined)
        *host = before;
    if (!ret)
        q->pack_pos = *host + bytes;
    return ret;
}

/* Room for @bytes, less than a cluster: in one host cluster or in two that are neighbours, each of
 * which has a reference for it. */
static int co_place(struct qcow2 *q, uint64_t bytes, uint64_t *host)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), pos, left;
    bool joined;
    int ret = 0;

    co_mutex_lock(&q->pack_lock);
    pos = q->pack_pos;
    left = round_up_pow2(pos, cluster) - pos;
    joined = left && !co_qcow2_add_ref(q, pos >> q->g.cluster_bits);
    if (joined && bytes <= left) {
        *host = pos;
        q->pack_pos = pos + bytes;
    } else {
        ret = co_place_further(q, bytes, joined, host);
    }
    co_mutex_unlock(&q->pack_lock);
    return ret;
}

/* "Compressed Clusters Descriptor" */
static uint64_t descriptor(const struct qcow2 *q, uint64_t host, uint64_t bytes)
{
    uint64_t sectors = (host + bytes - 1) / QCOW2_SECTOR - host / QCOW2_SECTOR;

    return sectors << (62 - (q->g.cluster_bits - 8)) | host;
}

static void co_give_back(struct qcow2 *q, uint64_t host, uint64_t bytes)
{
    uint64_t first = round_down_pow2(host, qcow2_cluster_bytes(&q->g));

    co_qcow2_free_now(q, first, ((host + bytes - 1 - first) >> q->g.cluster_bits) + 1);
}

static int co_enter_packed(struct qcow2 *q, uint64_t offset, const struct pack_job *j)
{
    struct qcow2_entry old, e = {.compressed = true};
    struct qchange c;
    uint64_t host;
    int ret = co_qchange_begin(&c, q, offset, offset + 1, true);

    if (ret)
        return ret;
    ret = qcow2_get_entry(q, c.slice, offset, &old) ? co_place(q, j->out_bytes, &host) : -EIO;
    if (!ret) {
        ret = co_blk_write(qcow2_file(q), host, j->out, j->out_bytes, 0);
        if (ret)
            co_give_back(q, host, j->out_bytes);
    }
    if (!ret) {
        e.descriptor = descriptor(q, host, j->out_bytes);
        qchange_set_entry(&c, offset, &e);
        qcow2_free_entry_later(q, &old);
    }
    qchange_end(&c);
    return ret;
}

static int co_pack(struct qcow2 *q, uint64_t offset, const void *buf, size_t bytes, uint8_t *work)
{
    size_t cluster = qcow2_cluster_bytes(&q->g);
    struct pack_job j = {.zstd = q->h.compression == 1, .in = buf, .in_bytes = cluster};
    int ret;

    if (bytes < cluster) {
        memcpy(work, buf, bytes);
        memset(work + bytes, 0, cluster - bytes);
        j.in = work;
    }
    j.out = work + cluster;
    j.out_bytes = cluster - 1;
    ret = co_work(pack_run, &j);
    if (ret == -ENOSPC)
        return co_blk_write(&q->node, offset, buf, bytes, 0);
    return ret ? ret : co_enter_packed(q, offset, &j);
}

int co_qcow2_write_compressed(struct blk_node *node, uint64_t offset, const void *buf, size_t bytes)
{
    struct qcow2 *q = qcow2_of(node);
    uint64_t cluster = qcow2_cluster_bytes(&q->g);
    unsigned epoch;
    uint8_t *work;
    int ret;

    if (q->g.external)
        return -ENOTSUP;
    if (offset & (cluster - 1) || bytes > cluster ||
        (bytes < cluster && offset + bytes != node->size_bytes))
        return -EINVAL;
    if (node->read_only || q->corrupt)
        return node->read_only ? -EROFS : -EIO;
    work = malloc(2 * cluster);
    if (!work)
        return -ENOMEM;
    epoch = qcow2_io_begin(q);
    ret = co_pack(q, offset, buf, bytes, work);
    qcow2_io_end(q, epoch);
    free(work);
    return ret;
}

/* A descriptor counts whole sectors: the file has them all. */
int co_qcow2_end_compressed(struct blk_node *node)
{
    struct qcow2 *q = qcow2_of(node);
    struct blk_node *file = qcow2_file(q);
    uint64_t end = round_up_pow2(q->pack_pos, QCOW2_SECTOR);
    struct error ignored = ERROR_INIT;

    if (!end || end <= file->size_bytes || !file->drv->co_resize)
        return 0;
    return file->drv->co_resize(file, end, &ignored);
}
