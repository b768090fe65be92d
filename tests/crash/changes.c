/* SPDX-License-Identifier: BSD-3-Clause */
/* What an image goes through once at most while requests are under way: see workload.h. */
#include "tests/crash/workload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/qcow2.h"
#include "util/size.h"

#define SECTOR RECORD_SECTOR

void world_forget_changes(struct world *w)
{
    w->resize = w->drop = (struct world_change){RECORD_NEVER, RECORD_NEVER};
    w->resize_failed = w->resize_undone = RECORD_NEVER;
    w->limit_bytes = 0;
}

uint64_t world_disk_bytes(const struct world *w)
{
    return w->limit_bytes ? MIN_OF(w->limit_bytes, w->node->size_bytes) : w->node->size_bytes;
}

/* ---- the backing ---------------------------------------------------------------------- */

/* Makes all of the disk local, while the workers go on, and drops the backing. */
static void co_stream_and_drop(struct world *w)
{
    uint64_t disk = w->node->size_bytes / SECTOR, step = 128;
    uint8_t *buf = malloc(step * SECTOR);
    struct blk_extent ext;
    struct error err = ERROR_INIT;

    for (uint64_t s = 0; buf && s < disk && !w->failure[0]; s += step)
        co_world_keep(w, s, MIN_OF(step, disk - s), buf);
    free(buf);
    if (!buf || w->failure[0])
        return;
    co_blk_drain_begin(w->node);
    for (uint64_t at = 0; at < disk * SECTOR; at += ext.length_bytes)
        if (co_blk_status(w->node, at, disk * SECTOR - at, &ext) ||
            ext.state == BLK_ST_UNALLOCATED) {
            if (!w->faults)
                world_fail(w, "byte %llu is still not local", (unsigned long long)at);
            blk_drain_end(w->node);
            return;
        }
    w->drop.start = record_tick(w->rec);
    if (!w->node->drv->co_change_backing(w->node, NULL, NULL, &err)) {
        w->drop.end = record_tick(w->rec);
        blk_set_backing(w->node, NULL);
        w->has_backing = false;
    } else if (!w->faults) {
        world_fail(w, "dropping the backing: %s", err.msg);
    }
    blk_drain_end(w->node);
}

/* Another name for the same backing, shorter or longer. */
static void co_rename_backing(struct world *w)
{
    char name[600] = "";
    struct error err = ERROR_INIT;
    int ret;

    for (uint64_t n = rnd_below(&w->rnd, rnd_one_in(&w->rnd, 2) ? 8 : 280); n; n--)
        strcat(name, "./");
    strcat(name, BACKING_NAME);
    co_blk_drain_begin(w->node);
    ret =
        w->node->drv->co_change_backing(w->node, name, rnd_one_in(&w->rnd, 4) ? NULL : "raw", &err);
    if (ret && ret != -ENOSPC && !w->faults) /* no room in a small header cluster */
        world_fail(w, "changing the backing's name: %s", err.msg);
    blk_drain_end(w->node);
}

/* ---- the size --------------------------------------------------------------------------- */

static bool is_qcow2(const struct blk_node *node)
{
    return !strcmp(node->drv->name, "qcow2");
}

/* What stays of the new last cluster is made zeros before the new size is written. */
static uint64_t end_of_tail(const struct world *w, uint64_t size_bytes)
{
    struct qcow2_info info;

    if (!is_qcow2(w->node))
        return size_bytes;
    qcow2_get_info(w->node, &info);
    return MIN_OF(round_up_pow2(size_bytes, info.cluster_bytes), w->node->size_bytes);
}

static void note_tail(struct world *w, uint64_t from, uint64_t to)
{
    uint32_t op = versions_add_op(&w->ver, VERSION_ZERO, w->resize.start, RECORD_NEVER, false);

    for (uint64_t s = from / SECTOR; s < to / SECTOR; s++)
        versions_add_sector(&w->ver, s, op);
}

/* It has the old size still; the tail is as it was, or zeros, sector by sector. */
static void co_settle_tail(struct world *w, uint64_t from, uint64_t to, const uint32_t *before)
{
    uint64_t sectors = (to - from) / SECTOR, now = record_tick(w->rec);
    uint8_t *buf = malloc(to - from);

    if (buf && sectors && !co_world_ask(w, BLK_READ, from / SECTOR, sectors, buf, 0))
        for (uint64_t i = 0; i < sectors; i++) {
            uint64_t sector = from / SECTOR + i;
            uint32_t found = version_of(buf + i * SECTOR, sector);

            if (found != VERSION_ZERO && found != before[i])
                world_fail(w, "sector %llu reads version %d after a resize that failed",
                           (unsigned long long)sector, (int)found);
            versions_add_sector(
                &w->ver, sector,
                versions_add_op(&w->ver, before[i], w->resize.start, RECORD_NEVER, false));
            versions_add_sector(&w->ver, sector,
                                versions_add_op(&w->ver, found, w->resize.start, now, false));
        }
    free(buf);
}

static int co_set_size(struct world *w, uint64_t size_bytes, struct error *err)
{
    bool smaller = size_bytes < w->node->size_bytes;
    int ret = smaller && is_qcow2(w->node) ? co_qcow2_shrink(w->node, size_bytes, err)
                                           : w->node->drv->co_resize(w->node, size_bytes, err);

    return w->node->size_bytes == size_bytes ? 0 : ret; /* what is not free yet does no harm */
}

void co_world_resize(struct world *w, uint64_t size_bytes)
{
    bool smaller = size_bytes < w->node->size_bytes;
    uint64_t tail = smaller ? end_of_tail(w, size_bytes) : size_bytes;
    uint32_t *before = calloc((tail - size_bytes) / SECTOR + 1, sizeof(*before));
    struct error err = ERROR_INIT;

    w->limit_bytes = smaller ? size_bytes : 0;
    while (smaller && world_is_busy(w, size_bytes / SECTOR, w->node->size_bytes / SECTOR))
        co_queue_wait(&w->progress);
    for (uint64_t s = size_bytes; before && s < tail; s += SECTOR)
        before[(s - size_bytes) / SECTOR] = versions_now(&w->ver, s / SECTOR);
    w->new_disk_bytes = size_bytes;
    co_blk_drain_begin(w->node);
    w->resize.start = record_tick(w->rec);
    note_tail(w, size_bytes, tail);
    if (before && !co_set_size(w, size_bytes, &err)) {
        w->resize.end = record_tick(w->rec);
    } else {
        w->resize_failed = record_tick(w->rec);
        if (!w->faults)
            world_fail(w, "resizing: %s", err.msg);
    }
    blk_drain_end(w->node);
    if (w->resize_failed != RECORD_NEVER && before)
        co_settle_tail(w, size_bytes, tail, before);
    w->limit_bytes = 0;
    free(before);
}

static void co_any_size(struct world *w)
{
    uint64_t disk = w->disk_bytes / SECTOR, max = w->ver.nr_sectors;

    if (disk < max && rnd_one_in(&w->rnd, 2))
        co_world_resize(w, (disk + 1 + rnd_below(&w->rnd, max - disk)) * SECTOR);
    else if (disk > 1)
        co_world_resize(w, (1 + rnd_below(&w->rnd, disk - 1)) * SECTOR);
}

/* ---- all of them -------------------------------------------------------------------------- */

void co_world_change(struct world *w, unsigned nr_ops)
{
    bool drop = w->has_backing && rnd_one_in(&w->rnd, 3);
    bool resize = !rnd_one_in(&w->rnd, 3), resize_first = rnd_one_in(&w->rnd, 2);

    while (w->has_backing && rnd_one_in(&w->rnd, 3) && !w->failure[0])
        co_rename_backing(w);
    co_world_wait(w, (unsigned)rnd_below(&w->rnd, nr_ops));
    if (resize && resize_first && !w->failure[0])
        co_any_size(w);
    if (drop && !w->failure[0])
        co_stream_and_drop(w);
    if (resize && !resize_first && !w->failure[0])
        co_any_size(w);
}
