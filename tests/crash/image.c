/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is a crash image right? Its structure, our own open, the size and the backing it names, and
 * every sector's content. For some: qemu-img's opinion, and whether it can be written on.
 */
#include "tests/crash/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/qcow2.h"
#include "tests/crash/qemu.h"
#include "tests/crash/structure.h"
#include "util/coroutine.h"
#include "util/size.h"

#define SECTOR       RECORD_SECTOR
#define READ_BYTES   (256u << 10)
#define GOING_ON_OPS 16

static bool check_structure(struct world *w, const struct record_node *image, struct structure *st)
{
    if (structure_check(image->data, image->node.size_bytes, st))
        return true;
    world_fail(w, "structure: %s", st->text);
    return false;
}

static void check_meaning(struct world *w, const struct blk_node *node, bool backed,
                          uint64_t moment)
{
    bool is_new = node->size_bytes == w->new_disk_bytes && w->resize.start < moment &&
                  w->resize_undone >= moment;

    if (!is_new && (node->size_bytes != w->disk_bytes || w->resize.end < moment))
        world_fail(w, "the disk has %" PRIu64 " bytes, was %" PRIu64 "%s", node->size_bytes,
                   w->disk_bytes, w->resize.end < moment ? " and was resized" : "");
    if (backed ? !w->backed || w->drop.end < moment : w->backed && w->drop.start >= moment)
        world_fail(w, "the image names %s backing", backed ? "its dropped" : "no");
}

static int co_read_disk(struct judge *j, struct blk_node *node)
{
    int ret = 0;

    j->disk_bytes = MIN_OF(node->size_bytes, j->max_bytes);
    for (uint64_t at = 0; at < j->disk_bytes && !ret; at += READ_BYTES)
        ret = co_blk_read(node, at, j->disk + at, MIN_OF(READ_BYTES, j->disk_bytes - at), 0);
    return ret;
}

static void check_content(struct judge *j, struct world *w, uint64_t moment)
{
    uint64_t torn;

    for (uint64_t s = 0; s < j->disk_bytes / SECTOR && !w->failure[0]; s++) {
        uint32_t found = version_of(j->disk + s * SECTOR, s);

        if (!versions_may_be(&w->ver, s, moment, found))
            world_fail(w, "sector %" PRIu64 " has version %" PRId32 " of %u", s, (int32_t)found,
                       w->ver.next);
    }
    if (!w->failure[0] &&
        !versions_atomic_ok(&w->ver, j->disk, j->disk_bytes / SECTOR, moment, &torn))
        world_fail(w, "the atomic write at sector %" PRIu64 " is torn", torn);
}

static void co_open_and_read(struct judge *j, struct world *w, struct record_node *image,
                             uint64_t moment)
{
    struct error err = ERROR_INIT;
    struct qcow2_stats stats;
    struct blk_node *node;
    bool backed;
    int ret;

    if (co_world_open(w, image, &node, &backed, &err)) {
        world_fail(w, "open: %s", err.msg);
        return;
    }
    check_meaning(w, node, backed, moment);
    ret = co_read_disk(j, node);
    if (ret)
        world_fail(w, "reading: %s", strerror(-ret));
    qcow2_get_stats(node, &stats);
    if (stats.corrupt)
        world_fail(w, "the engine met %" PRIu64 " inconsistencies", stats.corrupt);
    co_blk_node_unref(node);
    check_content(j, w, moment);
}

bool co_judge(struct judge *j, struct world *w, struct record_node *image, uint64_t moment,
              uint64_t known_leaks)
{
    struct structure st;
    uint64_t leaked;

    if (!check_structure(w, image, &st))
        return false;
    leaked = st.leaked_clusters > known_leaks ? st.leaked_clusters - known_leaks : 0;
    j->leaked_most = MAX_OF(j->leaked_most, leaked);
    j->leaked_total += leaked;
    co_open_and_read(j, w, image, moment);
    return !w->failure[0];
}

/* ---- qemu-img ------------------------------------------------------------------------ */

bool judge_by_qemu(struct judge *j, struct world *w, const struct record_node *image)
{
    int ret;

    j->asked_qemu++;
    if ((w->backing && !qemu_save(BACKING_NAME, w->base, w->base_bytes)) ||
        (w->cfg->snapshot && !qemu_save(SNAPSHOT_NAME, w->base, w->base_bytes)) ||
        !qemu_save("image", image->data, image->node.size_bytes) ||
        !qemu_save("content", j->disk, j->disk_bytes)) {
        world_fail(w, "%s: %s", qemu_dir(), strerror(errno));
        return false;
    }
    ret = qemu_sh("qemu-img check -f qcow2 image");
    if (ret && ret != 3) /* 3: only leaks */
        world_fail(w, "qemu-img check gives %d, see %s/log", ret, qemu_dir());
    else if ((ret = qemu_sh("qemu-img compare -f qcow2 -F raw image content")))
        world_fail(w, "qemu-img compare gives %d, see %s/log", ret, qemu_dir());
    else if (w->cfg->snapshot && /* with the size that the disk had then */
             qemu_sh("qemu-img snapshot -a " SNAPSHOT_NAME " image && "
                     "qemu-img convert -f qcow2 -O raw image content && cmp -n %" PRIu64
                     " " SNAPSHOT_NAME " content",
                     w->base_bytes))
        world_fail(w, "the snapshot's content is wrong, see %s/log", qemu_dir());
    return !w->failure[0];
}

void judge_keep(const struct world *w, const struct record_node *image)
{
    if (qemu_dir() && (!w->backing || qemu_save(BACKING_NAME, w->base, w->base_bytes)) &&
        qemu_save("wrong.qcow2", image->data, image->node.size_bytes))
        printf("the image is %s/wrong.qcow2\n", qemu_dir());
}

/* ---- going on -------------------------------------------------------------------------- */

static int co_one_more(struct judge *j, struct world *w, struct blk_node *node)
{
    uint64_t disk = j->disk_bytes / SECTOR, sector = rnd_below(&w->rnd, disk);
    uint64_t sectors = 1 + rnd_below(&w->rnd, rnd_one_in(&w->rnd, 3) ? 256 : 16);
    uint8_t *data = j->disk + sector * SECTOR;

    sectors = MIN_OF(sectors, disk - sector);
    switch (rnd_below(&w->rnd, 6)) {
    case 0:
        memset(data, 0, sectors * SECTOR);
        return co_blk_write_zeroes(node, sector * SECTOR, sectors * SECTOR,
                                   rnd_one_in(&w->rnd, 2) ? BLK_MAY_UNMAP : 0);
    case 1:
        return co_blk_flush(node);
    default:
        version_fill(data, w->ver.next++, sector, sectors);
        return co_blk_write(node, sector * SECTOR, data, sectors * SECTOR, 0);
    }
}

static void co_compare(struct judge *j, struct world *w, struct record_node *image)
{
    uint8_t *due = j->disk, *found = malloc(j->max_bytes);
    struct error err = ERROR_INIT;
    struct blk_node *node;
    bool backed;

    if (!found || co_world_open(w, image, &node, &backed, &err)) {
        world_fail(w, "going on: open: %s", err.msg);
        free(found);
        return;
    }
    j->disk = found;
    if (co_read_disk(j, node))
        world_fail(w, "going on: can't be read");
    j->disk = due;
    for (uint64_t at = 0; at < j->disk_bytes && !w->failure[0]; at += SECTOR)
        if (memcmp(due + at, found + at, SECTOR))
            world_fail(w,
                       "going on: sector %" PRIu64 " differs: version %" PRId32 " and not %" PRId32,
                       at / SECTOR, (int32_t)version_of(found + at, at / SECTOR),
                       (int32_t)version_of(due + at, at / SECTOR));
    free(found);
    co_blk_node_unref(node);
}

bool co_judge_going_on(struct judge *j, struct world *w, struct record_node *image)
{
    struct error err = ERROR_INIT;
    struct structure st;
    struct blk_node *node;
    bool backed;
    int ret = 0;

    j->went_on++;
    if (co_world_open(w, image, &node, &backed, &err)) {
        world_fail(w, "going on: open: %s", err.msg);
        return false;
    }
    for (unsigned i = 0; i < GOING_ON_OPS && !ret && j->disk_bytes; i++)
        ret = co_one_more(j, w, node);
    co_blk_node_unref(node);
    if (ret)
        world_fail(w, "going on: %s", strerror(-ret));
    else if (check_structure(w, image, &st))
        co_compare(j, w, image);
    return !w->failure[0];
}
