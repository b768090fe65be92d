/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The replica filter: marks, copying, and what a guest's change does to them.
 *
 * Who copies a range holds it as a flight, so nobody else copies it meanwhile. A mark is taken off
 * before the source is read. A mirror's change is marked after it is done: a copy that began before
 * is done again, one that begins later reads the change.
 * A flight is only taken by those who are counted above the source: a drain waits for them.
 */
#include "lun-backends/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/bitmap.h"
#include "util/coroutine.h"
#include "util/size.h"

#define MIN_CHUNK_BITS 16
#define MAX_CHUNKS     (UINT64_C(1) << 23) /* a bitmap of 1 MiB at most */
#define ALIGN_BYTES    UINT64_C(4096)
#define PIECE_BYTES    (UINT64_C(1) << 20)
#define SPAN_BYTES     (UINT64_C(64) << 20) /* bounds how long a range is held */
#define MAX_EXTENTS    32
#define MAX_SPARE      16 /* buffers kept: fresh memory costs as much as copying it */

struct flight {
    struct list_head link;
    uint64_t start, end;
};

struct replica {
    struct blk_node node;
    struct replica_opts opts;
    uint64_t *map;
    uint64_t nr_chunks, nr_marked;
    unsigned chunk_bits;
    struct list_head flights;
    struct co_queue flight_ended;
    bool released; /* guests wait for nothing any more */
    int broken;    /* of a backup; -errno */
    struct replica_stats stats;
    void *spare[MAX_SPARE]; /* of PIECE_BYTES */
    unsigned nr_spare;
};

static struct replica *to_replica(const struct blk_node *node)
{
    return (struct replica *)node;
}

/* ---- marks ------------------------------------------------------------------------------- */

static void mark(struct replica *r, uint64_t start, uint64_t end)
{
    for (uint64_t i = start >> r->chunk_bits; i < r->nr_chunks && i << r->chunk_bits < end; i++) {
        r->nr_marked += !bitmap_test(r->map, i);
        bitmap_set(r->map, i);
    }
}

static void unmark(struct replica *r, uint64_t start, uint64_t end)
{
    for (uint64_t i = start >> r->chunk_bits; i < r->nr_chunks && i << r->chunk_bits < end; i++) {
        r->nr_marked -= bitmap_test(r->map, i);
        bitmap_clear(r->map, i);
    }
}

bool replica_next(const struct blk_node *node, uint64_t from, uint64_t *start, uint64_t *end)
{
    const struct replica *r = to_replica(node);
    uint64_t first = bitmap_next_set(r->map, r->nr_chunks, from >> r->chunk_bits), last;

    if (first >= r->nr_chunks)
        return false;
    last = bitmap_next_clear(r->map, r->nr_chunks, first);
    *start = first << r->chunk_bits;
    *end = MIN_OF(last << r->chunk_bits, node->size_bytes);
    return true;
}

static void round_to_chunks(const struct replica *r, uint64_t *start, uint64_t *end)
{
    uint64_t chunk = UINT64_C(1) << r->chunk_bits;

    *start = round_down_pow2(*start, chunk);
    *end = MIN_OF(round_up_pow2(*end, chunk), r->node.size_bytes);
}

uint64_t replica_dirty_bytes(const struct blk_node *node)
{
    const struct replica *r = to_replica(node);
    uint64_t bytes = r->nr_marked << r->chunk_bits;
    const struct flight *f;

    list_for_each_entry (f, &r->flights, link)
        bytes += f->end - f->start;
    return MIN_OF(bytes, node->size_bytes);
}

/* ---- flights ----------------------------------------------------------------------------- */

static bool in_flight(const struct replica *r, uint64_t start, uint64_t end)
{
    const struct flight *f;

    list_for_each_entry (f, &r->flights, link) {
        if (f->start < end && start < f->end)
            return true;
    }
    return false;
}

static void co_take_off(struct replica *r, struct flight *f)
{
    while (in_flight(r, f->start, f->end))
        co_queue_wait(&r->flight_ended);
    list_add_tail(&r->flights, &f->link);
}

static void land(struct replica *r, struct flight *f)
{
    list_del(&f->link);
    co_queue_wake_all(&r->flight_ended);
}

void co_replica_wait(struct blk_node *node)
{
    struct replica *r = to_replica(node);

    while (!list_empty(&r->flights))
        co_queue_wait(&r->flight_ended);
}

/* ---- copying ----------------------------------------------------------------------------- */

static bool has_data(enum blk_state state)
{
    return state == BLK_ST_DATA || state == BLK_ST_COMPRESSED;
}

static uint32_t zero_flags(const struct replica *r)
{
    return r->opts.keep_zeros ? 0 : BLK_MAY_UNMAP;
}

/* Where the target reads zeros of its own nothing is to be done. */
static int co_zero(struct replica *r, uint64_t pos, uint64_t end)
{
    struct blk_node *target = r->opts.target;
    int ret = 0;

    for (struct blk_extent ext; pos < end && !ret; pos += ext.length_bytes) {
        bool zero;

        ret = co_blk_status(target, pos, end - pos, &ext);
        if (ret)
            break;
        zero =
            ext.state == BLK_ST_ZERO || (ext.state == BLK_ST_UNALLOCATED && !target->backing.child);
        if (zero && !r->opts.keep_zeros)
            continue;
        ret = co_blk_write_zeroes(target, pos, ext.length_bytes, zero_flags(r));
        r->stats.zeroed_bytes += ret ? 0 : ext.length_bytes;
    }
    return ret;
}

static int co_copy_data(struct replica *r, uint64_t pos, uint64_t end, void *buf, bool *in_write)
{
    int ret = 0;

    for (uint64_t n; pos < end && !ret; pos += n) {
        n = MIN_OF(end - pos, PIECE_BYTES);
        *in_write = false;
        ret = co_blk_read(r->opts.source, pos, buf, n, 0);
        if (ret)
            break;
        *in_write = true;
        if (buf_is_zero(buf, n)) {
            ret = co_blk_write_zeroes(r->opts.target, pos, n, zero_flags(r));
            r->stats.zeroed_bytes += ret ? 0 : n;
        } else {
            ret = co_blk_write(r->opts.target, pos, buf, n, 0);
            r->stats.copied_bytes += ret ? 0 : n;
        }
    }
    return ret;
}

enum what { DO_COPY, DO_ZERO, DO_NOTHING };

/* Where what is below decides, it does so here and there. */
static enum what what_for(const struct replica *r, enum blk_state state)
{
    if (has_data(state))
        return DO_COPY;
    return state == BLK_ST_UNALLOCATED && r->opts.levels ? DO_NOTHING : DO_ZERO;
}

/* The extents from ext[0] on that are treated alike; their number, and where they end. */
static int run_of(const struct replica *r, const struct blk_extent *ext, int n, uint64_t *stop)
{
    enum what what = what_for(r, ext[0].state);
    int i = 0;

    while (i < n && what_for(r, ext[i].state) == what)
        i++;
    *stop = ext[i - 1].offset_bytes + ext[i - 1].length_bytes;
    return i;
}

static int co_copy_run(struct replica *r, enum what what, uint64_t pos, uint64_t end, void *buf,
                       bool *in_write)
{
    if (what == DO_COPY)
        return co_copy_data(r, pos, end, buf, in_write);
    *in_write = true;
    return what == DO_ZERO ? co_zero(r, pos, end) : 0;
}

/* From *pos on; *pos goes behind it. A unit with two sorts in it is data. */
static int co_copy_extents(struct replica *r, const struct blk_extent *ext, int n, uint64_t *pos,
                           uint64_t end, void *buf, bool *in_write)
{
    uint64_t unit = MAX_OF(r->opts.source->limits.align_bytes, r->opts.target->limits.align_bytes);
    int used, ret = 0;

    for (uint64_t stop; n > 0 && *pos < end && !ret; ext += used, n -= used) {
        enum what what = what_for(r, ext->state);
        uint64_t whole;

        used = run_of(r, ext, n, &stop);
        stop = MIN_OF(stop, end);
        whole = stop == end ? end : round_down_pow2(stop, unit);
        if (*pos < whole) {
            ret = co_copy_run(r, what, *pos, whole, buf, in_write);
            *pos = whole;
        }
        if (!ret && *pos < stop) {
            stop = MIN_OF(round_up_pow2(stop, unit), end);
            ret = co_copy_data(r, *pos, stop, buf, in_write);
            *pos = stop;
        }
    }
    return ret;
}

static void *take_buf(struct replica *r)
{
    return r->nr_spare ? r->spare[--r->nr_spare] : aligned_alloc(ALIGN_BYTES, PIECE_BYTES);
}

static void put_buf(struct replica *r, void *buf)
{
    if (buf && r->nr_spare < MAX_SPARE)
        r->spare[r->nr_spare++] = buf;
    else
        free(buf);
}

static int co_copy_range(struct replica *r, uint64_t pos, uint64_t end, bool *in_write)
{
    struct blk_extent *ext = calloc(MAX_EXTENTS, sizeof(*ext));
    void *buf = ext ? take_buf(r) : NULL;
    int ret = buf ? 0 : -ENOMEM;

    *in_write = false;
    while (pos < end && !ret) {
        int n =
            co_blk_status_walk(r->opts.source, pos, end - pos, r->opts.levels, ext, MAX_EXTENTS);

        *in_write = false;
        ret = n < 0 ? n : 0;
        if (!ret)
            ret = co_copy_extents(r, ext, n, &pos, end, buf, in_write);
    }
    put_buf(r, buf);
    free(ext);
    return ret;
}

int co_replica_copy(struct blk_node *node, uint64_t start, uint64_t end, bool *in_write)
{
    struct replica *r = to_replica(node);
    struct flight f = {.start = start, .end = end};
    uint64_t at = start, from, to;
    int ret = 0;

    round_to_chunks(r, &f.start, &f.end);
    co_take_off(r, &f);
    while (!ret && replica_next(node, at, &from, &to) && from < f.end) {
        to = MIN_OF(to, f.end);
        unmark(r, from, to);
        ret = co_copy_range(r, from, to, in_write);
        if (ret)
            mark(r, from, to);
        at = to;
    }
    land(r, &f);
    return ret;
}

int co_replica_plan(struct blk_node *node, uint64_t start, uint64_t end, uint64_t *bytes,
                    bool *data)
{
    struct replica *r = to_replica(node);
    uint64_t chunk = UINT64_C(1) << r->chunk_bits;
    struct blk_extent ext;
    int n;

    *bytes = MIN_OF(end - start, MAX_OF(PIECE_BYTES, chunk));
    *data = true;
    n = co_blk_status_walk(r->opts.source, start, MIN_OF(end - start, SPAN_BYTES), r->opts.levels,
                           &ext, 1);
    if (n < 0)
        return n;
    if (!has_data(ext.state) && ext.length_bytes >= *bytes) {
        *data = false;
        *bytes = ext.length_bytes == end - start ? end - start
                                                 : round_down_pow2(ext.length_bytes, chunk);
    }
    return 0;
}

int co_replica_catch_up(struct blk_node *node)
{
    uint64_t at = 0, start, end, bytes;
    bool ignored;
    int ret = 0;

    while (!ret && replica_next(node, at, &start, &end)) {
        ret = co_replica_plan(node, start, end, &bytes, &ignored);
        if (!ret)
            ret = co_replica_copy(node, start, start + bytes, &ignored);
        at = start + bytes;
    }
    return ret;
}

/* ---- guests' changes --------------------------------------------------------------------- */

static void replica_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

/* The change is in the source: the same range as it is there now. */
static void co_follow(void *arg)
{
    struct blk_req *req = arg;
    struct replica *r = to_replica(req->node);
    uint64_t start = round_down_pow2(req->offset_bytes, ALIGN_BYTES);
    uint64_t end = round_up_pow2(req->offset_bytes + req->length_bytes, ALIGN_BYTES);
    struct flight f;
    bool ignored;

    end = MIN_OF(end, r->node.size_bytes);
    f = (struct flight){.start = start, .end = end};
    round_to_chunks(r, &f.start, &f.end);
    co_take_off(r, &f);
    if (co_copy_range(r, start, end, &ignored))
        mark(r, start, end); /* the job meets the error, and has a policy for it */
    land(r, &f);
    blk_complete(req, 0);
}

static void change_done(struct blk_req *child)
{
    struct blk_req *req = child->opaque;
    struct replica *r = to_replica(req->node);
    int result = child->result;

    blk_child_put(child);
    if (!result && r->opts.write_blocking && !r->released) {
        co_spawn(co_follow, req);
        return;
    }
    mark(r, req->offset_bytes, req->offset_bytes + req->length_bytes);
    blk_complete(req, result);
}

static void mirror_change(struct blk_node *node, struct blk_req *req)
{
    blk_submit_copy(node->file.child, req, change_done);
}

/* A target that can't take it is no reason to fail a guest: the backup is over. */
static void co_save_first(void *arg)
{
    struct blk_req *req = arg;
    struct blk_node *node = req->node;
    struct replica *r = to_replica(node);
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes;
    bool ignored;

    for (uint64_t next; pos < end && !r->released; pos = next) {
        int ret;

        next = MIN_OF(round_down_pow2(pos, SPAN_BYTES) + SPAN_BYTES, end);
        ret = co_replica_copy(node, pos, next, &ignored);
        if (ret && !r->released) {
            r->broken = ret;
            r->released = true;
        }
    }
    blk_forward(node->file.child, req);
}

static void backup_change(struct blk_node *node, struct blk_req *req)
{
    struct replica *r = to_replica(node);
    uint64_t start = req->offset_bytes, end = start + req->length_bytes, from, to;

    round_to_chunks(r, &start, &end);
    if (!r->released &&
        (in_flight(r, start, end) || (replica_next(node, start, &from, &to) && from < end)))
        co_spawn(co_save_first, req);
    else
        blk_forward(node->file.child, req);
}

/* ---- the node ---------------------------------------------------------------------------- */

void replica_let_go(struct blk_node *node)
{
    to_replica(node)->released = true;
}

int replica_broken(const struct blk_node *node)
{
    return to_replica(node)->broken;
}

const struct replica_opts *replica_get_opts(const struct blk_node *node)
{
    return &to_replica(node)->opts;
}

void replica_get_stats(const struct blk_node *node, struct replica_stats *st)
{
    *st = to_replica(node)->stats;
}

static void replica_close(struct blk_node *node)
{
    struct replica *r = to_replica(node);

    while (r->nr_spare)
        free(r->spare[--r->nr_spare]);
    free(r->map);
}

#define REPLICA_DRIVER(name_, change_)                                              \
    {                                                                               \
        .name = name_, .instance_bytes = sizeof(struct replica), .is_filter = true, \
        .submit =                                                                   \
            {                                                                       \
                [BLK_READ] = replica_forward,  [BLK_WRITE] = change_,               \
                [BLK_WRITE_ZEROES] = change_,  [BLK_DISCARD] = change_,             \
                [BLK_FLUSH] = replica_forward, [BLK_STATUS] = replica_forward,      \
            },                                                                      \
        .co_close = replica_close,                                                  \
    }

static const struct blk_driver drivers[] = {
    [REPLICA_MIRROR] = REPLICA_DRIVER("mirror", mirror_change),
    [REPLICA_BACKUP] = REPLICA_DRIVER("copy-before-write", backup_change),
};

/* A backup writes whole clusters: what is below the target is asked for no part of one. */
static unsigned chunk_bits(const struct replica_opts *o)
{
    uint64_t least = o->granularity_bytes ? o->granularity_bytes : 1u << MIN_CHUNK_BITS;
    unsigned bits = 0;

    if (o->kind == REPLICA_BACKUP || !o->granularity_bytes)
        least = MAX_OF(least, o->target->limits.granularity_bytes);
    if (o->kind == REPLICA_BACKUP)
        least = MAX_OF(least, ALIGN_BYTES);
    while (UINT64_C(1) << bits < least || o->source->size_bytes >> bits >= MAX_CHUNKS)
        bits++;
    return bits;
}

struct blk_node *replica_new(const struct replica_opts *opts)
{
    struct blk_node *node = blk_node_new(&drivers[opts->kind], NULL);
    struct replica *r;

    if (!node)
        return NULL;
    r = to_replica(node);
    r->opts = *opts;
    list_init(&r->flights);
    co_queue_init(&r->flight_ended);
    r->chunk_bits = chunk_bits(opts);
    r->nr_chunks = (opts->source->size_bytes >> r->chunk_bits) + 1;
    r->map = calloc(BITMAP_WORDS(r->nr_chunks), sizeof(*r->map));
    if (!r->map) {
        blk_node_unref(node);
        return NULL;
    }
    node->size_bytes = opts->source->size_bytes;
    node->limits = opts->source->limits;
    node->read_only = opts->source->read_only;
    if (opts->all || opts->kind == REPLICA_BACKUP)
        mark(r, 0, node->size_bytes);
    blk_set_file(node, opts->source);
    return node;
}
