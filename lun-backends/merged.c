/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Merged maps: making, looking up, reading through them, forgetting. See merged.h.
 *
 * A read inside one run of a known range costs a hash lookup and a binary search, and goes on as
 * the same request. One that spans runs becomes parts submitted at once; a range that is not known
 * is worked out in a coroutine, once, however many wait for it.
 */
#include "lun-backends/merged.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "lun-backends/merged-int.h"
#include "util/size.h"

#define MAX_BYTES_DEFAULT (UINT64_C(32) << 20)
#define MAX_LAYERS        4096
#define MIN_BUCKETS       64
#define MAX_BUCKETS       65536

static uint64_t max_bytes = MAX_BYTES_DEFAULT;

void merged_set_max_bytes(uint64_t bytes)
{
    max_bytes = bytes;
}

/* ---- a map's life ------------------------------------------------------------------------ */

static bool can_cover(const struct blk_node *node, const struct blk_node *top)
{
    return node->read_only && node->drv->co_locate &&
           node->limits.align_bytes <= top->limits.align_bytes;
}

static unsigned count_layers(const struct blk_node *top)
{
    unsigned n = 0;

    for (const struct blk_node *node = top; node && n < MAX_LAYERS; node = node->backing.child) {
        if (!can_cover(node, top))
            break;
        n++;
    }
    return n;
}

static struct merged_map *map_new(struct blk_node *top, unsigned nr_layers)
{
    struct merged_map *map = calloc(1, sizeof(*map));
    uint64_t end = UINT64_MAX, ranges = top->size_bytes >> MERGED_RANGE_BITS;
    uint32_t buckets = MIN_BUCKETS;

    if (!map)
        return NULL;
    while (buckets < ranges && buckets < MAX_BUCKETS)
        buckets *= 2;
    map->layers = calloc(nr_layers, sizeof(*map->layers));
    map->hash = calloc(buckets, sizeof(*map->hash));
    if (!map->layers || !map->hash) {
        free(map->layers);
        free(map->hash);
        free(map);
        return NULL;
    }
    map->refs = 1;
    map->hash_mask = buckets - 1;
    map->max_bytes = max_bytes;
    list_init(&map->lru);
    for (struct blk_node *node = top; map->nr_layers < nr_layers; node = node->backing.child) {
        struct merged_layer *layer = &map->layers[map->nr_layers++];

        end = MIN_OF(end, node->size_bytes);
        *layer = (struct merged_layer){.node = node, .end_bytes = end};
        map->open_end = node->backing.child;
        if (node->drv->set_covered)
            node->drv->set_covered(node, true);
    }
    return map;
}

static void range_free(struct merged_map *map, struct merged_range *r)
{
    struct merged_range **p = &map->hash[r->index & map->hash_mask];

    while (*p != r)
        p = &(*p)->hash_next;
    *p = r->hash_next;
    list_del(&r->lru);
    map->bytes -= sizeof(*r) + r->nr_runs * sizeof(*r->runs);
    free(r->runs);
    free(r);
}

static void map_unref(struct merged_map *map)
{
    struct merged_range *r, *tmp;

    if (--map->refs)
        return;
    list_for_each_entry_safe (r, tmp, &map->lru, lru)
        range_free(map, r);
    free(map->hash);
    free(map->layers);
    free(map);
}

/* What can be merged at @node: two layers at least. Out of memory: not now. */
static bool decide(struct blk_node *node)
{
    unsigned nr = node->read_only && node->backing.child ? count_layers(node) : 0;

    node->merge_decided = true;
    if (nr >= 2)
        node->merged = map_new(node, nr);
    return node->merged;
}

void merged_forget(struct blk_node *node)
{
    struct merged_map *map = node->merged;
    struct blk_edge *edge;

    node->merge_decided = false;
    node->merged = NULL;
    if (map) {
        for (unsigned i = 0; i < map->nr_layers; i++)
            if (map->layers[i].node->drv->set_covered)
                map->layers[i].node->drv->set_covered(map->layers[i].node, false);
        map_unref(map);
    }
    list_for_each_entry (edge, &node->parents, link)
        if (edge->parent_node)
            merged_forget(edge->parent_node);
}

bool merged_get_stats(const struct blk_node *node, struct merged_stats *stats)
{
    const struct merged_map *map = node->merged;

    if (map)
        *stats = (struct merged_stats){map->nr_layers, map->hits, map->misses, map->bytes,
                                       map->max_bytes};
    return map;
}

/* ---- ranges -------------------------------------------------------------------------------- */

static struct merged_range *lookup(struct merged_map *map, uint64_t index)
{
    struct merged_range *r = map->hash[index & map->hash_mask];

    while (r && r->index != index)
        r = r->hash_next;
    return r;
}

static void make_room(struct merged_map *map)
{
    struct merged_range *r, *tmp;

    list_for_each_entry_safe (r, tmp, &map->lru, lru) {
        if (map->bytes <= map->max_bytes)
            return;
        if (!r->pins)
            range_free(map, r);
    }
}

static struct merged_range *range_new(struct merged_map *map, uint64_t index)
{
    struct merged_range *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->index = index;
    co_queue_init(&r->waiters);
    list_init(&r->lru);
    r->hash_next = map->hash[index & map->hash_mask];
    map->hash[index & map->hash_mask] = r;
    map->bytes += sizeof(*r);
    return r;
}

/* Ready and pinned, or NULL: out of memory. */
static struct merged_range *co_range_get(struct merged_map *map, uint64_t index)
{
    struct merged_range *r = lookup(map, index);
    uint64_t start = index << MERGED_RANGE_BITS;
    int ret;

    if (r) {
        r->pins++;
        while (!r->ready)
            co_queue_wait(&r->waiters);
        ret = r->error;
    } else {
        r = range_new(map, index);
        if (!r)
            return NULL;
        r->pins++;
        map->misses++;
        ret = co_merged_build(map, r, MIN_OF(MERGED_RANGE_BYTES, map->layers[0].end_bytes - start));
        map->bytes += r->nr_runs * sizeof(*r->runs);
        r->ready = true;
        r->error = ret;
        list_add_tail(&map->lru, &r->lru);
        co_queue_wake_all(&r->waiters);
        make_room(map);
    }
    if (!ret)
        return r;
    if (!--r->pins)
        range_free(map, r);
    return NULL;
}

static const struct merged_run *find_run(const struct merged_range *r, uint32_t in_range)
{
    uint32_t low = 0, high = r->nr_runs;

    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;

        if (r->runs[mid].start_bytes <= in_range)
            low = mid;
        else
            high = mid;
    }
    return &r->runs[low];
}

/* ---- reads --------------------------------------------------------------------------------- */

/* In req->scratch of a read that is not one run. */
struct read_op {
    struct merged_map *map;
    uint64_t pos;
    uint32_t pending, result_flags;
    int result;
};

static struct read_op *op_of(struct blk_req *req)
{
    _Static_assert(sizeof(struct read_op) <= sizeof(req->scratch), "read_op fits the scratch");
    return (struct read_op *)&req->scratch;
}

static void op_put(struct blk_req *req)
{
    struct read_op *op = op_of(req);
    int result = op->result;

    if (--op->pending)
        return;
    req->result_flags |= op->result_flags;
    map_unref(op->map);
    blk_complete(req, result);
}

static void part_done(struct blk_req *part)
{
    struct blk_req *req = part->opaque;
    struct read_op *op = op_of(req);

    if (part->result && !op->result)
        op->result = part->result;
    op->result_flags |= part->result_flags;
    blk_part_put(part, req);
    op_put(req);
}

/* Whether the host node takes [offset, offset + bytes) as it is. */
static bool host_takes(const struct blk_node *host, uint64_t offset, uint64_t bytes)
{
    return !((offset | bytes) & (host->limits.align_bytes - 1));
}

/* @part starts at @pos of the disk and lies inside @run, which is not ZERO. */
static void submit_part(struct merged_map *map, const struct merged_run *run, uint64_t in_run,
                        uint64_t pos, struct blk_req *part)
{
    struct merged_layer *layer = &map->layers[run->layer];

    part->flags |= BLK_BY_LAYER;
    part->offset_bytes = pos;
    if (run->kind == BLK_PLACE_HOST &&
        host_takes(layer->host, run->host_offset_bytes + in_run, part->length_bytes)) {
        part->offset_bytes = run->host_offset_bytes + in_run;
        blk_submit(layer->host, part);
    } else if (run->kind == BLK_PLACE_BELOW) {
        part->flags &= ~(uint32_t)BLK_BY_LAYER;
        blk_submit_backing(layer->node, part);
    } else if (run->layer) {
        blk_submit_backing(layer[-1].node, part);
    } else {
        blk_submit(layer->node, part);
    }
}

/* Takes what @r knows from op->pos on. */
static void submit_range(struct blk_req *req, const struct merged_range *r)
{
    struct read_op *op = op_of(req);
    uint64_t start = r->index << MERGED_RANGE_BITS;
    uint64_t end = MIN_OF(req->offset_bytes + req->length_bytes, start + MERGED_RANGE_BYTES);
    const struct merged_run *run = find_run(r, (uint32_t)(op->pos - start));

    for (; op->pos < end && !op->result; run++) {
        bool last = run + 1 == r->runs + r->nr_runs;
        uint64_t run_end = last ? end : MIN_OF(end, start + run[1].start_bytes);
        uint64_t from = op->pos - req->offset_bytes, bytes = run_end - op->pos;
        struct blk_req *part;

        if (run->layer && run->kind != BLK_PLACE_ZERO)
            op->result_flags |= BLK_R_FROM_BACKING;
        if (run->kind == BLK_PLACE_ZERO) {
            iov_zero(req->iov, req->niov, from, bytes);
        } else if ((part = blk_part_get(req, from, bytes))) {
            part->done = part_done;
            op->pending++;
            submit_part(op->map, run, op->pos - start - run->start_bytes, op->pos, part);
        } else {
            op->result = -ENOMEM;
        }
        op->pos = run_end;
    }
}

static void read_co(void *arg)
{
    struct blk_req *req = arg;
    struct read_op *op = op_of(req);
    uint64_t end = req->offset_bytes + req->length_bytes;

    while (op->pos < end && !op->result) {
        struct merged_range *r = co_range_get(op->map, op->pos >> MERGED_RANGE_BITS);

        if (!r) {
            op->result = -ENOMEM;
            break;
        }
        submit_range(req, r);
        r->pins--;
    }
    op_put(req);
}

static void read_split(struct merged_map *map, struct blk_req *req)
{
    struct read_op *op = op_of(req);
    uint64_t end = req->offset_bytes + req->length_bytes;

    *op = (struct read_op){.map = map, .pos = req->offset_bytes, .pending = 1};
    map->refs++;
    while (op->pos < end && !op->result) {
        struct merged_range *r = lookup(map, op->pos >> MERGED_RANGE_BITS);

        if (!r || !r->ready || r->error) {
            co_spawn(read_co, req);
            return;
        }
        submit_range(req, r);
    }
    op_put(req);
}

/* The whole of @req in one run that needs no part: sent on, or answered. */
static bool read_one(struct merged_map *map, struct merged_range *r, struct blk_req *req)
{
    uint64_t in_range = req->offset_bytes & (MERGED_RANGE_BYTES - 1);
    const struct merged_run *run = find_run(r, (uint32_t)in_range);
    uint64_t run_end = run + 1 == r->runs + r->nr_runs ? MERGED_RANGE_BYTES : run[1].start_bytes;
    uint64_t host = run->host_offset_bytes + (in_range - run->start_bytes);
    struct merged_layer *layer = &map->layers[run->layer];

    if (in_range + req->length_bytes > run_end)
        return false;
    if (run->kind == BLK_PLACE_ZERO) {
        iov_zero(req->iov, req->niov, 0, req->length_bytes);
        blk_complete(req, 0);
        return true;
    }
    if (run->kind != BLK_PLACE_HOST || !host_takes(layer->host, host, req->length_bytes))
        return false;
    if (run->layer)
        req->result_flags |= BLK_R_FROM_BACKING;
    req->offset_bytes = host;
    blk_forward(layer->host, req);
    return true;
}

bool merged_take_read(struct blk_node *node, struct blk_req *req)
{
    struct merged_map *map = node->merged;
    struct merged_range *r;

    if (!map && (node->merge_decided || !decide(node)))
        return false;
    if (req->flags & (BLK_BY_LAYER | BLK_LOCAL_ONLY))
        return false;
    map = node->merged;
    r = lookup(map, req->offset_bytes >> MERGED_RANGE_BITS);
    if (r && r->ready && !r->error) {
        map->hits++;
        list_del(&r->lru);
        list_add_tail(&map->lru, &r->lru);
        if (read_one(map, r, req))
            return true;
    }
    read_split(map, req);
    return true;
}
