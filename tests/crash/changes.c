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
    struct error err = ERROR_INIT;

    w->limit_bytes = smaller ? size_bytes : 0;
    while (smaller && world_is_busy(w, size_bytes / SECTOR, w->node->size_bytes / SECTOR))
        co_queue_wait(&w->progress);
    w->new_disk_bytes = size_bytes;
    co_blk_drain_begin(w->node);
    w->resize.start = record_tick(w->rec);
    if (!co_set_size(w, size_bytes, &err)) {
        w->resize.end = record_tick(w->rec);
    } else {
        w->resize_failed = record_tick(w->rec);
        if (!w->faults)
            world_fail(w, "resizing: %s", err.msg);
    }
    blk_drain_end(w->node);
    w->limit_bytes = 0;
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
