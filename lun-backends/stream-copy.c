/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The copies of a stream job: a piece is read when the wire has room for it, and written when the
 * disk has. What became local since it was planned (a guest wrote, copy-on-read kept it) is not
 * read; what becomes local while it is read is not overwritten (BLK_IF_UNALLOCATED).
 */
#define LOG_AREA "stream"
#include <stdlib.h>

#include "lun-backends/stream-int.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define MS       UINT64_C(1000000)
#define RETRY_NS (200 * MS)
/* What a crash makes us copy again: so much, or of so long, or a part of what was copied. Flushes
 * take a fifth of the time at most. */
#define FLUSH_EVERY_NS  (200 * MS)
#define FLUSH_MIN_BYTES (1u << 20)
#define FLUSH_MAX_BYTES (128u << 20)
#define FLUSH_PART      64
#define FLUSH_PAUSES    4
#define PIECES_A_SECOND 50 /* of a job with a speed */

uint64_t stream_copy_bytes(const struct stream *s)
{
    uint64_t unit = s->plan.unit_bytes;
    uint64_t most = MAX_OF(unit, pace_piece_bytes(&s->pace, now_ns()));
    uint64_t part = round_down_pow2(s->job.speed / PIECES_A_SECOND, unit);

    return s->job.speed ? MAX_OF(unit, MIN_OF(most, part)) : most;
}

/* ---- one copy ---------------------------------------------------------------------- */

/* What lies past the end of a shorter source reads zeros. */
static int co_read_source(struct stream *s, const struct store_buf *b, uint64_t offset)
{
    const struct blk_node *src = blk_head_node(&s->src);
    struct iovec part[STORE_MAX_BUFS];
    uint64_t bytes = 0;
    int n, ret;

    if (offset < src->size_bytes) {
        bytes = round_up_pow2(b->bytes, src->limits.align_bytes);
        bytes = MIN_OF(bytes, src->size_bytes - offset);
    }
    iov_zero(b->iov, (int)b->niov, bytes, b->bytes - bytes);
    if (bytes == 0)
        return 0;
    n = iov_slice(b->iov, (int)b->niov, 0, bytes, part, STORE_MAX_BUFS);
    ret = co_head_rw(&s->src, BLK_READ, offset, bytes, part, n, BLK_BULK, NULL);
    if (ret == 0 && s->source_down) {
        s->source_down = false;
        log_notice("%s: the source is back", s->job.id);
    }
    return ret;
}

static void co_wait_for_disk(struct stream *s, uint64_t bytes)
{
    for (;;) {
        uint64_t wait = pace_wait_ns(&s->pace, &s->pace.disk, bytes, now_ns());

        if (!wait)
            return;
        if (wait == UINT64_MAX)
            co_queue_wait(&s->disk_room);
        else
            co_sleep(wait);
    }
}

static int co_write_piece(struct stream *s, const struct copy *c, const struct store_buf *b,
                          uint64_t offset, uint64_t bytes)
{
    struct pace_path *disk = &s->pace.disk;
    uint64_t begun;
    int ret;

    co_wait_for_disk(s, bytes);
    pace_begin(disk, bytes);
    begun = now_ns();
    if (c->kind == PLAN_ZERO) {
        ret =
            co_head_rw(&s->dst, BLK_WRITE_ZEROES, offset, bytes, NULL, 0, BLK_IF_UNALLOCATED, NULL);
        s->stats.zeroed_bytes += ret ? 0 : bytes;
    } else {
        ret = co_store_data(&s->dst, offset, b, 0, bytes, &s->how);
    }
    /* Zeros move no data: how long they take says nothing of the disk's rate. */
    pace_end(&s->pace, disk, bytes, now_ns() - begun, ret || c->kind == PLAN_ZERO, now_ns());
    co_queue_wake_all(&s->disk_room);
    return ret;
}

/* Reads and writes [offset, offset + bytes), of which the overlay has no say. */
static int co_copy_part(struct stream *s, struct copy *c, uint64_t offset, uint64_t bytes,
                        bool *is_write)
{
    struct pace_path *wire = &s->pace.wire;
    struct store_buf part = {.bytes = round_up_pow2(bytes, 4096)};
    uint64_t begun = now_ns();
    int ret;

    part.niov =
        (unsigned)iov_slice(c->buf.iov, (int)c->buf.niov, 0, part.bytes, part.iov, STORE_MAX_BUFS);
    pace_begin(wire, bytes);
    ret = co_read_source(s, &part, offset);
    pace_end(&s->pace, wire, bytes, now_ns() - begun, ret, now_ns());
    s->stats.read_bytes += ret ? 0 : bytes;
    s->stats.hot_bytes += ret || !c->hot ? 0 : bytes;
    co_queue_wake(&s->copy_ended); /* the wire has room */
    *is_write = !ret;
    return ret ? ret : co_write_piece(s, c, &part, offset, bytes);
}

static int co_copy_data(struct stream *s, struct copy *c, bool *is_write)
{
    uint64_t end = c->offset + c->bytes;
    uint32_t unit = s->plan.unit_bytes;
    struct blk_extent ext;
    int ret = 0;

    for (uint64_t at = c->offset, next; at < end && !ret; at = next) {
        *is_write = false;
        ret = co_head_status(&s->dst, at, end - at, &ext);
        if (ret)
            break;
        next = at + ext.length_bytes;
        if (ext.state != BLK_ST_UNALLOCATED) {
            next = MAX_OF(round_down_pow2(next, unit), at);
            if (next > at) {
                s->stats.skipped_bytes += next - at;
                continue;
            }
        }
        next = MIN_OF(round_up_pow2(MAX_OF(next, at + 1), unit), end);
        ret = co_copy_part(s, c, at, next - at, is_write);
    }
    return ret;
}

static void co_copy(void *arg)
{
    struct copy *c = arg;
    struct stream *s = c->s;
    bool is_write = true;
    int ret;

    if (c->kind == PLAN_ZERO) {
        ret = co_write_piece(s, c, NULL, c->offset, c->bytes);
    } else {
        ret = co_copy_data(s, c, &is_write);
        store_buf_put(&c->buf, s->pool);
    }
    s->unflushed_bytes += c->bytes;
    if (ret && !c->hot) /* what is hot comes again in its turn */
        stream_note_failure(s, c->offset, ret, is_write);
    list_del(&c->link);
    s->nr_copies--;
    free(c);
    stream_update_progress(s);
    co_queue_wake(&s->copy_ended);
}

/* ---- flushing ---------------------------------------------------------------------- */

static void co_flush_behind(void *arg)
{
    struct stream *s = arg;
    uint64_t begun = now_ns();
    int ret = co_head_flush(&s->dst);

    if (ret)
        stream_note_failure(s, s->pos, ret, true);
    s->flush_from_ns = now_ns() + FLUSH_PAUSES * (now_ns() - begun);
    s->flushing = false;
    co_queue_wake(&s->copy_ended);
}

static void flush_if_due(struct stream *s)
{
    uint64_t part = (s->stats.copied_bytes + s->stats.zeroed_bytes) / FLUSH_PART, now = now_ns();
    uint64_t most = MIN_OF(MAX_OF(part, FLUSH_MIN_BYTES), FLUSH_MAX_BYTES);
    bool due =
        s->unflushed_bytes >= most || (s->unflushed_bytes && now - s->flushed_ns >= FLUSH_EVERY_NS);

    if (!due || s->flushing || now < s->flush_from_ns)
        return;
    s->flushing = true;
    s->flushed_ns = now;
    s->unflushed_bytes = 0;
    co_spawn(co_flush_behind, s);
}

void co_stream_wait_idle(struct stream *s)
{
    while (s->nr_copies || s->flushing)
        co_queue_wait(&s->copy_ended);
}

/* ---- starting one ------------------------------------------------------------------ */

/* A copy ready to go, with its buffer; waits for memory and a free slot. NULL: interrupted. */
static struct copy *co_get_copy(struct stream *s, uint64_t bytes, enum plan_kind kind)
{
    struct copy *c = NULL;

    while (!stream_interrupted(s)) {
        if (s->nr_copies < STREAM_MAX_COPIES && (c = calloc(1, sizeof(*c)))) {
            /* Whole pages: a source with big blocks is read up to the end of its last one. */
            if (kind != PLAN_COPY || store_buf_get(&c->buf, s->pool, round_up_pow2(bytes, 4096)))
                return c;
            free(c);
        }
        if (s->nr_copies)
            co_queue_wait(&s->copy_ended);
        else
            co_job_sleep(&s->job, RETRY_NS);
    }
    return NULL;
}

/* Nanoseconds until the delay at the start is over. */
static uint64_t hold_ns(const struct stream *s)
{
    uint64_t due = s->job.started_ns + s->config.start_delay_ns, now = now_ns();

    return now < due ? due - now : 0;
}

/* False: interrupted. */
static bool co_wait_for_turn(struct stream *s, uint64_t bytes, bool reads)
{
    while (!stream_interrupted(s)) {
        uint64_t wait = hold_ns(s);

        if (!wait && reads)
            wait = pace_wait_ns(&s->pace, &s->pace.wire, bytes, now_ns());
        if (!wait)
            return true;
        if (wait == UINT64_MAX && s->nr_copies)
            co_queue_wait(&s->copy_ended);
        else
            co_job_sleep(&s->job, MIN_OF(wait, RETRY_NS));
    }
    return false;
}

/* A guest's range that is being copied early must not be read twice. */
static bool co_wait_for_hot(struct stream *s, const struct plan_run *run)
{
    struct copy *c, *tmp;

    list_for_each_entry_safe (c, tmp, &s->hot_copies, link) {
        if (c->offset < run->end && run->start < c->offset + c->bytes) {
            co_queue_wait(&s->copy_ended);
            return false;
        }
    }
    return true;
}

bool co_stream_start_copy(struct stream *s, const struct plan_run *run, bool hot)
{
    uint64_t bytes = run->end - run->start;
    struct copy *c;

    while (!co_wait_for_hot(s, run))
        ;
    if (!co_wait_for_turn(s, bytes, run->kind == PLAN_COPY))
        return false;
    if (run->kind == PLAN_COPY && !co_job_throttle(&s->job, bytes))
        return false;
    c = co_get_copy(s, bytes, run->kind);
    if (!c)
        return false;
    c->s = s;
    c->kind = run->kind;
    c->hot = hot;
    c->offset = run->start;
    c->bytes = bytes;
    list_add_tail(hot ? &s->hot_copies : &s->copies, &c->link);
    s->nr_copies++;
    if (hot) {
        s->hot.lead_bytes += bytes;
    } else {
        s->hot.lead_bytes -= MIN_OF(s->hot.lead_bytes, run->kind == PLAN_COPY ? bytes : 0);
        s->pos = run->end;
        s->counted = MAX_OF(s->counted, s->pos);
    }
    co_spawn(co_copy, c);
    flush_if_due(s);
    co_pause();
    return true;
}
