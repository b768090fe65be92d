/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mapping of a chain as extents with depth, the way `qemu-img map` tells it.
 *
 * Each level keeps its last answer, so a level is asked again only where that answer ends, and a
 * call costs at most MAX_LOOKUPS questions whatever the chain looks like. A job's walk asks sources
 * on other hosts too, many extents at a time.
 */
#include <errno.h>
#include <stdlib.h>

#include "lun-backends/block.h"
#include "util/cow-wire.h"
#include "util/size.h"

#define MAX_LOOKUPS 4096
#define MAX_LEVELS  (COWL_NO_DEPTH - 1)
#define MAX_MANY    1024

/* What a source said; those before @next are behind the walk. */
struct many {
    unsigned nr, next;
    struct blk_extent ext[MAX_MANY];
};

struct level {
    struct blk_node *node; /* holds a reference */
    struct blk_extent say; /* length 0: not asked yet */
    struct many *many;     /* of a level that is asked for many at a time */
};

struct walk {
    struct level *levels;
    unsigned nr_levels;
    uint64_t end_bytes;
    unsigned lookups_left;
    unsigned deepest; /* 0: all */
    bool ask_sources;
};

static struct blk_node *skip_filters(struct blk_node *node)
{
    while (node && node->drv->is_filter)
        node = node->file.child;
    return node;
}

static int walk_init(struct walk *w, struct blk_node *top, unsigned deepest)
{
    unsigned max = deepest && deepest < MAX_LEVELS ? deepest : MAX_LEVELS;
    struct blk_node *node;
    unsigned n = 0;

    for (node = skip_filters(top); node && n < max; node = skip_filters(node->backing.child))
        n++;
    w->levels = calloc(n ? n : 1, sizeof(w->levels[0]));
    if (!w->levels)
        return -ENOMEM;
    for (node = skip_filters(top); w->nr_levels < n; node = skip_filters(node->backing.child))
        w->levels[w->nr_levels++].node = blk_node_ref(node);
    return n ? 0 : -EINVAL;
}

static void co_walk_release(struct walk *w)
{
    for (unsigned i = 0; i < w->nr_levels; i++)
        co_blk_node_unref(w->levels[i].node);
    for (unsigned i = 0; i < w->nr_levels; i++)
        free(w->levels[i].many);
    free(w->levels);
}

/* Makes l->say cover @pos out of what a source says, asking it where its last answer ends. */
static int co_level_ask_many(struct walk *w, struct level *l, uint64_t pos)
{
    unsigned deepest = w->deepest ? w->deepest - (unsigned)(l - w->levels) : 0;
    struct many *m = l->many;
    int n;

    if (!m && !(m = l->many = calloc(1, sizeof(*m))))
        return -ENOMEM;
    while (m->next < m->nr && pos >= m->ext[m->next].offset_bytes + m->ext[m->next].length_bytes)
        m->next++;
    if (m->next == m->nr) {
        w->lookups_left -= w->lookups_left > 0;
        n = l->node->drv->co_status_many(l->node, pos,
                                         MIN_OF(w->end_bytes, l->node->size_bytes) - pos, deepest,
                                         m->ext, MAX_MANY);
        if (n <= 0)
            return n ? n : -EIO;
        m->nr = (unsigned)n;
        m->next = 0;
    }
    l->say = m->ext[m->next];
    return 0;
}

/* Makes l->say cover @pos, which is inside the level's size. */
static int co_level_ask(struct walk *w, struct level *l, uint64_t pos)
{
    if (pos >= l->say.offset_bytes && pos - l->say.offset_bytes < l->say.length_bytes)
        return 0;
    if (w->ask_sources && l->node->drv->co_status_many)
        return co_level_ask_many(w, l, pos);
    w->lookups_left -= w->lookups_left > 0;
    return co_blk_status(l->node, pos, MIN_OF(w->end_bytes, l->node->size_bytes) - pos, &l->say);
}

/* The deciding layer at @pos, and how far everything that led to it holds. */
static int co_decide(struct walk *w, uint64_t pos, struct blk_extent *out)
{
    uint64_t end = w->end_bytes;

    for (unsigned depth = 0; depth < w->nr_levels; depth++) {
        struct level *l = &w->levels[depth];
        int ret;

        if (pos >= l->node->size_bytes) {
            if (!depth)
                return -EINVAL;
            *out = (struct blk_extent){pos, end - pos, BLK_ST_ZERO, (uint16_t)(depth - 1), false};
            return 0;
        }
        ret = co_level_ask(w, l, pos);
        if (ret)
            return ret;
        end = MIN_OF(end, l->say.offset_bytes + l->say.length_bytes);
        if (l->say.state != BLK_ST_UNALLOCATED) {
            *out = (struct blk_extent){pos, end - pos, l->say.state,
                                       (uint16_t)MIN_OF(depth + l->say.depth, MAX_LEVELS),
                                       l->say.anchored};
            return 0;
        }
    }
    *out = (struct blk_extent){pos, end - pos, BLK_ST_UNALLOCATED, COWL_NO_DEPTH, false};
    return 0;
}

static bool joins(const struct blk_extent *a, const struct blk_extent *b)
{
    return a->state == b->state && a->depth == b->depth && a->anchored == b->anchored &&
           a->offset_bytes + a->length_bytes == b->offset_bytes;
}

static int co_walk(struct walk *w, uint64_t pos, struct blk_extent *ext, unsigned max)
{
    unsigned n = 0;

    while (pos < w->end_bytes && w->lookups_left) {
        struct blk_extent e;
        int ret = co_decide(w, pos, &e);

        if (ret)
            return n ? (int)n : ret;
        if (n && joins(&ext[n - 1], &e))
            ext[n - 1].length_bytes += e.length_bytes;
        else if (n == max)
            break;
        else
            ext[n++] = e;
        pos += e.length_bytes;
    }
    return (int)n;
}

static int co_walk_from(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                        bool ask_sources, struct blk_extent *ext, unsigned max)
{
    struct walk w = {
        .lookups_left = MAX_LOOKUPS,
        .deepest = deepest,
        .ask_sources = ask_sources,
    };
    int ret;

    if (!max || !bytes || offset >= node->size_bytes || bytes > node->size_bytes - offset)
        return -EINVAL;
    w.end_bytes = offset + bytes;
    ret = walk_init(&w, node, deepest);
    if (!ret)
        ret = co_walk(&w, offset, ext, max);
    co_walk_release(&w);
    return ret;
}

int co_blk_status_walk(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                       struct blk_extent *ext, unsigned max)
{
    return co_walk_from(node, offset, bytes, deepest, false, ext, max);
}

int co_blk_job_status_walk(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                           struct blk_extent *ext, unsigned max)
{
    return co_walk_from(node, offset, bytes, deepest, true, ext, max);
}
