/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Working out who decides each piece of a range. Every layer keeps its last answer, so it is asked
 * again only where that ends.
 */
#include <errno.h>
#include <stdlib.h>

#include "lun-backends/merged-int.h"
#include "util/size.h"

struct level {
    struct blk_place say;
    uint64_t from_bytes; /* @say covers [from, from + say.length) */
};

struct build {
    struct merged_map *map;
    struct level *levels;
    uint64_t start_bytes, end_bytes;
    struct merged_run *runs;
    uint32_t nr, max;
};

/* Makes the level's answer cover @pos, which is before the layer's visible end. */
static void co_ask(struct build *b, unsigned i, uint64_t pos)
{
    struct merged_layer *layer = &b->map->layers[i];
    struct level *l = &b->levels[i];
    uint64_t bytes = MIN_OF(b->end_bytes, layer->end_bytes) - pos;

    if (pos >= l->from_bytes && pos - l->from_bytes < l->say.length_bytes)
        return;
    l->from_bytes = pos;
    if (layer->node->drv->co_locate(layer->node, pos, bytes, &l->say))
        l->say = (struct blk_place){.kind = BLK_PLACE_ASK, .length_bytes = bytes};
    if (l->say.kind == BLK_PLACE_HOST)
        layer->host = l->say.host;
}

/* The deciding layer at @pos, and up to where everything that led to it holds. */
static uint64_t co_decide(struct build *b, uint64_t pos, struct merged_run *run)
{
    struct merged_map *map = b->map;
    uint64_t end = b->end_bytes;

    *run = (struct merged_run){.start_bytes = (uint32_t)(pos - b->start_bytes)};
    for (unsigned i = 0; i < map->nr_layers; i++) {
        struct level *l = &b->levels[i];

        if (pos >= map->layers[i].end_bytes) {
            run->kind = BLK_PLACE_ZERO;
            return end;
        }
        end = MIN_OF(end, map->layers[i].end_bytes);
        co_ask(b, i, pos);
        end = MIN_OF(end, l->from_bytes + l->say.length_bytes);
        run->layer = (uint16_t)i;
        run->kind = l->say.kind;
        run->host_offset_bytes = l->say.host_offset_bytes + (pos - l->from_bytes);
        if (l->say.kind != BLK_PLACE_BELOW)
            return end;
    }
    if (!map->open_end)
        run->kind = BLK_PLACE_ZERO;
    return end;
}

static bool continues(const struct merged_run *a, const struct merged_run *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == BLK_PLACE_HOST &&
        b->host_offset_bytes != a->host_offset_bytes + (b->start_bytes - a->start_bytes))
        return false;
    return a->kind == BLK_PLACE_ZERO || a->layer == b->layer;
}

static int add(struct build *b, const struct merged_run *run)
{
    struct merged_run *more;

    if (b->nr && continues(&b->runs[b->nr - 1], run))
        return 0;
    if (b->nr == b->max) {
        b->max = b->max ? b->max * 2 : 8;
        more = realloc(b->runs, b->max * sizeof(*more));
        if (!more)
            return -ENOMEM;
        b->runs = more;
    }
    b->runs[b->nr++] = *run;
    return 0;
}

int co_merged_build(struct merged_map *map, struct merged_range *r, uint64_t bytes)
{
    struct build b = {.map = map, .start_bytes = r->index << MERGED_RANGE_BITS};
    struct merged_run run, *fit;
    uint64_t pos = b.start_bytes;
    int ret = 0;

    b.end_bytes = b.start_bytes + bytes;
    b.levels = calloc(map->nr_layers, sizeof(*b.levels));
    if (!b.levels)
        return -ENOMEM;
    while (pos < b.end_bytes && !ret) {
        pos = co_decide(&b, pos, &run);
        ret = add(&b, &run);
    }
    free(b.levels);
    if (ret) {
        free(b.runs);
        return ret;
    }
    fit = realloc(b.runs, b.nr * sizeof(*fit));
    r->runs = fit ? fit : b.runs;
    r->nr_runs = b.nr;
    return 0;
}
