/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The upper layers of a source on another host, as one layer over a base that is here.
 *
 * What the source says of a range is remembered in windows, the least recently used going first; a
 * read asks only what is in none; the disk never changes, so it stays true. Invariant: a range
 * counts as left to the base only if the source said so about the chain whose layers were counted,
 * by its generation. After a change they are counted anew; where nobody can, everything is read
 * from the source from then on: slower, and right.
 */
#define LOG_AREA "remote"
#include "lun-backends/formats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/remote.h"
#include "util/coroutine.h"
#include "util/cow-wire.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_WINDOWS 64
#define MAX_EXTENTS 4000
#define MAX_COUNTS  4 /* a chain that changes all the time is asked again later */

struct window {
    struct blk_extent *ext; /* contiguous, ascending; NULL: free */
    unsigned nr;
    uint64_t used; /* time of the last use, in uses */
};

struct upper {
    struct blk_node node;
    unsigned layers;
    uint32_t generation;
    bool changed; /* the source's chain is another one now, and its layers can't be counted */
    upper_count_fn co_count;
    void *opaque;
    bool counting;
    struct co_queue counted;
    uint64_t uses;
    struct window windows[MAX_WINDOWS];
};

struct upper_read {
    struct upper *u;
    struct blk_req *req;
};

static struct upper *to_upper(const struct blk_node *node)
{
    return container_of(node, struct upper, node);
}

/* ---- windows ----------------------------------------------------------------------- */

static uint64_t end_of(const struct blk_extent *e)
{
    return e->offset_bytes + e->length_bytes;
}

static struct window *find_window(struct upper *u, uint64_t pos)
{
    for (unsigned i = 0; i < MAX_WINDOWS; i++) {
        struct window *w = &u->windows[i];

        if (w->nr && pos >= w->ext[0].offset_bytes && pos < end_of(&w->ext[w->nr - 1])) {
            w->used = ++u->uses;
            return w;
        }
    }
    return NULL;
}

static unsigned find_extent(const struct window *w, uint64_t pos)
{
    unsigned low = 0, high = w->nr - 1;

    while (low < high) {
        unsigned mid = (low + high + 1) / 2;

        if (w->ext[mid].offset_bytes <= pos)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

/* Takes @ext over. */
static void add_window(struct upper *u, struct blk_extent *ext, unsigned nr)
{
    struct window *oldest = &u->windows[0];
    struct blk_extent *trimmed = realloc(ext, nr * sizeof(*ext));

    for (unsigned i = 1; i < MAX_WINDOWS; i++) {
        if (u->windows[i].used < oldest->used)
            oldest = &u->windows[i];
    }
    free(oldest->ext);
    *oldest = (struct window){trimmed ? trimmed : ext, nr, ++u->uses};
}

static void forget_windows(struct upper *u)
{
    for (unsigned i = 0; i < MAX_WINDOWS; i++)
        free(u->windows[i].ext);
    memset(u->windows, 0, sizeof(u->windows));
}

/* ---- what the source says ------------------------------------------------------------ */

/* Of the answer just heard; 0: the source doesn't tell. */
static uint32_t generation_heard(const struct upper *u)
{
    const struct blk_node *source = u->node.file.child;
    uint32_t heard;

    return blk_node_is_remote(source) && remote_tells_layers(source, &heard) ? heard : 0;
}

static void give_up_counting(struct upper *u, const struct error *err)
{
    u->changed = true;
    forget_windows(u);
    log_warn("%s: its chain has changed: what is copied can't be told by layers any more%s%s",
             u->node.file.child->filename, *err->msg ? ": " : "", err->msg);
}

/* The source's chain is not the one whose layers were counted. 0: ask again. */
static int co_count_anew(struct upper *u)
{
    struct error err = ERROR_INIT;
    unsigned layers;
    uint32_t generation;
    int ret = -ENOTSUP;

    if (u->counting) {
        co_queue_wait(&u->counted);
        return 0;
    }
    u->counting = true;
    if (u->co_count)
        ret = u->co_count(u->opaque, &layers, &generation, &err);
    u->counting = false;
    if (!ret) {
        u->layers = layers;
        u->generation = generation;
        log_info("%s: its chain has changed: %u of its layers are still needed",
                 u->node.file.child->filename, layers);
    } else if (ret != -EAGAIN && ret != -EHOSTDOWN && !u->changed) {
        give_up_counting(u, &err);
        ret = 0;
    }
    co_queue_wake_all(&u->counted);
    return ret;
}

/* 1: @ext is to be trusted; 0: ask again. */
static int co_judge_answer(struct upper *u, uint32_t asked_of)
{
    uint32_t heard = generation_heard(u);

    if (!u->generation)
        u->generation = asked_of = heard;
    if (!heard || asked_of == UPPER_ANY_GENERATION || asked_of == heard)
        return 1;
    return co_count_anew(u);
}

/* Makes a window for @pos, unless u->changed. -EAGAIN, -EHOSTDOWN: not now. */
static int co_ask(struct upper *u, uint64_t pos)
{
    struct blk_node *source = u->node.file.child;
    struct blk_extent *ext = calloc(MAX_EXTENTS, sizeof(*ext));
    int n, ret = ext ? 0 : -ENOMEM;

    for (unsigned i = 0; !ret && !u->changed; i++) {
        uint32_t asked_of = u->generation;

        n = source->drv->co_status_many(source, pos, source->size_bytes - pos, u->layers, ext,
                                        MAX_EXTENTS);
        ret = n > 0 ? co_judge_answer(u, asked_of) : n;
        if (ret > 0) {
            add_window(u, ext, (unsigned)n);
            return 0;
        }
        if (!ret && i == MAX_COUNTS)
            ret = -EAGAIN;
    }
    free(ext);
    return ret;
}

static int co_upper_status(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                           struct blk_extent *ext, unsigned max)
{
    struct upper *u = to_upper(node);
    struct window *w = find_window(u, offset);
    uint64_t end = offset + bytes;
    unsigned n = 0;
    int ret;

    (void)deepest; /* one layer, whatever it was at the source */
    if (!w && !u->changed) {
        ret = co_ask(u, offset);
        if (ret)
            return ret;
        w = find_window(u, offset);
    }
    if (!w) {
        ext[0] = (struct blk_extent){offset, bytes, BLK_ST_DATA, 0, false};
        return 1;
    }
    for (unsigned i = find_extent(w, offset); i < w->nr && n < max && offset < end; i++) {
        uint64_t to = MIN_OF(end_of(&w->ext[i]), end);

        ext[n++] = (struct blk_extent){offset, to - offset, w->ext[i].state, 0, false};
        offset = to;
    }
    return (int)n;
}

/* ---- the node ------------------------------------------------------------------------ */

static int co_read_part(struct upper *u, uint64_t offset, const struct blk_extent *e,
                        const struct iovec *iov, int n, uint32_t flags)
{
    struct blk_node *base = u->node.backing.child;
    uint64_t size = base ? base->size_bytes : 0, bytes = e->length_bytes;
    struct iovec *head;
    int ret;

    if (e->state == BLK_ST_DATA || e->state == BLK_ST_COMPRESSED)
        return co_blk_rw(u->node.file.child, BLK_READ, offset, iov, n, flags);
    if (e->state == BLK_ST_ZERO || offset >= size) {
        iov_zero(iov, n, 0, bytes);
        return 0;
    }
    if (offset + bytes <= size)
        return co_blk_rw(base, BLK_READ, offset, iov, n, flags);
    iov_zero(iov, n, size - offset, bytes - (size - offset));
    head = calloc((size_t)n, sizeof(*head));
    if (!head)
        return -ENOMEM;
    ret = iov_slice(iov, n, 0, size - offset, head, n);
    ret = co_blk_rw(base, BLK_READ, offset, head, ret, flags);
    free(head);
    return ret;
}

static int co_read(struct upper *u, struct blk_req *req)
{
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes;
    uint32_t align = u->node.limits.align_bytes;
    struct iovec *part = calloc((size_t)req->niov, sizeof(*part));
    struct blk_extent ext;
    int ret = part ? 0 : -ENOMEM, n;

    while (pos < end && !ret) {
        ret = co_upper_status(&u->node, pos, end - pos, 0, &ext, 1);
        if (ret == -EAGAIN) { /* it can't tell now, but it has all of it */
            ext = (struct blk_extent){pos, end - pos, BLK_ST_DATA, 0, false};
            ret = 0;
        }
        if (ret < 0)
            break;
        if ((pos + ext.length_bytes) % align && pos + ext.length_bytes < end) {
            ext.length_bytes = MIN_OF(round_up_pow2(pos + ext.length_bytes, align), end) - pos;
            ext.state = BLK_ST_DATA; /* the source has all of it */
        }
        n = iov_slice(req->iov, req->niov, pos - req->offset_bytes, ext.length_bytes, part,
                      req->niov);
        ret = co_read_part(u, pos, &ext, part, n, req->flags);
        pos += ext.length_bytes;
    }
    free(part);
    return ret;
}

static void co_run_read(void *arg)
{
    struct upper_read *r = arg;
    struct blk_req *req = r->req;
    int ret = co_read(r->u, req);

    free(r);
    blk_complete(req, ret);
}

static void upper_read(struct blk_node *node, struct blk_req *req)
{
    struct upper_read *r = malloc(sizeof(*r));

    if (!r) {
        blk_complete(req, -ENOMEM);
        return;
    }
    *r = (struct upper_read){to_upper(node), req};
    co_spawn(co_run_read, r);
}

/* Guests' questions never reach the source: what is not here counts as data. */
static void upper_status(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    req->extent = (struct blk_extent){req->offset_bytes, req->length_bytes, BLK_ST_DATA, 0, false};
    blk_complete(req, 0);
}

static void upper_flush(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    blk_complete(req, 0); /* never written */
}

static void co_upper_close(struct blk_node *node)
{
    forget_windows(to_upper(node));
}

static const struct blk_driver upper_driver = {
    .name = "source-layers",
    .instance_bytes = sizeof(struct upper),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = upper_read,
            [BLK_STATUS] = upper_status,
            [BLK_FLUSH] = upper_flush,
        },
    .co_close = co_upper_close,
    .co_status_many = co_upper_status,
};

struct blk_node *upper_node_new(struct blk_node *source, unsigned layers, struct blk_node *base,
                                uint32_t generation)
{
    struct blk_node *node = blk_node_new(&upper_driver, NULL);
    struct upper *u;

    if (!node)
        return NULL;
    u = to_upper(node);
    u->layers = layers;
    u->generation = generation;
    co_queue_init(&u->counted);
    node->size_bytes = source->size_bytes;
    node->limits.align_bytes =
        MAX_OF(source->limits.align_bytes, base ? base->limits.align_bytes : 1);
    node->read_only = true;
    if (source->filename)
        node->filename = strdup(source->filename);
    blk_set_file(node, source);
    blk_set_backing(node, base);
    return node;
}

void upper_set_count(struct blk_node *upper, upper_count_fn co_count, void *opaque)
{
    to_upper(upper)->co_count = co_count;
    to_upper(upper)->opaque = opaque;
}

struct blk_node *upper_source(const struct blk_node *node)
{
    return node->drv == &upper_driver ? node->file.child : NULL;
}
