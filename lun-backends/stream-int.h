/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the stream job share; nobody else includes this. */
#ifndef COWTGT_STREAM_INT_H
#define COWTGT_STREAM_INT_H

#include "lun-backends/store.h"
#include "lun-backends/stream.h"
#include "lun-backends/stream-plan.h"
#include "lun-backends/throttle.h"
#include "util/coroutine.h"

#define STREAM_MAX_COPIES  32
#define STREAM_MAX_EXTENTS 256
#define STREAM_MAX_HOT     32

struct stream;

struct copy {
    struct list_head link; /* in copies: ascending offsets; or in hot_copies */
    struct stream *s;
    enum plan_kind kind;
    bool hot;
    uint64_t offset, bytes;
    struct store_buf buf; /* PLAN_COPY */
};

struct failure {
    uint64_t offset;
    int error; /* positive */
    bool is_write;
};

/* Where guests had to ask the source of late, and what follows; latest first. */
struct hot_list {
    uint64_t seen[STREAM_MAX_HOT]; /* a ring: offset + 1, 0: none */
    unsigned next_seen, nr;
    struct hot_range {
        uint64_t start, end;
    } range[STREAM_MAX_HOT];
    uint64_t lead_bytes; /* copied here that the walk has not matched yet */
};

struct stream {
    struct job job;
    struct blk_head dst, src, below; /* below: what data is compared with, if how.below */
    struct store_how how;
    unsigned layers; /* of the source; 0: all */
    int (*co_next)(struct job *job, struct stream_stage *next, struct error *err);
    uint64_t (*co_passed)(struct job *job, uint64_t durable_bytes);
    uint64_t tell_from; /* when that is to be called again */
    bool telling;
    struct co_queue told;
    bool left;                         /* no stage is entered: the owner is asked for the next */
    uint64_t total_bytes, done_before; /* all stages; those that are over */
    struct bufpool *pool;
    struct plan plan;
    uint64_t pos;
    uint64_t counted; /* everything below went into the statistics */
    unsigned nr_copies, steps;
    struct list_head copies, hot_copies;
    struct co_queue copy_ended;                     /* the planner waits */
    struct co_queue disk_room;                      /* copies that have their data wait */
    struct failure failures[STREAM_MAX_COPIES + 2]; /* copies, status, background flush */
    unsigned nr_failures;
    int ignored_error;
    bool source_down, source_up_news, flushing;
    uint64_t flushed_ns, flush_from_ns, unflushed_bytes;
    struct stream_config config;
    bool in_stage;                           /* it has its heads */
    char group[65];                          /* "": none */
    struct throttle_config limits;           /* the group's, between two stages */
    struct throttle_member *src_in, *dst_in; /* NULL: not in a group */
    struct pace pace;
    struct blk_watch watch; /* of the guests */
    struct hot_list hot;
    struct stream_stats stats;
    struct blk_extent ext[STREAM_MAX_EXTENTS];
};

/* ---- stream.c ---- */
/* The planner has something else to do: failures, a pause, the end. */
bool stream_interrupted(const struct stream *s);
void stream_note_failure(struct stream *s, uint64_t offset, int ret, bool is_write);
void stream_update_progress(struct stream *s);
/*
 * What is below says of [offset, end), in @ext. A source that can't tell (but is there) is read:
 * then the reads find out. Their number, or -errno.
 */
int co_stream_ask_source(struct stream *s, uint64_t offset, uint64_t end, struct blk_extent *ext,
                         unsigned max);

/* ---- stream-need.c ---- */
/* All below @done of the only stage is copied: the owner may hear of it. */
void stream_tell_passed(struct stream *s, uint64_t done);

/* ---- stream-copy.c ---- */
/* Bytes to copy at once: what the link takes in a few ms, small enough that a slow job goes
 * smoothly, never less than a unit. */
uint64_t stream_copy_bytes(const struct stream *s);
/* Starts one copy; false: interrupted, nothing was started. */
bool co_stream_start_copy(struct stream *s, const struct plan_run *run, bool hot);
void co_stream_wait_idle(struct stream *s);

/* ---- stream-hot.c ---- */
void stream_hot_note(struct stream *s, uint64_t offset, uint64_t bytes);
/* Copies what guests asked for of late and what follows it; false: interrupted. */
bool co_stream_serve_hot(struct stream *s);

#endif
