/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much a background copy may have under way: congestion control for two paths, source and
 * wire (reads) and destination disk (writes), each on its own. Pure: time comes from outside.
 *
 * A path has a window of bytes. What a window ought to move is window / latency at rest; what it
 * moves less than that stands in a queue. While the queue is short the window grows by a piece a
 * round (AI; doubles until the first queue is seen), else it shrinks by a quarter (MD). How long a
 * queue may be depends on the guests: 30 ms with nobody there, little where they use the path.
 * Guest latency is the brake: requests served beside our copies are compared with requests served
 * alone, and where they take much longer, the window is halved, down to an eighth of a piece (a
 * piece, then a pause seven times as long). See docs/streaming.md.
 */
#ifndef COWTGT_PACE_H
#define COWTGT_PACE_H

#include <stdbool.h>
#include <stdint.h>
#include "lun-backends/image-settings.h"

#define PACE_NR_CLASSES 16 /* of piece sizes: powers of two from 4 KiB */
#define PACE_MIN_PIECE  (32u << 10)
#define PACE_MAX_PIECE  (4u << 20)
#define PACE_GRACE_NS   UINT64_C(2000000000) /* unless configured */

/* Adaptive takes what is idle. Idle does, too, but only after a time without guest I/O. Fixed has
 * no regard for guests: as much as there is room for, within the speed limit. */
struct pace_config {
    enum prefetch_mode mode;
    uint64_t grace_ns; /* PREFETCH_IDLE: so long without guest I/O */
};

struct pace_path {
    uint64_t window_bytes, in_flight_bytes;
    uint64_t idle_since_ns;            /* in_flight_bytes is 0 since then */
    uint64_t resume_ns;                /* with less than a piece of window: not before that */
    double rate;                       /* bytes/s, the best of late */
    uint64_t rest_ns[PACE_NR_CLASSES]; /* latency at rest of a piece; 0: not known */
    bool doubling;
    /* this round */
    uint64_t round_ns, round_bytes, latency_ns, queue_ns;
    uint64_t last_latency_ns; /* of the round before */
    unsigned nr_done;
    bool was_full;
    /* guests on this path */
    uint64_t guest_ns; /* last seen; 0: never */
    double alone_ns, beside_ns;
    unsigned nr_beside;
    uint64_t alone_seen_ns, probe_end_ns;
};

struct pace {
    struct pace_config config;
    struct pace_path wire, disk;
    uint64_t guest_ns; /* last guest request, whatever it used */
    unsigned guests_in_flight;
    uint64_t nr_brakes, nr_yields; /* halved for latency; cut because guests came */
};

void pace_init(struct pace *p, uint64_t now_ns);
/* Bytes to read at once: what the path takes in a few ms, a power of two. */
uint64_t pace_piece_bytes(const struct pace *p, uint64_t now_ns);
/* Nanoseconds until a piece may start on @path, 0: now, UINT64_MAX: when another ends. */
uint64_t pace_wait_ns(struct pace *p, struct pace_path *path, uint64_t bytes, uint64_t now_ns);
void pace_begin(struct pace_path *path, uint64_t bytes);
/* @failed: it tells nothing about the path. */
void pace_end(struct pace *p, struct pace_path *path, uint64_t bytes, uint64_t latency_ns,
              bool failed, uint64_t now_ns);
/* A guest's request began; ended, having begun at @begun_ns; @from_source: it had to ask it. */
void pace_guest_begin(struct pace *p, uint64_t now_ns);
void pace_guest_end(struct pace *p, bool from_source, uint64_t begun_ns, uint64_t now_ns);
/* True while guests use the path. */
bool pace_guest_on(const struct pace_path *path, uint64_t now_ns);

#endif
