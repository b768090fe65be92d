/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts of whole chains: images, raw destination and its map, in a directory in memory, are
 * cut at one moment while snapshots, commits, mirrors, streams and copy-on-read go on under guests'
 * writes. What the record names as the top at that moment is opened, and must read as the guests
 * know it.
 *
 *   chains [-n CUTS] [-s SEED] [-q EVERY] [-b BARRIER] [-v]
 *
 * -n  how many cuts to judge (3000)
 * -s  the first seed (1)
 * -q  every how many cuts qemu-img is asked; 0: never (100)
 * -b  a barrier to be removed, which has to be found: header, copy, mirror, data, blocks, data-file
 *
 * -v  a line for each seed
 *
 * Exit status: 0 all right, 1 violations found, 2 it could not work.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/qcow2.h"
#include "tests/crash/chains/live.h"
#include "tests/crash/qemu.h"
#include "tests/crash/structure.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

#define SECTOR      RECORD_SECTOR
#define DISK_MAX    (1u << 20)
#define GENERATIONS 3
#define MAX_PRINTED 10

static const char *const broken_names[LIVE_NR_BROKEN] = {
    [LIVE_WHOLE] = "none",
    [LIVE_NO_HEADER] = "header",
    [LIVE_NO_COPY] = "copy",
    [LIVE_NO_DATA] = "data",
    [LIVE_NO_BLOCKS] = "blocks",
    [LIVE_NO_MIRROR] = "mirror",
    [LIVE_NO_DATA_FILE] = "data-file",
};

static struct {
    uint64_t cuts, seed, first_seed, qemu_every;
    enum live_broken broken;
    bool verbose, ended;
    uint64_t done, violations, asked_qemu, faults, corrupt;
    uint64_t of_op[LIVE_NR_OPS], ops[LIVE_NR_OPS];
    uint8_t content[DISK_MAX], next_content[DISK_MAX];
    uint64_t disk_bytes;
} run = {.cuts = 3000, .seed = 1, .qemu_every = 100};

static void on_corrupt(struct blk_node *node, const char *what, bool fatal)
{
    (void)node;
    (void)what;
    (void)fatal;
    run.corrupt++;
}

/* ---- judging one cut ------------------------------------------------------------------------- */

/* What the record names as the top after a cut at @moment. */
static const char *choose_top(struct live *l, uint64_t moment)
{
    unsigned last = 0, begun = 0;

    for (unsigned i = 0; i < l->nr_saves; i++) {
        if (l->save[i].end < moment)
            last = i;
        if (l->save[i].start < moment)
            begun = i;
    }
    return l->save[begun > last && rnd_one_in(&l->w.rnd, 2) ? begun : last].top;
}

static void check_size(struct live *l, const char *top, uint64_t moment)
{
    const struct world *w = &l->w;
    bool is_new = run.disk_bytes == w->new_disk_bytes && w->resize.start < moment &&
                  w->resize_undone >= moment;

    if (!is_new && (run.disk_bytes != w->disk_bytes || w->resize.end < moment))
        world_fail(&l->w, "%s has %" PRIu64 " bytes, was %" PRIu64 ", from %" PRIu64 " on %" PRIu64,
                   top, run.disk_bytes, w->disk_bytes, w->resize.end, w->new_disk_bytes);
}

static void check_structures(struct live *after, struct world *w)
{
    struct structure st;

    for (unsigned i = 0; i < after->nr_layers && !w->failure[0]; i++) {
        const char *name = after->layer[i].name;
        const struct vfile *f = vdisk_find(after->disk, name);

        if (f && strstr(name, ".qcow2") &&
            !structure_check(f->rec->data, f->rec->node.size_bytes, &st))
            world_fail(w, "%s: structure: %s", name, st.text);
    }
}

static void co_check_content(struct live *l, struct blk_node *top, uint64_t moment)
{
    struct world *w = &l->w;

    run.disk_bytes = top->size_bytes;
    check_size(l, top->filename, moment);
    if (w->failure[0])
        return;
    for (uint64_t at = 0; at < run.disk_bytes; at += MIN_OF(run.disk_bytes - at, 262144))
        if (co_blk_read(top, at, run.content + at, MIN_OF(run.disk_bytes - at, 262144), 0))
            world_fail(w, "can't be read at %" PRIu64, at);
    for (uint64_t s = 0; s < run.disk_bytes / SECTOR && !w->failure[0]; s++) {
        uint32_t found = version_of(run.content + s * SECTOR, s);

        if (!versions_may_be(&w->ver, s, moment, found))
            world_fail(w, "sector %" PRIu64 " has version %" PRId32 " of %u", s, (int32_t)found,
                       w->ver.next);
    }
}

/* Layer @i's own external data file; NULL: it has none. */
static const struct vfile *data_file_of(struct live *after, unsigned i)
{
    struct qcow2_info info = {0};

    if (strstr(after->layer[i].name, ".qcow2"))
        qcow2_get_info(after->layer[i].node, &info);
    return info.data_file ? vdisk_find(after->disk, info.data_file) : NULL;
}

/* A data file that is the disk has it all, without the image, too. */
static void check_raw_data(struct live *after, struct world *w, uint64_t moment)
{
    const struct vfile *f = data_file_of(after, after->nr_layers - 1);
    struct qcow2_info info;
    uint64_t sectors;

    if (!f || w->failure[0])
        return;
    qcow2_get_info(after->layer[after->nr_layers - 1].node, &info);
    sectors = info.data_file_raw ? run.disk_bytes / SECTOR : 0;
    if (f->rec->node.size_bytes < sectors * SECTOR)
        world_fail(w, "%s has %" PRIu64 " bytes only", f->name, f->rec->node.size_bytes);
    for (uint64_t s = 0; s < sectors && !w->failure[0]; s++)
        if (!versions_may_be(&w->ver, s, moment, version_of(f->rec->data + s * SECTOR, s)))
            world_fail(w, "%s: sector %" PRIu64 " has version %" PRId32, f->name, s,
                       (int32_t)version_of(f->rec->data + s * SECTOR, s));
}

/* qemu-img's opinion of the chain in @after, which is open. */
static void judge_by_qemu(struct live *after, struct world *w)
{
    unsigned top = after->nr_layers - 1;

    run.asked_qemu++;
    for (unsigned i = 0; i <= top; i++) {
        const char *name = after->layer[i].name;
        const struct vfile *f = vdisk_find(after->disk, name), *data = data_file_of(after, i);
        int ret;

        if (!f)
            return; /* a raw image that is not complete: nothing that QEMU knows */
        if (!qemu_save(name, f->rec->data, f->rec->node.size_bytes) ||
            (data && !qemu_save(data->name, data->rec->data, data->rec->node.size_bytes)))
            world_fail(w, "%s can't be written", qemu_dir());
        ret = strstr(name, ".qcow2") ? qemu_sh("qemu-img check -f qcow2 %s", name) : 0;
        if (ret && ret != 3) /* 3: leaks only */
            world_fail(w, "qemu-img check of %s gives %d, see %s/log", name, ret, qemu_dir());
    }
    if (!qemu_save("content", run.content, run.disk_bytes) ||
        qemu_sh("qemu-img compare -f %s -F raw %s content",
                strstr(after->layer[top].name, ".qcow2") ? "qcow2" : "raw", after->layer[top].name))
        world_fail(w, "qemu-img reads %s otherwise, see %s/log", after->layer[top].name,
                   qemu_dir());
}

/* True: the directory was judged right. */
static bool co_judge(struct live *l, struct vdisk *disk, const char *top, uint64_t moment)
{
    struct live *after = calloc(1, sizeof(*after));
    struct world *w = &l->w;
    struct error err = ERROR_INIT;
    uint64_t corrupt = run.corrupt;

    if (!after)
        return false;
    after->disk = vdisk_now = disk;
    if (co_live_open(after, top, &err)) {
        world_fail(w, "open of %s: %s", top, err.msg);
    } else {
        co_check_content(l, after->layer[after->nr_layers - 1].node, moment);
        check_structures(after, w);
        check_raw_data(after, w, moment);
        if (!w->failure[0] && qemu_dir() && run.qemu_every && run.done % run.qemu_every == 0)
            judge_by_qemu(after, w);
    }
    if (run.corrupt != corrupt)
        world_fail(w, "the engine met inconsistencies");
    co_live_close(after);
    free(after);
    vdisk_now = l->disk;
    return !w->failure[0];
}

static void count_ops(const struct live *l, uint64_t moment)
{
    enum live_op op = LIVE_NONE;

    for (unsigned i = 0; i < l->nr_spans; i++)
        if (l->span[i].start < moment && moment <= l->span[i].end)
            op = l->span[i].op;
    run.of_op[op]++;
}

static void report(struct live *l, uint64_t seed, unsigned generation, const struct cut *cut)
{
    if (!l->w.failure[0])
        return;
    if (run.violations++ < MAX_PRINTED && cut)
        printf("seed %" PRIu64 " life %u, cut at %" PRIu64 ", kept %s: %s\n", seed, generation,
               cut->moment, kept_names[cut->kept], l->w.failure);
    else if (run.violations <= MAX_PRINTED)
        printf("seed %" PRIu64 " life %u: %s\n", seed, generation, l->w.failure);
    l->w.failure[0] = '\0';
}

/* All cuts of one life; the directory that the next one begins with, or NULL. */
static struct vdisk *co_judge_cuts(struct live *l, uint64_t seed, unsigned g,
                                   char next_top[VDISK_NAME])
{
    struct vdisk *disk, *next = NULL;
    struct cuts cuts;
    const char *next_save = NULL;
    uint64_t next_bytes = 0;
    size_t lucky;

    if (!vdisk_plan(l->disk, &l->w.rnd, &cuts))
        return NULL;
    lucky = rnd_below(&l->w.rnd, cuts.nr);
    for (size_t i = 0; i < cuts.nr && run.done < run.cuts; i++) {
        const char *top = choose_top(l, cuts.cut[i].moment);

        disk = vdisk_cut(l->disk, &l->w.rnd, cuts.cut[i]);
        run.done++;
        count_ops(l, cuts.cut[i].moment);
        if (co_judge(l, disk, top, cuts.cut[i].moment) && i == lucky) {
            next = disk;
            next_save = top;
            memcpy(run.next_content, run.content, run.disk_bytes);
            next_bytes = run.disk_bytes;
            continue;
        }
        report(l, seed, g, &cuts.cut[i]);
        co_vdisk_free(disk);
    }
    free(cuts.cut);
    if (next)
        memmove(next_top, next_save, strlen(next_save) + 1);
    if (next)
        versions_restart(&l->w.ver, run.next_content, next_bytes / SECTOR);
    return next;
}

/* ---- lives -------------------------------------------------------------------------------- */

static bool co_begin(struct live *l, uint64_t seed)
{
    struct error err = ERROR_INIT;

    l->w.rnd.state = seed * 7368787;
    l->broken = run.broken;
    l->disk = vdisk_now = vdisk_new();
    versions_init(&l->w.ver, DISK_MAX / SECTOR);
    if (co_live_make(l, &err) || co_live_open(l, l->save[0].top, &err)) {
        printf("seed %" PRIu64 ": making the chain: %s\n", seed, err.msg);
        run.violations++;
        return false;
    }
    for (uint64_t at = 0, end = l->layer[l->nr_layers - 1].node->size_bytes; at < end; at += 65536)
        co_blk_read(l->layer[l->nr_layers - 1].node, at, run.content + at, MIN_OF(end - at, 65536),
                    0);
    versions_restart(&l->w.ver, run.content, l->layer[l->nr_layers - 1].node->size_bytes / SECTOR);
    co_live_close(l);
    return true;
}

static void co_one_life(struct live *l)
{
    struct error err = ERROR_INIT;

    l->w.faults = !run.broken && rnd_one_in(&l->w.rnd, 3);
    l->disk->lose_flush = live_lose_flush;
    l->disk->fail = world_fault;
    l->disk->arg = l; /* a struct world too: its first member */
    vdisk_record(l->disk, rnd_next(&l->w.rnd));
    if (co_live_open(l, l->save[0].top, &err))
        world_fail(&l->w, "open: %s", err.msg);
    else
        co_live_work(l, 40 + (unsigned)rnd_below(&l->w.rnd, 80));
    co_live_close(l);
    vdisk_work_out(l->disk);
    versions_work_out(&l->w.ver);
    run.faults += l->w.nr_faults;
    l->w.nr_faults = 0;
    for (unsigned i = 0; i < l->nr_spans; i++)
        run.ops[l->span[i].op]++;
}

static void co_lives(uint64_t seed)
{
    struct live *l = calloc(1, sizeof(*l));
    struct vdisk *next;

    if (!l || !co_begin(l, seed))
        return;
    for (unsigned g = 0; g < GENERATIONS && !run.violations && run.done < run.cuts; g++) {
        co_one_life(l);
        report(l, seed, g, NULL);
        next = run.violations ? NULL : co_judge_cuts(l, seed, g, l->save[0].top);
        if (!next)
            break;
        co_vdisk_free(l->disk);
        l->disk = vdisk_now = next;
        l->nr_saves = 1;
        l->nr_spans = 0;
        l->save[0].start = l->save[0].end = 0;
    }
    versions_free(&l->w.ver);
    co_vdisk_free(l->disk);
    free(l);
}

static void main_co(void *arg)
{
    (void)arg;
    while (run.done < run.cuts && !run.violations) {
        uint64_t before = run.done;

        co_lives(run.seed);
        if (run.verbose)
            printf("seed %" PRIu64 ": %" PRIu64 " cuts\n", run.seed, run.done - before);
        run.seed++;
    }
    run.ended = true;
}

/* ---- the program ---------------------------------------------------------------------------- */

static bool take_broken(const char *name)
{
    for (int i = 1; i < LIVE_NR_BROKEN; i++)
        if (!strcmp(name, broken_names[i]))
            run.broken = (enum live_broken)i;
    return run.broken;
}

static bool take_options(int argc, char **argv)
{
    bool ok = true;
    int opt;

    while (ok && (opt = getopt(argc, argv, "n:s:q:b:v")) != -1)
        switch (opt) {
        case 'n':
            run.cuts = strtoull(optarg, NULL, 10);
            break;
        case 's':
            run.seed = strtoull(optarg, NULL, 10);
            break;
        case 'q':
            run.qemu_every = strtoull(optarg, NULL, 10);
            break;
        case 'b':
            ok = take_broken(optarg);
            break;
        case 'v':
            run.verbose = true;
            break;
        default:
            ok = false;
        }
    return ok && optind == argc;
}

static void tell(void)
{
    printf("%" PRIu64 " cuts of chains (seeds %" PRIu64 "..%" PRIu64 "), %" PRIu64
           " seen by qemu-img, %" PRIu64 " writes and flushes made to fail\n",
           run.done, run.first_seed, run.seed - 1, run.asked_qemu, run.faults);
    for (int i = 0; i < LIVE_NR_OPS; i++)
        printf("%s%s: %" PRIu64 " cuts in %" PRIu64, i ? ", " : "", live_op_names[i], run.of_op[i],
               run.ops[i]);
    printf("\n%" PRIu64 " violations\n", run.violations);
}

int main(int argc, char **argv)
{
    if (!take_options(argc, argv)) {
        fputs("usage: chains [-n CUTS] [-s SEED] [-q EVERY] [-b BARRIER] [-v]\n", stderr);
        return 2;
    }
    if (run.broken || (run.qemu_every && !qemu_start()))
        run.qemu_every = 0;
    if (loop_init() || workers_init(2) || blk_init())
        return 2;
    qcow2_set_corrupt_sink(on_corrupt);
    run.first_seed = run.seed;
    co_spawn(main_co, NULL);
    while (!run.ended || blk_closing())
        loop_turn(true);
    tell();
    qemu_end(run.violations != 0);
    workers_fini();
    blk_fini();
    loop_fini();
    return run.violations ? 1 : 0;
}
