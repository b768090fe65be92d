/* SPDX-License-Identifier: BSD-3-Clause */
/* Random requests and rare changes of one image: see workload.h. */
#include "tests/crash/workload.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/qcow2.h"
#include "util/coroutine.h"
#include "util/size.h"

#define SECTOR RECORD_SECTOR

void world_fail(struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (w->failure[0])
        return;
    va_start(ap, fmt);
    vsnprintf(w->failure, sizeof(w->failure), fmt, ap);
    va_end(ap);
}

void world_base_content(const struct world *w, uint64_t sector, uint64_t sectors, uint8_t *buf)
{
    uint64_t from = sector * SECTOR, bytes = sectors * SECTOR, have = 0;

    if (from < w->base_bytes)
        have = MIN_OF(bytes, w->base_bytes - from);
    if (have)
        memcpy(buf, w->base + from, have);
    memset(buf + have, 0, bytes - have);
}

/* The backing's name, or the same with "./" in front, any number of times. */
static bool is_our_backing(const struct world *w, const char *name)
{
    while (!strncmp(name, "./", 2))
        name += 2;
    return w->backing && !strcmp(name, BACKING_NAME);
}

int co_world_open(struct world *w, struct record_node *file, struct blk_node **node,
                  bool *has_backing, struct error *err)
{
    struct qcow2_info info;
    int ret = co_qcow2_open(&file->node, true, node, err);

    if (ret)
        return ret;
    qcow2_get_info(*node, &info);
    *has_backing = info.backing != NULL;
    if (!info.backing)
        return 0;
    if (!is_our_backing(w, info.backing)) {
        error_set(err, EINVAL, "the image names '%s' as its backing", info.backing);
        co_blk_node_unref(*node);
        return -EINVAL;
    }
    blk_set_backing(*node, w->backing);
    return 0;
}

/* ---- one request ---------------------------------------------------------------------- */

static void wake(struct blk_req *req)
{
    co_enter(req->opaque);
}

int co_world_ask(struct world *w, enum blk_verb verb, uint64_t sector, uint64_t sectors,
                 uint8_t *buf, uint32_t flags)
{
    uint64_t bytes = sectors * SECTOR, cut = MIN_OF(bytes, SECTOR);
    struct iovec iov[2] = {{buf, cut}, {buf + cut, bytes - cut}};
    struct blk_req req = {
        .verb = verb,
        .flags = flags,
        .offset_bytes = sector * SECTOR,
        .length_bytes = bytes,
        .iov = iov,
        .niov = bytes > cut ? 2 : 1,
        .done = wake,
        .opaque = co_self(),
    };

    blk_head_submit(&w->head, &req);
    co_yield ();
    if (req.result && (!w->faults || verb == BLK_READ))
        world_fail(w, "verb %d flags %#x of sectors %llu+%llu failed: %s", verb, flags,
                   (unsigned long long)sector, (unsigned long long)sectors, strerror(-req.result));
    return req.result;
}

bool world_is_busy(const struct world *w, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < WORLD_WORKERS; i++)
        if (start < w->busy[i].end && w->busy[i].start < end)
            return true;
    return false;
}

struct worker {
    struct world *w;
    unsigned id;
    uint64_t sector, sectors; /* its own meanwhile */
    uint8_t *buf, *more;
};

static uint32_t note_change(struct worker *k, uint32_t version, uint64_t start, bool fua)
{
    struct versions *v = &k->w->ver;
    uint32_t op = versions_add_op(v, version, start, record_tick(k->w->rec), fua && !k->w->weak);

    for (uint64_t i = 0; i < k->sectors; i++)
        versions_add_sector(v, k->sector + i, op);
    return op;
}

/* After a request that has failed: some of it may have been done, and each sector is what it reads
 * as now. It may have become @version (and zeros). */
static void settle_failed(struct worker *k, uint32_t version, uint64_t start)
{
    struct world *w = k->w;
    uint32_t may[2], now[3] = {VERSION_ZERO, version};

    if (co_world_ask(w, BLK_READ, k->sector, k->sectors, k->buf, 0))
        return;
    may[0] = versions_add_op(&w->ver, VERSION_ZERO, start, RECORD_NEVER, false);
    may[1] = versions_add_op(&w->ver, version, start, RECORD_NEVER, false);
    for (uint64_t i = 0; i < k->sectors; i++) {
        uint64_t sector = k->sector + i;
        uint32_t found = version_of(k->buf + i * SECTOR, sector);

        now[2] = versions_now(&w->ver, sector);
        if (found != now[0] && found != now[1] && found != now[2])
            world_fail(w, "sector %llu reads version %d after a request that failed",
                       (unsigned long long)sector, (int)found);
        versions_add_sector(&w->ver, sector, may[0]);
        versions_add_sector(&w->ver, sector, may[1]);
        versions_add_sector(&w->ver, sector,
                            versions_add_op(&w->ver, found, start, record_tick(w->rec), false));
    }
}

static void do_write(struct worker *k)
{
    struct world *w = k->w;
    uint32_t version = w->ver.next++;
    bool fua = rnd_one_in(&w->rnd, 8);
    uint64_t start = record_tick(w->rec);

    version_fill(k->buf, version, k->sector, k->sectors);
    if (!co_world_ask(w, BLK_WRITE, k->sector, k->sectors, k->buf, fua ? BLK_FUA : 0))
        note_change(k, version, start, fua);
    else
        settle_failed(k, version, start);
}

/* The whole unit around the range; nobody else writes in its cluster meanwhile. */
static void do_atomic(struct worker *k)
{
    struct world *w = k->w;
    uint64_t unit = w->node->limits.atomic_bytes / SECTOR;
    uint64_t cluster = w->cfg->cluster_bytes / SECTOR;
    uint64_t from = k->sector / cluster * cluster, start = record_tick(w->rec);
    uint32_t version, op;
    bool fua = rnd_one_in(&w->rnd, 8);

    if (w->chain || !unit)
        return; /* the top, and so the unit, changes */
    k->sector -= k->sector % unit;
    k->sectors = unit;
    w->busy[k->id].end = 0;
    if (world_is_busy(w, from, from + cluster) || k->sector + unit > world_disk_bytes(w) / SECTOR)
        return;
    w->busy[k->id].start = from;
    w->busy[k->id].end = from + cluster;
    version = w->ver.next++;
    version_fill(k->buf, version, k->sector, k->sectors);
    if (co_world_ask(w, BLK_WRITE, k->sector, k->sectors, k->buf,
                     BLK_ATOMIC | (fua ? BLK_FUA : 0))) {
        settle_failed(k, version, start);
        return;
    }
    op = note_change(k, version, start, fua);
    versions_add_atomic(&w->ver, op, k->sector, k->sectors);
}

static void do_zeroes(struct worker *k)
{
    struct world *w = k->w;
    bool fua = rnd_one_in(&w->rnd, 8), unmap = rnd_one_in(&w->rnd, 2);
    uint64_t start = record_tick(w->rec);

    if (!co_world_ask(w, BLK_WRITE_ZEROES, k->sector, k->sectors, NULL,
                      (fua ? BLK_FUA : 0) | (unmap ? BLK_MAY_UNMAP : 0)))
        note_change(k, VERSION_ZERO, start, fua);
    else
        settle_failed(k, VERSION_ZERO, start);
}

static void do_read(struct worker *k)
{
    struct world *w = k->w;

    if (co_world_ask(w, BLK_READ, k->sector, k->sectors, k->buf, 0))
        return;
    for (uint64_t i = 0; i < k->sectors; i++) {
        uint32_t found = version_of(k->buf + i * SECTOR, k->sector + i);
        uint32_t due = versions_now(&w->ver, k->sector + i);

        if (found != due)
            world_fail(w, "sector %llu reads version %u, not %u, without any crash",
                       (unsigned long long)(k->sector + i), found, due);
    }
}

/* Each sector reads zeros afterwards, or what it read before; which, is looked up. */
static void do_discard(struct worker *k)
{
    struct world *w = k->w;
    uint64_t start = record_tick(w->rec), end;
    uint32_t op;

    if (co_world_ask(w, BLK_DISCARD, k->sector, k->sectors, NULL, 0)) {
        settle_failed(k, VERSION_ZERO, start);
        return;
    }
    end = record_tick(w->rec);
    if (co_world_ask(w, BLK_READ, k->sector, k->sectors, k->buf, 0))
        return;
    op = versions_add_op(&w->ver, VERSION_ZERO, start, end, false);
    for (uint64_t i = 0; i < k->sectors; i++) {
        uint32_t found = version_of(k->buf + i * SECTOR, k->sector + i);
        uint32_t before = versions_now(&w->ver, k->sector + i);

        if (found == VERSION_ZERO && before != VERSION_ZERO)
            versions_add_sector(&w->ver, k->sector + i, op);
        else if (found != before)
            world_fail(w, "discarded sector %llu of version %u reads version %u",
                       (unsigned long long)(k->sector + i), before, found);
    }
}

/* ---- requests that clash ----------------------------------------------------------------- */

struct asked {
    struct blk_req req;
    struct iovec iov;
};

struct asked_group {
    unsigned pending;
    struct coroutine *co;
};

static void asked_done(struct blk_req *req)
{
    struct asked_group *g = req->opaque;

    if (--g->pending == 0)
        co_enter(g->co);
}

static void ask(struct world *w, struct asked *a, struct asked_group *g, enum blk_verb verb,
                uint64_t sector, uint64_t sectors, uint8_t *buf, uint32_t flags)
{
    a->iov = (struct iovec){buf, sectors * SECTOR};
    a->req = (struct blk_req){
        .verb = verb,
        .flags = flags,
        .offset_bytes = sector * SECTOR,
        .length_bytes = sectors * SECTOR,
        .iov = &a->iov,
        .niov = 1,
        .done = asked_done,
        .opaque = g,
    };
    g->pending++;
    blk_head_submit(&w->head, &a->req);
}

/* A sector in the middle of a zeroing or discard, and perhaps of a write of @version. */
static void check_clashed_read(struct world *w, uint64_t sector, const uint8_t *buf, bool written,
                               uint32_t version)
{
    uint32_t found = version_of(buf, sector);

    if (found != VERSION_ZERO && found != versions_now(&w->ver, sector) &&
        !(written && found == version))
        world_fail(w, "sector %llu reads version %d between %u and %u", (unsigned long long)sector,
                   (int)found, versions_now(&w->ver, sector), version);
}

/* After a clash: what it came to be is the last version, what it might have been the one before. */
static void settle_sector(struct world *w, uint64_t sector, const uint8_t *buf, bool written,
                          bool zeroed, const uint32_t op[2], uint32_t version)
{
    uint32_t found = version_of(buf, sector), before = versions_now(&w->ver, sector);

    if (written && found != version && found != VERSION_ZERO)
        world_fail(w, "sector %llu lost a write: version %d", (unsigned long long)sector,
                   (int)found);
    else if (!written && found != VERSION_ZERO && (zeroed || found != before))
        world_fail(w, "sector %llu was not zeroed: version %d", (unsigned long long)sector,
                   (int)found);
    if (written) {
        versions_add_sector(&w->ver, sector, op[found == VERSION_ZERO]);
        versions_add_sector(&w->ver, sector, op[found != VERSION_ZERO]);
    } else if (found != before) {
        versions_add_sector(&w->ver, sector, op[0]);
    }
}

/* A zeroing or a discard, a write into its middle and a read, all at once. */
static void do_clash(struct worker *k)
{
    struct world *w = k->w;
    uint64_t at = k->sector + rnd_below(&w->rnd, k->sectors), n = k->sector + k->sectors - at;
    bool zeroes = rnd_one_in(&w->rnd, 2), fua = rnd_one_in(&w->rnd, 8);
    struct asked_group g = {0, co_self()};
    uint32_t version = w->ver.next++, op[2];
    uint64_t start = record_tick(w->rec), end;
    struct asked asked[3];

    n = 1 + rnd_below(&w->rnd, n);
    version_fill(k->more, version, at, n);
    ask(w, &asked[0], &g, BLK_WRITE, at, n, k->more, fua ? BLK_FUA : 0);
    ask(w, &asked[1], &g, zeroes ? BLK_WRITE_ZEROES : BLK_DISCARD, k->sector, k->sectors, NULL,
        zeroes ? BLK_MAY_UNMAP : 0);
    ask(w, &asked[2], &g, BLK_READ, k->sector, k->sectors, k->buf, 0);
    co_yield ();
    end = record_tick(w->rec);
    if (w->faults && (asked[0].req.result || asked[1].req.result)) {
        settle_failed(k, version, start);
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(asked); i++)
        if (asked[i].req.result)
            world_fail(w, "verb %d in a clash failed: %s", asked[i].req.verb,
                       strerror(-asked[i].req.result));
    for (uint64_t s = k->sector, i = 0; i < k->sectors; i++, s++)
        check_clashed_read(w, s, k->buf + i * SECTOR, s >= at && s < at + n, version);
    if (co_world_ask(w, BLK_READ, k->sector, k->sectors, k->buf, 0))
        return;
    op[0] = versions_add_op(&w->ver, VERSION_ZERO, start, end, false);
    op[1] = versions_add_op(&w->ver, version, start, end, fua && !w->weak);
    for (uint64_t s = k->sector, i = 0; i < k->sectors; i++, s++)
        settle_sector(w, s, k->buf + i * SECTOR, s >= at && s < at + n, zeroes, op, version);
}

/* ---- requests that must not be seen ------------------------------------------------------ */

void co_world_keep(struct world *w, uint64_t sector, uint64_t sectors, uint8_t *buf)
{
    uint64_t off = sector * SECTOR, bytes = sectors * SECTOR;
    int ret;

    co_blk_head_enter(&w->head);
    if (off + bytes > world_disk_bytes(w)) { /* it has become smaller */
        blk_head_exit(&w->head);
        return;
    }
    if (w->has_backing)
        world_base_content(w, sector, sectors, buf);
    else
        memset(buf, 0, bytes);
    if (buf_is_zero(buf, bytes) && rnd_one_in(&w->rnd, 2))
        ret = co_blk_write_zeroes(w->node, off, bytes, BLK_IF_UNALLOCATED);
    else
        ret = co_blk_write(w->node, off, buf, bytes, BLK_IF_UNALLOCATED);
    blk_head_exit(&w->head);
    if (ret && !w->faults)
        world_fail(w, "keeping sectors %llu+%llu failed: %s", (unsigned long long)sector,
                   (unsigned long long)sectors, strerror(-ret));
}

static void do_keep(struct worker *k)
{
    k->w->busy[k->id].end = 0;
    if (k->w->chain)
        return;
    co_world_keep(k->w, k->sector, k->sectors, k->buf);
}

/* A size that failed to be written may be in the header, but only until the next flush. */
static void note_flush(struct world *w, uint64_t start)
{
    uint64_t end = record_tick(w->rec);

    versions_add_flush(&w->ver, start, end);
    if (w->resize_failed < start)
        w->resize_undone = MIN_OF(w->resize_undone, end);
}

static void do_flush(struct worker *k)
{
    struct world *w = k->w;
    uint64_t start = record_tick(w->rec);

    bool weak = w->weak;

    k->w->busy[k->id].end = 0;
    if (!co_world_ask(w, BLK_FLUSH, 0, 0, NULL, 0) && !weak && !w->weak)
        note_flush(w, start);
}

/* ---- random work ----------------------------------------------------------------------- */

static void random_range(struct world *w, uint64_t *sector, uint64_t *sectors)
{
    uint64_t disk = world_disk_bytes(w) / SECTOR, cluster = w->cfg->cluster_bytes / SECTOR;
    uint64_t parts[] = {disk, disk, MAX_OF(disk / 8, 1), MIN_OF(disk, 8 * cluster)};
    uint64_t part = parts[rnd_below(&w->rnd, ARRAY_LEN(parts))], unit = 1, max;

    switch (rnd_below(&w->rnd, 8)) {
    case 0:
        max = WORLD_MAX_BYTES / SECTOR;
        break;
    case 1:
    case 2:
        unit = cluster;
        max = 4 * cluster;
        break;
    case 3:
        unit = MAX_OF(w->node->limits.subunit_bytes / SECTOR, 1);
        max = 8 * unit;
        break;
    default:
        max = 16;
        break;
    }
    *sector = rnd_below(&w->rnd, part) / unit * unit;
    *sectors = (1 + rnd_below(&w->rnd, max) + unit - 1) / unit * unit;
    *sectors = MIN_OF(*sectors, MIN_OF(disk - *sector, WORLD_MAX_BYTES / SECTOR));
}

static bool take_range(struct worker *k)
{
    struct world *w = k->w;

    for (unsigned tries = 0; tries < 20; tries++) {
        random_range(w, &k->sector, &k->sectors);
        if (world_is_busy(w, k->sector, k->sector + k->sectors))
            continue;
        w->busy[k->id].start = k->sector;
        w->busy[k->id].end = k->sector + k->sectors;
        return true;
    }
    return false;
}

static void worker_co(void *arg)
{
    static void (*const ops[])(struct worker *) = {
        do_write,  do_write,  do_write,   do_write,   do_write,  do_write,
        do_zeroes, do_zeroes, do_discard, do_discard, do_keep,   do_keep,
        do_flush,  do_read,   do_clash,   do_clash,   do_atomic, do_atomic,
    };
    struct worker k = *(struct worker *)arg;

    k.buf = malloc(WORLD_MAX_BYTES);
    k.more = malloc(WORLD_MAX_BYTES);
    if (!k.buf || !k.more)
        world_fail(k.w, "out of memory");
    while (k.w->ops_left && !k.w->failure[0]) {
        k.w->ops_left--;
        if (take_range(&k))
            ops[rnd_below(&k.w->rnd, ARRAY_LEN(ops))](&k);
        k.w->busy[k.id].end = 0;
        co_queue_wake(&k.w->progress);
    }
    free(k.buf);
    free(k.more);
    k.w->workers--;
    co_queue_wake(&k.w->progress);
}

/* ---- all of it------------------------------------------------------------------------------ */

void co_world_wait(struct world *w, unsigned nr)
{
    while (w->ops_left > nr && w->workers)
        co_queue_wait(&w->progress);
}

int world_fault(const struct blk_req *req, void *arg)
{
    struct world *w = arg;

    if (!w->faults_on || !rnd_one_in(&w->rnd, WORLD_FAULTS))
        return 0;
    w->nr_faults++;
    return req->verb != BLK_FLUSH && rnd_one_in(&w->rnd, 2) ? ENOSPC : EIO;
}

void world_start_workers(struct world *w, unsigned nr_ops)
{
    memset(w->busy, 0, sizeof(w->busy));
    co_queue_init(&w->progress);
    w->ops_left = nr_ops;
    w->workers = WORLD_WORKERS;
    for (unsigned i = 0; i < WORLD_WORKERS; i++) {
        struct worker k = {.w = w, .id = i};

        co_spawn(worker_co, &k);
    }
}

void co_world_flush(struct world *w)
{
    uint64_t start = record_tick(w->rec);

    w->faults_on = false;
    if (!co_world_ask(w, BLK_FLUSH, 0, 0, NULL, 0) && !w->weak)
        note_flush(w, start);
}

void co_workload(struct world *w, unsigned nr_ops)
{
    struct error err = ERROR_INIT;

    world_forget_changes(w);
    if (co_world_open(w, w->rec, &w->node, &w->has_backing, &err)) {
        world_fail(w, "open: %s", err.msg);
        return;
    }
    w->backed = w->has_backing;
    w->disk_bytes = w->new_disk_bytes = w->node->size_bytes;
    blk_head_init(&w->head, "workload", w->node, true);
    w->faults_on = w->faults;
    world_start_workers(w, nr_ops);
    co_world_change(w, nr_ops);
    co_world_wait(w, nr_ops / 4);
    w->faults_on = false;
    while (w->workers)
        co_queue_wait(&w->progress);
    co_world_flush(w);
    co_blk_head_fini(&w->head);
    co_blk_node_unref(w->node);
    w->node = NULL;
}
