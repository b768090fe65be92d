/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Compressed clusters: raw deflate or zstd, unpacked on a helper thread.
 * A few slots per image bound the memory and keep what was unpacked last; readers of a cluster
 * that is being unpacked wait for it. A slot is named by the cluster's descriptor, so all slots
 * are forgotten when host clusters of compressed data are freed.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "util/size.h"
#include "util/workers.h"

struct unpack_job {
    bool zstd;
    uint8_t *in, *out;
    size_t in_bytes, out_bytes;
};

/* A raw deflate stream with a window of 4 KiB. */
static int unpack_zlib(struct unpack_job *j)
{
    z_stream z = {0};
    int ret;

    z.next_in = j->in;
    z.avail_in = (uInt)j->in_bytes;
    z.next_out = j->out;
    z.avail_out = (uInt)j->out_bytes;
    if (inflateInit2(&z, -12) != Z_OK)
        return -ENOMEM;
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    if (z.avail_out || (ret != Z_STREAM_END && ret != Z_BUF_ERROR && ret != Z_OK))
        return -EIO;
    return 0;
}

static int unpack_zstd(struct unpack_job *j)
{
    ZSTD_inBuffer in = {j->in, j->in_bytes, 0};
    ZSTD_outBuffer out = {j->out, j->out_bytes, 0};
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    size_t ret;

    if (!ctx)
        return -ENOMEM;
    do {
        size_t before = in.pos + out.pos;

        ret = ZSTD_decompressStream(ctx, &out, &in);
        if (ZSTD_isError(ret) || in.pos + out.pos == before)
            break;
    } while (out.pos < out.size);
    ZSTD_freeDCtx(ctx);
    return out.pos == out.size ? 0 : -EIO;
}

static int unpack_run(void *arg)
{
    struct unpack_job *j = arg;

    return j->zstd ? unpack_zstd(j) : unpack_zlib(j);
}

static int co_unpack(struct qcow2 *q, uint64_t descriptor, uint8_t *out)
{
    uint64_t offset, file_bytes = qcow2_file(q)->size_bytes;
    struct unpack_job job = {.zstd = q->h.compression == 1, .out = out};
    uint32_t bytes;
    int ret;

    qcow2_compressed_range(&q->g, descriptor, &offset, &bytes);
    if (offset >= file_bytes)
        return qcow2_damaged(q, "compressed cluster at %#" PRIx64 " is outside the file", offset);
    job.in_bytes = MIN_OF(bytes, file_bytes - offset);
    job.out_bytes = qcow2_cluster_bytes(&q->g);
    job.in = malloc(job.in_bytes);
    if (!job.in)
        return -ENOMEM;
    ret = co_blk_read(qcow2_file(q), offset, job.in, job.in_bytes, 0);
    if (!ret) {
        ret = co_work(unpack_run, &job);
        if (ret == -EIO)
            qcow2_damaged(q, "compressed cluster at %#" PRIx64 " can't be unpacked", offset);
    }
    free(job.in);
    return ret;
}

static struct qunpack_slot *find_slot(struct qcow2 *q, uint64_t descriptor)
{
    for (unsigned i = 0; i < QCOW2_UNPACK_SLOTS; i++)
        if (q->unpack[i].descriptor == descriptor && q->unpack[i].data && !q->unpack[i].stale)
            return &q->unpack[i];
    return NULL;
}

static struct qunpack_slot *oldest_free_slot(struct qcow2 *q)
{
    struct qunpack_slot *best = NULL;

    for (unsigned i = 0; i < QCOW2_UNPACK_SLOTS; i++) {
        struct qunpack_slot *s = &q->unpack[i];

        if (!s->users && (!best || s->last_use < best->last_use))
            best = s;
    }
    return best;
}

static void slot_put(struct qcow2 *q, struct qunpack_slot *s)
{
    if (--s->users == 0)
        co_queue_wake(&q->unpack_wait);
}

/* A slot with a user added; loaded, or its error returned. */
static int co_slot_get(struct qcow2 *q, uint64_t descriptor, struct qunpack_slot **out)
{
    struct qunpack_slot *s;
    int ret;

    while (!(s = find_slot(q, descriptor)) && !(s = oldest_free_slot(q)))
        co_queue_wait(&q->unpack_wait);
    s->users++;
    s->last_use = ++q->unpack_clock;
    if (s->descriptor != descriptor || !s->data || s->stale || s->error) {
        if (!s->data) {
            s->data = malloc(qcow2_cluster_bytes(&q->g));
            co_queue_init(&s->waiters);
        }
        if (!s->data) {
            slot_put(q, s);
            return -ENOMEM;
        }
        s->descriptor = descriptor;
        s->stale = false;
        s->loading = true;
        s->error = 0;
        s->error = co_unpack(q, descriptor, s->data);
        s->loading = false;
        co_queue_wake_all(&s->waiters);
    } else {
        while (s->loading)
            co_queue_wait(&s->waiters);
    }
    ret = s->error;
    if (ret) {
        s->stale = true;
        slot_put(q, s);
        return ret;
    }
    *out = s;
    return 0;
}

int co_qcow2_read_compressed(struct qcow2 *q, uint64_t descriptor, uint64_t from, size_t bytes,
                             const struct iovec *iov, int niov, size_t iov_from)
{
    struct qunpack_slot *s;
    int ret = co_slot_get(q, descriptor, &s);

    if (ret)
        return ret;
    iov_from_buf(iov, niov, iov_from, s->data + from, bytes);
    slot_put(q, s);
    return 0;
}

/* Readers that hold a slot still read what was right when they came. */
void qcow2_unpack_forget(struct qcow2 *q)
{
    for (unsigned i = 0; i < QCOW2_UNPACK_SLOTS; i++)
        q->unpack[i].stale = true;
}

void qcow2_unpack_free(struct qcow2 *q)
{
    for (unsigned i = 0; i < QCOW2_UNPACK_SLOTS; i++)
        free(q->unpack[i].data);
}
