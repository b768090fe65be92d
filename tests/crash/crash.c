/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts. A seeded workload on a qcow2 image in memory, every write recorded; then the image
 * as it may be after a cut at any moment: what was flushed is there, of the rest any subset, any
 * order between flushes, torn at sectors. Each of these images must be right (image.c), and a
 * random one of them is what the next workload of the seed starts from.
 *
 *   crash [-n IMAGES] [-s SEED] [-q EVERY] [-b] [-v]
 *
 * -n  how many crash images to judge (5000)
 * -s  the first seed (1). One seed is one image's life, the same each time, but where clusters
 *     are compressed: those are unpacked on threads
 * -q  every how many images qemu-img is asked; 0: never (100)
 * -b  loses the first flush of each flush cycle: the harness has to find that
 * -v  a line for each seed
 * Exit status: 0 all right, 1 violations found, 2 it could not work.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/qcow2.h"
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

static struct {
    uint64_t images, seed, first_seed, qemu_every;
    bool lose_flushes, verbose;
    struct judge judge;
    uint64_t done_images, violations, workloads, ops, events, grown, dropped;
    bool ended;
} run = {.images = 5000, .seed = 1, .qemu_every = 100};

/* ---- the moments and ways of a cut ------------------------------------------------------- */

enum kept { KEPT_ALL, KEPT_NONE, KEPT_SOME, KEPT_TORN, KEPT_ONE, KEPT_BUT_ONE, KEPT_NR };

static const char *const kept_names[] = {
    [KEPT_ALL] = "all",           [KEPT_NONE] = "nothing",  [KEPT_SOME] = "some writes",
    [KEPT_TORN] = "some sectors", [KEPT_ONE] = "one write", [KEPT_BUT_ONE] = "all but one write",
};

struct cut {
    uint64_t moment;
    enum kept kept;
};

struct cuts {
    struct cut *cut;
    size_t nr;
};

static int by_moment(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;

    return x->moment < y->moment ? -1 : x->moment > y->moment;
}

/* Both sides of each flush, and moments between. */
static bool plan_cuts(struct world *w, const struct record_log *log, struct cuts *c)
{
    uint64_t last = w->rec->clock + 1;
    size_t flushes = 0, random;

    for (size_t i = 0; i < log->nr; i++)
        flushes += log->ev[i].kind == RECORD_FLUSH;
    random = 2 * flushes + 16;
    c->nr = 0;
    c->cut = calloc(3 * flushes + random, sizeof(*c->cut));
    if (!c->cut)
        return false;
    for (size_t i = 0; i < log->nr; i++) {
        const struct record_event *ev = &log->ev[i];

        if (ev->kind != RECORD_FLUSH)
            continue;
        c->cut[c->nr++] = (struct cut){ev->end, KEPT_ALL};
        c->cut[c->nr++] = (struct cut){ev->end, (enum kept)(2 + rnd_below(&w->rnd, 4))};
        c->cut[c->nr++] = (struct cut){ev->end + 1, KEPT_NONE};
    }
    while (random--)
        c->cut[c->nr++] =
            (struct cut){1 + rnd_below(&w->rnd, last), (enum kept)(rnd_below(&w->rnd, KEPT_NR))};
    qsort(c->cut, c->nr, sizeof(*c->cut), by_moment);
    return true;
}

/* Sector by sector, each with a chance of @num in 8. */
static void apply_torn(struct world *w, struct record_node *image, const struct record_event *ev,
                       uint64_t num)
{
    uint64_t end = ev->offset_bytes + ev->length_bytes, next;

    for (uint64_t at = ev->offset_bytes; at < end; at = next) {
        next = MIN_OF(round_down_pow2(at, SECTOR) + SECTOR, end);
        if (rnd_below(&w->rnd, 8) < num)
            record_apply(image, ev, at, next - at);
    }
}

static void apply_kept(struct world *w, struct record_node *image, const struct record_event *ev,
                       enum kept kept, bool chosen, uint64_t num)
{
    bool whole = kept == KEPT_ALL || (kept == KEPT_SOME && rnd_below(&w->rnd, 8) < num) ||
                 (kept == KEPT_ONE && chosen) || (kept == KEPT_BUT_ONE && !chosen);

    if (whole)
        record_apply(image, ev, ev->offset_bytes, ev->length_bytes);
    else if (kept == KEPT_TORN || (kept == KEPT_BUT_ONE && rnd_one_in(&w->rnd, 2)))
        apply_torn(w, image, ev, num);
}

static bool is_on_way(const struct record_event *ev, uint64_t moment)
{
    return ev->kind < RECORD_FLUSH && ev->start < moment && ev->durable >= moment;
}

static bool is_durable(const struct record_event *ev, uint64_t moment)
{
    return ev->kind < RECORD_FLUSH && ev->durable < moment;
}

/* What all cuts from a moment on have in common: the first events, up to one that was not
 * durable yet. */
struct common {
    struct record_node *image;
    size_t nr;
};

static void advance(struct common *c, const struct record_log *log, uint64_t moment)
{
    for (; c->nr < log->nr; c->nr++) {
        const struct record_event *ev = &log->ev[c->nr];

        if (is_durable(ev, moment))
            record_apply(c->image, ev, ev->offset_bytes, ev->length_bytes);
        else if (ev->kind < RECORD_FLUSH)
            break;
    }
}

/*
 * In the order of effects: what was durable, and some of what was on its way. A file system may
 * also have made the file longer than what was written, as growth goes in large steps.
 */
static struct record_node *build_image(struct world *w, const struct common *c,
                                       const struct record_log *log, struct cut cut)
{
    struct record_node *image = record_node_new(c->image->data, c->image->node.size_bytes);
    uint64_t num = 1 + 3 * rnd_below(&w->rnd, 3), on_way = 0, chosen;

    for (size_t i = c->nr; i < log->nr; i++)
        on_way += is_on_way(&log->ev[i], cut.moment);
    chosen = on_way ? rnd_below(&w->rnd, on_way) : 0;
    for (size_t i = c->nr; i < log->nr; i++) {
        const struct record_event *ev = &log->ev[i];

        if (is_durable(ev, cut.moment))
            record_apply(image, ev, ev->offset_bytes, ev->length_bytes);
        else if (is_on_way(ev, cut.moment))
            apply_kept(w, image, ev, cut.kept, chosen-- == 0, num);
    }
    if (rnd_one_in(&w->rnd, 4))
        record_extend(image, round_up_pow2(image->node.size_bytes + 1, 65536));
    return image;
}

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
    if (!plan_cuts(w, log, &cuts)) {
        world_fail(w, "out of memory");
        return NULL;
    }
    lucky = rnd_below(&w->rnd, cuts.nr);
    for (size_t i = 0; i < cuts.nr && run.done_images < run.images; i++) {
        advance(&common, log, cuts.cut[i].moment);
        image = build_image(w, &common, log, cuts.cut[i]);
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

static bool lose_first_of_cycle(void *arg)
{
    struct world *w = arg;
    struct qcow2_stats st;

    if (!w->node)
        return false;
    qcow2_get_stats(w->node, &st);
    if (st.cycles == w->cycles_seen)
        return false;
    w->cycles_seen = st.cycles;
    return true;
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
        w.rec->lose_flush = run.lose_flushes ? lose_first_of_cycle : NULL;
        w.rec->lose_arg = &w;
        co_workload(&w, ops);
        log = record_work_out(w.rec);
        versions_work_out(&w.ver);
        run.workloads++;
        run.ops += ops;
        run.events += log.nr;
        run.grown += w.resize.end != RECORD_NEVER;
        run.dropped += w.drop.end != RECORD_NEVER;
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
    fputs("usage: crash [-n IMAGES] [-s SEED] [-q EVERY] [-b] [-v]\n", stderr);
    return 2;
}

static bool take_number(const char *text, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 10);
    return !errno && *text >= '0' && *text <= '9' && !*end;
}

static bool take_options(int argc, char **argv)
{
    bool ok = true;
    int opt;

    while (ok && (opt = getopt(argc, argv, "n:s:q:bv")) != -1)
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
            run.lose_flushes = true;
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
           " disks grown, %" PRIu64 " backings dropped; %" PRIu64 " writes and flushes\n",
           run.workloads, run.first_seed, run.seed - 1, run.ops, run.grown, run.dropped,
           run.events);
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
