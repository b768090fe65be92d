/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts. A seeded workload on a qcow2 image in memory, every write recorded; then the image
 * as it may be after a cut at any moment: what was flushed is there, of the rest any subset, any
 * order between flushes, torn at sectors. Each of these images must be right (image.c), and a
 * random one of them is what the next workload of the seed starts from.
 *
 *   crash [-n IMAGES] [-s SEED] [-q EVERY] [-b BARRIER] [-v]
 *
 * -n  how many crash images to judge (5000)
 * -s  the first seed (1). One seed is one image's life, the same each time, but where clusters
 *     are compressed: those are unpacked on threads
 * -q  every how many images qemu-img is asked; 0: never (100)
 * -b  removes a barrier, which the harness has to find. flush: the first of each flush cycle;
 *     refcounts, data: that flush, for the one and not for the other; reuse: freed clusters are
 *     used again at once; shrink: a smaller size is written when what it cuts off is free
 * -v  a line for each seed
 * Exit status: 0 all right, 1 violations found, 2 it could not work.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/qcow2-int.h"
#include "tests/crash/cut.h"
#include "tests/crash/image.h"
#include "tests/crash/origin.h"
#include "tests/crash/qemu.h"
#include "tests/crash/structure.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

#define SECTOR         RECORD_SECTOR
#define GENERATIONS    3
#define GOING_ON_EVERY 8
#define MAX_PRINTED    20

/* Barriers that can be removed on purpose. */
enum broken {
    BROKEN_NONE,
    BROKEN_FLUSH,
    BROKEN_REFCOUNTS,
    BROKEN_DATA,
    BROKEN_REUSE,
    BROKEN_SHRINK,
    BROKEN_NR
};

static const char *const broken_names[] = {
    [BROKEN_NONE] = "none", [BROKEN_FLUSH] = "flush", [BROKEN_REFCOUNTS] = "refcounts",
    [BROKEN_DATA] = "data", [BROKEN_REUSE] = "reuse", [BROKEN_SHRINK] = "shrink",
};

static struct {
    uint64_t images, seed, first_seed, qemu_every;
    enum broken broken;
    bool verbose;
    struct world *world;
    struct judge judge;
    uint64_t done_images, violations, workloads, ops, events, grown, shrunk, dropped, faults;
    bool ended, shrinking;
} run = {.images = 5000, .seed = 1, .qemu_every = 100};

/* ---- one life ---------------------------------------------------------------------------- */

static void report(struct world *w, uint64_t seed, unsigned generation, const char *when)
{
    if (!w->failure[0])
        return;
    if (run.violations++ < MAX_PRINTED)
        printf("seed %" PRIu64 " (%s%s) life %u, %s: %s\n", seed, w->cfg->name,
               w->backing ? ", overlay" : "", generation, when, w->failure);
    w->failure[0] = '\0';
}

static void co_judge_cut(struct world *w, uint64_t seed, unsigned generation, struct cut cut,
                         struct record_node *image, bool go_on, uint64_t known_leaks)
{
    char when[120];
    bool ok = co_judge(&run.judge, w, image, cut.moment, known_leaks);

    run.done_images++;
    if (ok && qemu_dir() && run.done_images % run.qemu_every == 0)
        ok = judge_by_qemu(&run.judge, w, image);
    if (ok && go_on) {
        struct record_node *copy = record_node_new(image->data, image->node.size_bytes);

        co_judge_going_on(&run.judge, w, copy);
        co_blk_node_unref(&copy->node);
    }
    snprintf(when, sizeof(when), "cut at %" PRIu64 ", kept %s", cut.moment, kept_names[cut.kept]);
    if (w->failure[0] && !run.violations)
        judge_keep(w, image);
    report(w, seed, generation, when);
}

/* Judges all cuts of one workload, which began with @start; the image the next one starts from,
 * judged last, or NULL. */
static struct record_node *co_judge_cuts(struct world *w, uint64_t seed, unsigned generation,
                                         struct record_node *start, struct record_log *log)
{
    struct common common = {.image = start};
    struct record_node *image, *next = NULL;
    struct cuts cuts;
    struct structure st;
    size_t lucky;
    uint64_t moment = 0;

    structure_check(start->data, start->node.size_bytes, &st);
    if (!plan_cuts(&w->rnd, log, 1, *w->rec->clock + 1, &cuts)) {
        world_fail(w, "out of memory");
        return NULL;
    }
    lucky = rnd_below(&w->rnd, cuts.nr);
    for (size_t i = 0; i < cuts.nr && run.done_images < run.images; i++) {
        cut_advance(&common, log, cuts.cut[i].moment);
        image = cut_build(&w->rnd, &common, log, cuts.cut[i], false);
        co_judge_cut(w, seed, generation, cuts.cut[i], image, i % GOING_ON_EVERY == 0,
                     st.leaked_clusters);
        if (i == lucky && !run.violations) {
            next = record_node_new(image->data, image->node.size_bytes);
            moment = cuts.cut[i].moment;
        }
        co_blk_node_unref(&image->node);
    }
    free(cuts.cut);
    if (next)
        co_judge(&run.judge, w, next, moment, st.leaked_clusters);
    return next;
}

static unsigned lose_first_of_cycle(struct record_node *r, void *arg)
{
    static const unsigned lost[BROKEN_NR] = {
        [BROKEN_FLUSH] = RECORD_LOSE_ALL,
        [BROKEN_REFCOUNTS] = RECORD_LOSE_META,
        [BROKEN_DATA] = RECORD_LOSE_DATA,
    };
    struct world *w = arg;
    struct qcow2_stats st;

    (void)r;
    if (!w->node)
        return 0;
    qcow2_get_stats(w->node, &st);
    if (st.cycles == w->cycles_seen)
        return 0;
    w->cycles_seen = st.cycles;
    return lost[run.broken];
}

void __real_qfree_move(struct qfree_list *to, struct qfree_list *from);
void __wrap_qfree_move(struct qfree_list *to, struct qfree_list *from);

/* What is freed goes back to the allocator before a cycle has made the freeing durable. */
void __wrap_qfree_move(struct qfree_list *to, struct qfree_list *from)
{
    struct qcow2 *q = run.world && run.world->node ? qcow2_of(run.world->node) : NULL;

    if (run.broken != BROKEN_REUSE || !q || to != &q->freed_in_cycle) {
        __real_qfree_move(to, from);
        return;
    }
    __real_qfree_move(&q->freed_ready, from);
    qcow2_reclaim_kick(q);
}

int __real_co_qcow2_write_header_sector(struct qcow2 *q, const uint8_t sector[QCOW2_SECTOR]);
int __wrap_co_qcow2_write_header_sector(struct qcow2 *q, const uint8_t sector[QCOW2_SECTOR]);
int __real_co_qcow2_shrink(struct blk_node *node, uint64_t size_bytes, struct error *err);
int __wrap_co_qcow2_shrink(struct blk_node *node, uint64_t size_bytes, struct error *err);

/* What a shrink writes into the header waits until all else of it is done. */
int __wrap_co_qcow2_write_header_sector(struct qcow2 *q, const uint8_t sector[QCOW2_SECTOR])
{
    if (!run.shrinking)
        return __real_co_qcow2_write_header_sector(q, sector);
    memcpy(q->header_sector, sector, QCOW2_SECTOR);
    return 0;
}

int __wrap_co_qcow2_shrink(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    run.shrinking = run.broken == BROKEN_SHRINK;
    ret = __real_co_qcow2_shrink(node, size_bytes, err);
    if (!run.shrinking)
        return ret;
    run.shrinking = false;
    memcpy(sector, qcow2_of(node)->header_sector, QCOW2_SECTOR);
    return ret ? ret : __real_co_qcow2_write_header_sector(qcow2_of(node), sector);
}

static void co_life(uint64_t seed)
{
    struct error err = ERROR_INIT;
    struct record_node *start, *next = NULL;
    struct record_log log;
    struct world w;

    if (co_make_world(&w, seed, &err))
        world_fail(&w, "making the image: %s", err.msg);
    report(&w, seed, 0, "at the start");
    for (unsigned g = 0; g < GENERATIONS && !run.violations && run.done_images < run.images; g++) {
        unsigned ops = 20 + (unsigned)rnd_below(&w.rnd, 80);

        next = NULL;
        start = record_node_new(w.rec->data, w.rec->node.size_bytes);
        record_start(w.rec, rnd_next(&w.rnd));
        w.cycles_seen = 0;
        w.faults = !run.broken && rnd_one_in(&w.rnd, 3);
        w.rec->fail = world_fault;
        w.rec->fail_arg = &w;
        w.rec->lose_flush = run.broken ? lose_first_of_cycle : NULL;
        w.rec->lose_arg = &w;
        run.world = &w;
        co_workload(&w, ops);
        run.world = NULL;
        log = record_work_out(w.rec);
        versions_work_out(&w.ver);
        run.workloads++;
        run.ops += ops;
        run.events += log.nr;
        run.grown += w.resize.end != RECORD_NEVER && w.new_disk_bytes > w.disk_bytes;
        run.shrunk += w.resize.end != RECORD_NEVER && w.new_disk_bytes < w.disk_bytes;
        run.dropped += w.drop.end != RECORD_NEVER;
        run.faults += w.nr_faults;
        w.nr_faults = 0;
        report(&w, seed, g, "running");
        if (!run.violations)
            next = co_judge_cuts(&w, seed, g, start, &log);
        report(&w, seed, g, "judging");
        record_log_free(&log);
        co_blk_node_unref(&start->node);
        if (!next)
            break;
        co_blk_node_unref(&w.rec->node);
        w.rec = next;
        versions_restart(&w.ver, run.judge.disk, run.judge.disk_bytes / SECTOR);
    }
    co_free_world(&w);
}

static void main_co(void *arg)
{
    (void)arg;
    while (run.done_images < run.images && !run.violations) {
        uint64_t before = run.done_images;

        if (world_possible(run.seed))
            co_life(run.seed);
        if (run.verbose)
            printf("seed %" PRIu64 ": %" PRIu64 " images\n", run.seed, run.done_images - before);
        run.seed++;
    }
    run.ended = true;
}

/* ---- the program --------------------------------------------------------------------------- */

static int usage(void)
{
    fputs("usage: crash [-n IMAGES] [-s SEED] [-q EVERY] [-b BARRIER] [-v]\n", stderr);
    return 2;
}

static bool take_number(const char *text, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 10);
    return !errno && *text >= '0' && *text <= '9' && !*end;
}

static bool take_broken(const char *name)
{
    for (int i = 1; i < BROKEN_NR; i++)
        if (!strcmp(name, broken_names[i]))
            run.broken = (enum broken)i;
    return run.broken;
}

static bool take_options(int argc, char **argv)
{
    bool ok = true;
    int opt;

    while (ok && (opt = getopt(argc, argv, "n:s:q:b:v")) != -1)
        switch (opt) {
        case 'n':
            ok = take_number(optarg, &run.images);
            break;
        case 's':
            ok = take_number(optarg, &run.seed);
            break;
        case 'q':
            ok = take_number(optarg, &run.qemu_every);
            break;
        case 'b':
            ok = take_broken(optarg);
            run.qemu_every = 0;
            break;
        case 'v':
            run.verbose = true;
            break;
        default:
            ok = false;
        }
    return ok && optind == argc;
}

static bool prepare(void)
{
    if (run.qemu_every && !qemu_start())
        run.qemu_every = 0;
    run.judge.max_bytes = world_max_disk();
    run.judge.disk = malloc(run.judge.max_bytes);
    return run.judge.disk && !loop_init() && !workers_init(2) && !blk_init();
}

int main(int argc, char **argv)
{
    if (!take_options(argc, argv))
        return usage();
    if (!prepare())
        return 2;
    run.first_seed = run.seed;
    co_spawn(main_co, NULL);
    while (!run.ended || blk_closing())
        loop_turn(true);
    printf("%" PRIu64 " workloads (seeds %" PRIu64 "..%" PRIu64 "): %" PRIu64 " requests, %" PRIu64
           " disks grown, %" PRIu64 " shrunk, %" PRIu64 " backings dropped; %" PRIu64
           " writes and flushes, %" PRIu64 " made to fail\n",
           run.workloads, run.first_seed, run.seed - 1, run.ops, run.grown, run.shrunk, run.dropped,
           run.events, run.faults);
    printf("%" PRIu64 " crash images: %" PRIu64 " seen by qemu-img, %" PRIu64
           " written on; leaked clusters: %" PRIu64 " on average, %" PRIu64 " at most\n",
           run.done_images, run.judge.asked_qemu, run.judge.went_on,
           run.judge.leaked_total / MAX_OF(run.done_images, 1), run.judge.leaked_most);
    printf("%" PRIu64 " violations\n", run.violations);
    qemu_end(run.violations != 0);
    free(run.judge.disk);
    workers_fini();
    blk_fini();
    loop_fini();
    return run.violations ? 1 : 0;
}
