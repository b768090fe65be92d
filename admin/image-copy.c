/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copying a disk from one node to another: asks where data is, reads only that, several pieces
 * under way. Pieces are handed out in order; each is owned by one coroutine until it is written.
 */
#include "admin/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/qcow2-offline.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/size.h"

#define PIECE_BYTES  (UINT64_C(1) << 20)
#define MAX_EXTENTS  64
#define MAX_PARALLEL 16

/* ---- progress ----------------------------------------------------------------------------- */

int image_rate(const json_t *args, uint64_t *rate)
{
    *rate = json_object_get(args, "rate") ? (uint64_t)cli_int(args, "rate") : 0;
    return json_object_get(args, "rate") && !*rate ? cli_fail("-r: a rate is more than 0") : 0;
}

void image_progress_start(struct image_progress *p, const json_t *args, uint64_t total)
{
    *p = (struct image_progress){
        .on = cli_bool(args, "progress") && !cli_bool(args, "quiet"), .total = total, .shown = -1};
    image_progress_add(p, 0);
}

static void show(struct image_progress *p, int now)
{
    if (!p->on || now == p->shown)
        return;
    p->shown = now;
    printf("    (%d.%02d/100%%)\r", now / 100, now % 100);
    fflush(stdout);
}

void image_progress_add(struct image_progress *p, uint64_t bytes)
{
    p->done += bytes;
    show(p, p->total ? (int)((double)p->done / (double)p->total * 10000) : 0);
}

void image_progress_end(struct image_progress *p)
{
    show(p, 10000);
    if (p->on)
        putchar('\n');
}

/* ---- pieces ------------------------------------------------------------------------------- */

struct copying {
    struct image_copy what;
    struct error *err;
    int ret;
    struct co_mutex lock; /* on what is below */
    uint64_t pos;
    uint64_t piece_bytes;
    uint64_t next_ns; /* with a rate: when what was handed out so far may be done */
    struct blk_extent extents[MAX_EXTENTS];
    unsigned nr, at;
    unsigned running;
    struct coroutine *waiter;
};

static int fail(struct copying *c, int ret, const char *doing, const struct blk_node *node,
                uint64_t offset)
{
    if (!c->ret)
        c->ret = error_set(c->err, -ret, "%s '%s' at offset %llu: %s", doing,
                           node->filename ? node->filename : node->name, (unsigned long long)offset,
                           strerror(-ret));
    return ret;
}

static bool is_data(const struct blk_extent *e)
{
    return e->state == BLK_ST_DATA || e->state == BLK_ST_COMPRESSED;
}

/* Compressed clusters are written whole: a mixed one is read as data. */
static void to_whole_clusters(const struct copying *c, struct blk_extent *piece)
{
    uint64_t cluster = c->what.packed_bytes, left = c->what.bytes - piece->offset_bytes;

    if (!cluster)
        return;
    if (piece->length_bytes < MIN_OF(cluster, left))
        piece->state = BLK_ST_DATA;
    if (is_data(piece))
        piece->length_bytes = MIN_OF(cluster, left);
    else if (piece->length_bytes < left)
        piece->length_bytes = round_down_pow2(piece->length_bytes, cluster);
}

/* The next piece that has to be looked at; length 0: none. */
static void co_next_piece(struct copying *c, struct blk_extent *piece)
{
    struct blk_extent *e;
    int n;

    *piece = (struct blk_extent){0};
    if (c->ret || c->pos >= c->what.bytes)
        return;
    while (c->at < c->nr && c->extents[c->at].offset_bytes < c->pos) { /* gone with the last one */
        uint64_t over = c->pos - c->extents[c->at].offset_bytes;

        e = &c->extents[c->at];
        over = MIN_OF(over, e->length_bytes);
        e->offset_bytes += over;
        e->length_bytes -= over;
        c->at += !e->length_bytes;
    }
    if (c->at == c->nr) {
        n = co_blk_status_walk(c->what.from, c->pos, c->what.bytes - c->pos, c->what.layers,
                               c->extents, MAX_EXTENTS);
        if (n < 0) {
            fail(c, n, "asking the mapping of", c->what.from, c->pos);
            return;
        }
        c->nr = (unsigned)n;
        c->at = 0;
    }
    e = &c->extents[c->at];
    *piece = *e;
    if (is_data(e))
        piece->length_bytes = MIN_OF(e->length_bytes, c->piece_bytes);
    to_whole_clusters(c, piece);
    c->pos += piece->length_bytes;
}

static int co_zero(struct copying *c, uint64_t offset, uint64_t bytes)
{
    int ret;

    if (c->what.to_reads_zero)
        return 0;
    ret = co_blk_write_zeroes(c->what.to, c->what.to_offset + offset, bytes, BLK_MAY_UNMAP);
    return ret ? fail(c, ret, "writing zeros to", c->what.to, offset) : 0;
}

/* The longest run at @buf of blocks that are all zero, or all not. */
static size_t run_of(const uint8_t *buf, size_t bytes, size_t block, bool *zero)
{
    size_t at = MIN_OF(block, bytes);

    *zero = buf_is_zero(buf, at);
    while (at < bytes) {
        size_t n = MIN_OF(block, bytes - at);

        if (buf_is_zero(buf + at, n) != *zero)
            break;
        at += n;
    }
    return at;
}

/* What can be read of it; each sector that can't is said, and zeros. */
static int co_read(struct copying *c, uint64_t offset, uint8_t *buf, size_t bytes)
{
    int ret = co_image_read(c->what.from, offset, buf, bytes);

    if (!ret || !c->what.salvage)
        return ret;
    for (size_t at = 0; at < bytes; at += MIN_OF(bytes - at, 512)) {
        ret = co_image_read(c->what.from, offset + at, buf + at, MIN_OF(bytes - at, 512));
        if (ret) {
            cli_fail("warning: '%s' can't be read at offset %llu (%s): zeros instead",
                     c->what.from->filename, (unsigned long long)(offset + at), strerror(-ret));
            memset(buf + at, 0, MIN_OF(bytes - at, 512));
        }
    }
    return 0;
}

static int co_write_packed(struct copying *c, uint64_t offset, const uint8_t *buf, size_t bytes)
{
    int ret;

    if (buf_is_zero(buf, bytes))
        return co_zero(c, offset, bytes);
    ret = co_qcow2_write_compressed(c->what.to, c->what.to_offset + offset, buf, bytes);
    return ret ? fail(c, ret, "writing", c->what.to, offset) : 0;
}

static int co_copy_data(struct copying *c, const struct blk_extent *piece, uint8_t *buf)
{
    size_t bytes = piece->length_bytes, block = c->what.sparse_bytes, n;
    bool zero = false;
    int ret = co_read(c, piece->offset_bytes, buf, bytes);

    if (ret)
        return fail(c, ret, "reading", c->what.from, piece->offset_bytes);
    if (c->what.packed_bytes)
        return co_write_packed(c, piece->offset_bytes, buf, bytes);
    for (size_t at = 0; at < bytes && !ret; at += n) {
        uint64_t offset = piece->offset_bytes + at;

        n = block ? run_of(buf + at, bytes - at, block, &zero) : bytes;
        if (zero)
            ret = co_zero(c, offset, n);
        else if ((ret = co_blk_write(c->what.to, c->what.to_offset + offset, buf + at, n, 0)))
            fail(c, ret, "writing", c->what.to, offset);
    }
    return ret;
}

/* Waits for the turn of the next @bytes. */
static void co_keep_rate(struct copying *c, uint64_t bytes)
{
    uint64_t now = now_ns(), wait;

    if (!c->what.rate)
        return;
    c->next_ns = MAX_OF(c->next_ns, now);
    wait = c->next_ns - now;
    c->next_ns += (uint64_t)((double)bytes * 1e9 / (double)c->what.rate);
    if (wait)
        co_sleep(wait);
}

static void worker_co(void *arg)
{
    struct copying *c = arg;
    uint8_t *buf = aligned_alloc(4096, c->piece_bytes);
    struct blk_extent piece;
    int ret = buf ? 0 : fail(c, -ENOMEM, "copying", c->what.from, 0);

    while (!ret) {
        co_mutex_lock(&c->lock);
        co_next_piece(c, &piece);
        co_mutex_unlock(&c->lock);
        if (!piece.length_bytes)
            break;
        if (is_data(&piece)) {
            co_keep_rate(c, piece.length_bytes);
            ret = co_copy_data(c, &piece, buf);
        } else if (piece.state == BLK_ST_ZERO || !c->what.layers) {
            ret = co_zero(c, piece.offset_bytes, piece.length_bytes);
        }
        image_progress_add(c->what.progress, piece.length_bytes);
        co_pause();
    }
    free(buf);
    if (--c->running == 0 && c->waiter)
        co_wake(c->waiter);
}

int co_image_copy(const struct image_copy *what, struct error *err)
{
    struct copying *c = calloc(1, sizeof(*c));
    unsigned n = MIN_OF(MAX_OF(what->parallel, 1u), MAX_PARALLEL);
    int ret;

    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->what = *what;
    c->piece_bytes = MAX_OF(PIECE_BYTES, what->packed_bytes);
    c->err = err;
    co_mutex_init(&c->lock);
    c->running = n;
    for (unsigned i = 0; i < n; i++)
        co_spawn(worker_co, c);
    if (c->running) {
        c->waiter = co_self();
        co_yield ();
    }
    ret = c->ret;
    free(c);
    return ret;
}
