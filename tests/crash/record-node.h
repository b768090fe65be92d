/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file in memory that remembers how it came to be: every write, zeroing, punch and flush, with
 * the moments when it was submitted and when it was acknowledged.
 *
 * It stands for a disk with a volatile cache. What it promises is only this: a change that was
 * acknowledged before a flush was submitted is durable when that flush is acknowledged. Requests
 * are acknowledged in random order.
 */
#ifndef COWTGT_CRASH_RECORD_NODE_H
#define COWTGT_CRASH_RECORD_NODE_H

#include "lun-backends/block.h"
#include "tests/crash/rnd.h"
#include "util/loop.h"

#define RECORD_SECTOR 512u
#define RECORD_NEVER  UINT64_MAX

/* SIZE: the file's size is @offset_bytes now. NOTHING: the place of what was moved. */
enum record_kind {
    RECORD_WRITE,
    RECORD_ZEROES,
    RECORD_PUNCH,
    RECORD_SIZE,
    RECORD_FLUSH,
    RECORD_NOTHING,
};

/* What a flush leaves volatile, or-ed: barriers removed on purpose. */
enum record_loss { RECORD_LOSE_DATA = 1, RECORD_LOSE_META = 2, RECORD_LOSE_ALL = 3 };

struct record_event {
    enum record_kind kind;
    bool fua, meta;
    unsigned lost; /* FLUSH: enum record_loss */
    uint64_t offset_bytes, length_bytes;
    uint8_t *data;       /* WRITE */
    uint64_t start, end; /* moments of submission and acknowledgement */
    uint64_t durable;    /* from this moment on; after record_work_out() */
};

/* In the order in which the events took effect. */
struct record_log {
    struct record_event *ev;
    size_t nr, max;
};

struct record_node {
    struct blk_node node;
    uint8_t *data; /* zeros from size_bytes to capacity, but for writes on their way */
    uint64_t capacity;

    bool recording;  /* else: acknowledged at once and forgotten */
    uint64_t *clock; /* the last moment; its own, unless it is set to one that files share */
    uint64_t own_clock;
    struct record_log log;
    struct rnd rnd;
    struct list_head waiting; /* requests to be acknowledged */
    struct deferred pump;

    /* Says of each flush what it loses (enum record_loss). NULL: nothing. */
    unsigned (*lose_flush)(struct record_node *r, void *arg);
    void *lose_arg;
    /* The errno (positive) with which a change or flush is to fail; 0: none. May be NULL. */
    int (*fail)(const struct blk_req *req, void *arg);
    void *fail_arg;
};

static inline struct record_node *record_of(struct blk_node *node)
{
    return container_of(node, struct record_node, node);
}

/* With a copy of @bytes at @data as its content; not recording. */
struct record_node *record_node_new(const uint8_t *data, uint64_t bytes);
void record_start(struct record_node *r, uint64_t seed);
/* A new moment, later than all before; never 0. */
static inline uint64_t record_tick(struct record_node *r)
{
    return ++*r->clock;
}

/* Stops recording and hands the log over, with the moments of durability filled in. */
struct record_log record_work_out(struct record_node *r);
void record_log_free(struct record_log *log);

/* Does to @r's content at once what [from, from + bytes) of @ev did. */
void record_apply(struct record_node *r, const struct record_event *ev, uint64_t from,
                  uint64_t bytes);
/* A longer file (never a shorter one), zeros behind. */
void record_extend(struct record_node *r, uint64_t size_bytes);

#endif
