/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Caches of metadata slices, bounded in bytes, least recently used first out.
 * Invariant: a slice that is pinned, dirty or being loaded is never dropped; the bound is passed
 * only by such slices, whose number is bounded by requests in flight and the dirty limit.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/size.h"

#define MIN_SLICES 16
#define MAX_SLICES (UINT32_C(1) << 24)

static uint32_t bucket_of(const struct qcache *c, uint64_t index)
{
    return (uint32_t)((index * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & c->hash_mask;
}

static void slice_drop(struct qcache *c, struct qslice *s)
{
    struct qslice **p = &c->hash[bucket_of(c, s->index)];

    while (*p != s)
        p = &(*p)->hash_next;
    *p = s->hash_next;
    list_del(&s->lru);
    free(s->data);
    free(s);
    c->nr--;
}

int qcache_init(struct qcache *c, uint32_t slice_bytes, uint64_t max_bytes)
{
    c->slice_bytes = slice_bytes;
    list_init(&c->lru);
    list_init(&c->dirty);
    return qcache_set_max(c, max_bytes);
}

int qcache_set_max(struct qcache *c, uint64_t max_bytes)
{
    uint64_t max = MIN_OF(MAX_OF(max_bytes / c->slice_bytes, MIN_SLICES), MAX_SLICES);
    struct qslice **hash, *s, *tmp;
    uint32_t buckets = 64;

    while (buckets < max)
        buckets *= 2;
    hash = calloc(buckets, sizeof(*hash));
    if (!hash)
        return -ENOMEM;
    free(c->hash);
    c->hash = hash;
    c->hash_mask = buckets - 1;
    c->max = (unsigned)max;
    list_for_each_entry_safe (s, tmp, &c->lru, lru) {
        struct qslice **bucket = &c->hash[bucket_of(c, s->index)];

        s->hash_next = *bucket;
        *bucket = s;
        if (c->nr > c->max && !s->pins && !s->dirty && !s->loading)
            slice_drop(c, s);
    }
    return 0;
}

void qcache_free(struct qcache *c)
{
    struct qslice *s, *tmp;

    if (!c->hash)
        return;
    list_for_each_entry_safe (s, tmp, &c->lru, lru)
        slice_drop(c, s);
    free(c->hash);
    c->hash = NULL;
}

static struct qslice *lookup(struct qcache *c, uint64_t index)
{
    struct qslice *s = c->hash[bucket_of(c, index)];

    while (s && s->index != index)
        s = s->hash_next;
    return s;
}

static void touch(struct qcache *c, struct qslice *s)
{
    list_del(&s->lru);
    list_add_tail(&c->lru, &s->lru);
}

void qcache_forget(struct qcache *c, uint64_t index)
{
    struct qslice *s = lookup(c, index);

    if (s && !s->pins && !s->dirty && !s->loading)
        slice_drop(c, s);
}

struct qslice *qcache_find(struct qcache *c, uint64_t index)
{
    struct qslice *s = lookup(c, index);

    if (!s || s->loading || s->error)
        return NULL;
    touch(c, s);
    return s;
}

/* Looks at a few of the oldest; those in use go to the young end, so that the next look is not
 * at the same ones. */
static void make_room(struct qcache *c)
{
    for (unsigned tries = 0; c->nr >= c->max && tries < 16 && !list_empty(&c->lru); tries++) {
        struct qslice *s = list_first_entry(&c->lru, struct qslice, lru);

        if (s->pins || s->dirty || s->loading)
            touch(c, s);
        else
            slice_drop(c, s);
    }
}

static struct qslice *slice_new(struct qcache *c, uint64_t index)
{
    struct qslice *s = calloc(1, sizeof(*s));
    struct qslice **bucket = &c->hash[bucket_of(c, index)];

    if (!s)
        return NULL;
    s->data = aligned_alloc(c->slice_bytes, c->slice_bytes);
    if (!s->data) {
        free(s);
        return NULL;
    }
    make_room(c);
    s->index = index;
    s->pins = 1;
    co_queue_init(&s->waiters);
    list_init(&s->dirty_link);
    s->hash_next = *bucket;
    *bucket = s;
    list_add_tail(&c->lru, &s->lru);
    c->nr++;
    return s;
}

/* A table that reaches past the end of the file has zeros there. */
static int co_load(struct qcow2 *q, struct qcache *c, uint64_t offset, uint8_t *data)
{
    uint64_t file_bytes = qcow2_file(q)->size_bytes;
    size_t bytes = c->slice_bytes;

    if (offset >= file_bytes)
        return qcow2_corrupt(q, "table at %#" PRIx64 " is outside the file", offset);
    bytes = MIN_OF(bytes, file_bytes - offset);
    memset(data + bytes, 0, c->slice_bytes - bytes);
    return co_blk_read(qcow2_file(q), offset, data, bytes, BLK_META);
}

int co_qcache_get(struct qcow2 *q, struct qcache *c, uint64_t index, uint64_t file_offset,
                  struct qslice **out)
{
    struct qslice *s = lookup(c, index);
    int ret = 0;

    if (s) {
        s->pins++;
        touch(c, s);
        q->stats.hits += !s->loading;
        while (s->loading)
            co_queue_wait(&s->waiters);
        ret = s->error;
    } else {
        s = slice_new(c, index);
        if (!s)
            return -ENOMEM;
        q->stats.misses++;
        s->loading = true;
        ret = co_load(q, c, file_offset, s->data);
        s->loading = false;
        s->error = ret;
        co_queue_wake_all(&s->waiters);
    }
    if (ret) {
        if (--s->pins == 0)
            slice_drop(c, s);
        return ret;
    }
    *out = s;
    return 0;
}

int qcache_add_zeroed(struct qcache *c, uint64_t index, struct qslice **out)
{
    struct qslice *s = lookup(c, index);

    if (s) {
        s->pins++;
    } else {
        s = slice_new(c, index);
        if (!s)
            return -ENOMEM;
    }
    memset(s->data, 0, c->slice_bytes);
    *out = s;
    return 0;
}

void qcache_put(struct qslice *s)
{
    s->pins--;
}

void qcache_mark_dirty(struct qcow2 *q, struct qcache *c, struct qslice *s)
{
    if (s->dirty)
        return;
    s->dirty = true;
    list_add_tail(&c->dirty, &s->dirty_link);
    c->nr_dirty++;
    qcow2_dirtied(q);
}

void qcache_mark_clean(struct qcache *c, struct qslice *s)
{
    s->dirty = false;
    list_del(&s->dirty_link);
    c->nr_dirty--;
}
