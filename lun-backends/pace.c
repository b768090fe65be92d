/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows for background copies; see pace.h. */
#include "lun-backends/pace.h"

#include <string.h>

#include "util/size.h"

#define MS             UINT64_C(1000000)
#define GUEST_STAYS_NS (200 * MS) /* a guest is there for so long after a request */
#define IDLE_QUEUE_NS  (30 * MS)
#define GUEST_QUEUE_NS MS
#define IDLE_PIECE_NS  (4 * MS)
#define GUEST_PIECE_NS (MS + MS / 2)
#define LEAST_REST_NS  (MS / 20)
#define ROUND_NS       (10 * MS)
#define ROUND_PIECES   4
#define FIRST_PIECE    (256u << 10)
#define FIRST_WINDOW   (4u * FIRST_PIECE)
#define MAX_WINDOW     (32u << 20)
#define LEAST_SHARE    8 /* of a piece */
#define BRAKE_SAMPLES  16
#define BRAKE_RATIO    1.75  /* beside us a guest may take so much longer, ... */
#define BRAKE_SLACK_NS 200e3 /* ... and this */
#define PROBE_EVERY_NS (3000 * MS)
#define PROBE_NS       (30 * MS)
#define FIRST_PROBE_NS (300 * MS) /* after a guest came */
#define RATE_FADES     0.98
#define BREATH_PERCENT 67 /* of a piece's time at rest, free after it for a guest's request */
#define SMOOTH         (1.0 / 16)

static void init_path(struct pace_path *path, uint64_t now_ns)
{
    path->window_bytes = FIRST_WINDOW;
    path->doubling = true;
    path->round_ns = path->idle_since_ns = path->alone_seen_ns = now_ns;
}

void pace_init(struct pace *p, uint64_t now_ns)
{
    *p = (struct pace){.config = {.mode = PREFETCH_ADAPTIVE, .grace_ns = PACE_GRACE_NS}};
    init_path(&p->wire, now_ns);
    init_path(&p->disk, now_ns);
}

static uint64_t floor_pow2(uint64_t n)
{
    return n ? UINT64_C(1) << (63 - __builtin_clzll(n)) : 0;
}

static unsigned class_of(uint64_t bytes)
{
    unsigned c = 0;

    for (bytes >>= 13; bytes && c + 1 < PACE_NR_CLASSES; bytes >>= 1)
        c++;
    return c;
}

bool pace_guest_on(const struct pace_path *path, uint64_t now_ns)
{
    return path->guest_ns && now_ns - path->guest_ns < GUEST_STAYS_NS;
}

uint64_t pace_piece_bytes(const struct pace *p, uint64_t now_ns)
{
    bool guest = p->config.mode != PREFETCH_FIXED && pace_guest_on(&p->wire, now_ns);
    double ns = guest ? (double)GUEST_PIECE_NS : (double)IDLE_PIECE_NS;
    uint64_t bytes = floor_pow2((uint64_t)(p->wire.rate * ns / 1e9));

    if (p->wire.rate == 0)
        bytes = FIRST_PIECE;
    return MIN_OF(MAX_OF(bytes, (uint64_t)PACE_MIN_PIECE), (uint64_t)PACE_MAX_PIECE);
}

/* ---- may it start --------------------------------------------------------------------- */

/* Now and then nothing of ours goes for a moment, so that guests are seen alone. */
static uint64_t probe_wait_ns(struct pace_path *path, uint64_t now_ns)
{
    if (now_ns < path->probe_end_ns)
        return path->probe_end_ns - now_ns;
    if (!pace_guest_on(path, now_ns) || now_ns - path->alone_seen_ns < PROBE_EVERY_NS ||
        now_ns - path->probe_end_ns < PROBE_EVERY_NS)
        return 0;
    path->probe_end_ns = now_ns + PROBE_NS;
    return PROBE_NS;
}

static uint64_t idle_wait_ns(const struct pace *p, uint64_t now_ns)
{
    uint64_t quiet = now_ns - p->guest_ns;

    if (p->guests_in_flight)
        return p->config.grace_ns;
    return p->guest_ns && quiet < p->config.grace_ns ? p->config.grace_ns - quiet : 0;
}

uint64_t pace_wait_ns(struct pace *p, struct pace_path *path, uint64_t bytes, uint64_t now_ns)
{
    uint64_t wait = 0;

    if (p->config.mode == PREFETCH_FIXED)
        return path->in_flight_bytes && path->in_flight_bytes + bytes > MAX_WINDOW ? UINT64_MAX : 0;
    if (p->config.mode == PREFETCH_IDLE && path == &p->wire)
        wait = idle_wait_ns(p, now_ns);
    if (!wait)
        wait = probe_wait_ns(path, now_ns);
    if (wait)
        return wait;
    if (path->in_flight_bytes && path->in_flight_bytes + bytes > path->window_bytes) {
        path->was_full = true;
        return UINT64_MAX;
    }
    if (now_ns < path->resume_ns) {
        path->was_full = true;
        return path->resume_ns - now_ns;
    }
    return 0;
}

void pace_begin(struct pace_path *path, uint64_t bytes)
{
    path->in_flight_bytes += bytes;
}

/* ---- what a round tells --------------------------------------------------------------- */

static void new_round(struct pace_path *path, uint64_t now_ns)
{
    path->round_ns = now_ns;
    path->round_bytes = path->latency_ns = path->queue_ns = 0;
    path->nr_done = 0;
    path->was_full = false;
}

static void shrink(struct pace_path *path, uint64_t window, uint64_t least)
{
    path->window_bytes = MAX_OF(window, least);
    path->doubling = false;
}

static bool too_slow_beside(const struct pace_path *path)
{
    return path->nr_beside >= BRAKE_SAMPLES && path->alone_ns > 0 &&
           path->beside_ns > path->alone_ns * BRAKE_RATIO + BRAKE_SLACK_NS;
}

/* Never past what the path holds at rest and twice the queue allowed. */
static void grow(struct pace_path *path, uint64_t piece, uint64_t queue_ns, uint64_t rest_ns)
{
    uint64_t step = path->window_bytes < piece ? piece / LEAST_SHARE : piece;
    double most = path->rate * (double)(rest_ns + 2 * queue_ns) / 1e9 + (double)piece;

    path->window_bytes += path->doubling ? path->window_bytes : step;
    if ((double)path->window_bytes > most)
        path->window_bytes = MAX_OF((uint64_t)most, piece);
    path->window_bytes = MIN_OF(path->window_bytes, (uint64_t)MAX_WINDOW);
}

static void end_round(struct pace *p, struct pace_path *path, uint64_t piece, uint64_t now_ns)
{
    double seconds = (double)(now_ns - path->round_ns) / 1e9;
    double rate = (double)path->round_bytes / seconds;
    uint64_t queue = path->queue_ns / path->nr_done, latency = path->latency_ns / path->nr_done;
    bool guest = pace_guest_on(path, now_ns);
    uint64_t allowed = guest ? GUEST_QUEUE_NS : IDLE_QUEUE_NS;

    if (path->was_full || rate > path->rate)
        path->rate = MAX_OF(rate, path->rate * RATE_FADES);
    if (guest && too_slow_beside(path)) {
        shrink(path, path->window_bytes / 2, piece / LEAST_SHARE);
        path->nr_beside = 0;
        p->nr_brakes++;
    } else if (queue > allowed) {
        shrink(path, path->window_bytes - path->window_bytes / 4,
               MIN_OF(piece, path->window_bytes));
    } else if (path->was_full) {
        grow(path, piece, allowed, latency - queue);
    }
    path->last_latency_ns = latency; /* a change is seen only so much later */
    new_round(path, now_ns);
}

/* What a piece of a size not seen yet takes at rest, told from one that was: 0, none was. */
static uint64_t guess_rest_ns(const struct pace_path *path, unsigned class)
{
    for (unsigned c = 0; c < PACE_NR_CLASSES && path->rate > 0; c++) {
        double more = (double)(UINT64_C(4096) << c) - (double)(UINT64_C(4096) << class);
        double guess = (double)path->rest_ns[c] - more / path->rate * 1e9;

        if (path->rest_ns[c])
            return guess > (double)LEAST_REST_NS ? (uint64_t)guess : LEAST_REST_NS;
    }
    return 0;
}

/* At rest is what a piece took when it was alone; when it never gets there again, rest has changed.
 */
static void note_latency(struct pace_path *path, uint64_t bytes, uint64_t latency_ns, bool guest)
{
    uint64_t *rest = &path->rest_ns[class_of(bytes)];

    if (!*rest)
        *rest = guess_rest_ns(path, class_of(bytes));
    if (!*rest || latency_ns < *rest)
        *rest = latency_ns;
    else if (path->window_bytes <= bytes && !guest)
        *rest += (latency_ns - *rest) / 64;
    path->queue_ns += latency_ns - *rest;
    path->latency_ns += latency_ns;
}

void pace_end(struct pace *p, struct pace_path *path, uint64_t bytes, uint64_t latency_ns,
              bool failed, uint64_t now_ns)
{
    uint64_t piece = pace_piece_bytes(p, now_ns);

    path->in_flight_bytes -= bytes;
    if (!path->in_flight_bytes)
        path->idle_since_ns = now_ns;
    if (failed)
        return;
    note_latency(path, bytes, latency_ns, pace_guest_on(path, now_ns));
    path->round_bytes += bytes;
    path->nr_done++;
    path->resume_ns = 0;
    if (path == &p->wire && p->config.mode != PREFETCH_FIXED && pace_guest_on(path, now_ns))
        path->resume_ns = now_ns + path->rest_ns[class_of(bytes)] * BREATH_PERCENT / 100;
    if (path->window_bytes < bytes)
        path->resume_ns = now_ns + latency_ns * (bytes / path->window_bytes - 1);
    if (now_ns - path->round_ns > MAX_OF(ROUND_NS, path->last_latency_ns) &&
        path->nr_done >= ROUND_PIECES)
        end_round(p, path, piece, now_ns);
}

/* ---- guests --------------------------------------------------------------------------- */

void pace_guest_begin(struct pace *p, uint64_t now_ns)
{
    p->guests_in_flight++;
    p->guest_ns = now_ns;
}

static void smooth(double *mean, double sample)
{
    *mean = *mean > 0 ? *mean + (sample - *mean) * SMOOTH : sample;
}

static void guest_used(struct pace *p, struct pace_path *path, uint64_t begun_ns, uint64_t now_ns)
{
    double took = (double)(now_ns - begun_ns);
    bool alone = !path->in_flight_bytes && path->idle_since_ns <= begun_ns;

    if (!pace_guest_on(path, now_ns)) {
        path->guest_ns = now_ns;
        path->alone_seen_ns = now_ns - MIN_OF(now_ns, PROBE_EVERY_NS - FIRST_PROBE_NS);
        shrink(path, MIN_OF(path->window_bytes, pace_piece_bytes(p, now_ns)), 0);
        path->beside_ns = path->alone_ns = 0;
        path->nr_beside = 0;
        p->nr_yields++;
    }
    path->guest_ns = now_ns;
    if (alone) {
        smooth(&path->alone_ns, took);
        path->alone_seen_ns = now_ns;
    } else {
        smooth(&path->beside_ns, took);
        path->nr_beside++;
    }
}

void pace_guest_end(struct pace *p, bool from_source, uint64_t begun_ns, uint64_t now_ns)
{
    if (p->guests_in_flight)
        p->guests_in_flight--;
    p->guest_ns = now_ns;
    guest_used(p, from_source ? &p->wire : &p->disk, begun_ns, now_ns);
}
