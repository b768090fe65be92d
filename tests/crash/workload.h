/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One image in memory and what is done with it: random concurrent requests through a head, a
 * stream that ends with the backing dropped, resizes. Everything that was acknowledged is noted
 * in the versions, with its moments.
 *
 * No two requests change one sector at a time, but for those with BLK_IF_UNALLOCATED: they write
 * what the disk has there anyway, as copy-on-read does, and so must never be seen.
 */
#ifndef COWTGT_CRASH_WORKLOAD_H
#define COWTGT_CRASH_WORKLOAD_H

#include "lun-backends/block.h"
#include "tests/crash/record-node.h"
#include "tests/crash/rnd.h"
#include "tests/crash/versions.h"
#include "util/coroutine.h"

#define WORLD_WORKERS   6
#define WORLD_FAULTS    12 /* one in so many changes and flushes fails, while faults are on */
#define WORLD_MAX_BYTES (256u << 10) /* of one request */
#define BACKING_NAME    "backing.raw"
#define SNAPSHOT_NAME   "before" /* and the file with its content */

struct world_config {
    const char *name;
    uint32_t cluster_bytes;
    uint64_t disk_bytes;
    bool extended_l2, compat_v2;
    bool full_table;          /* the refcount table is about to be too small */
    const char *qemu_options; /* of the qemu-img convert that makes it; NULL: made by us */
    bool snapshot;            /* an internal one, by qemu-img */
};

/* A change of the image that happens once, if at all. */
struct world_change {
    uint64_t start, end; /* moments; RECORD_NEVER: it didn't happen, didn't end */
};

struct world {
    const struct world_config *cfg;
    struct rnd rnd;
    struct versions ver;
    uint8_t *base; /* content of the backing */
    uint64_t base_bytes;
    struct blk_node *backing; /* NULL: the image never had one */

    struct record_node *rec; /* the image's file */
    bool backed;             /* at the start of the workload */
    uint64_t disk_bytes;     /* likewise */
    uint64_t new_disk_bytes;
    struct world_change resize, drop;
    uint64_t limit_bytes;   /* requests stay below: it is about to become smaller */
    uint64_t resize_failed; /* RECORD_NEVER: it has not */
    uint64_t resize_undone; /* the disk has its old size for sure from then on */

    struct blk_node *node;
    struct blk_head head;
    bool has_backing;
    bool chain;     /* layers below are files too: nothing is kept by hand */
    bool faults;    /* changes and flushes may fail, or have failed */
    bool faults_on; /* they do now */
    uint64_t nr_faults;
    bool weak; /* a barrier is removed: what a flush says is not believed */
    struct {
        uint64_t start, end;
    } busy[WORLD_WORKERS];
    unsigned ops_left, workers;
    struct co_queue progress; /* of the workers */
    uint64_t cycles_seen;     /* for whoever loses flushes */
    char failure[400];        /* the first one; empty: none */
};

/* Lets the workers loose on w->node, for @nr_ops requests in all, through w->head. */
void world_start_workers(struct world *w, unsigned nr_ops);
/* Until so many requests are left, or all workers have ended. */
void co_world_wait(struct world *w, unsigned ops_left);
/* What requests may use of the disk. */
uint64_t world_disk_bytes(const struct world *w);
/* Is a worker's request under way in these sectors? */
bool world_is_busy(const struct world *w, uint64_t start, uint64_t end);
/* One request of a coroutine's own. */
int co_world_ask(struct world *w, enum blk_verb verb, uint64_t sector, uint64_t sectors,
                 uint8_t *buf, uint32_t flags);
/* What a copy-on-read or a stream does. Takes no range: it must never change what is read. The
 * backing can't be dropped between the look at it and the write. */
void co_world_keep(struct world *w, uint64_t sector, uint64_t sectors, uint8_t *buf);

/* changes.c: nothing has happened yet. */
void world_forget_changes(struct world *w);
/* Rare changes, while so many requests are worked off. */
void co_world_change(struct world *w, unsigned nr_ops);
/* Another size, once; what a smaller one cuts off is lost only when it is durable. */
void co_world_resize(struct world *w, uint64_t size_bytes);

/* A record node's fail: errors for the world in @arg. */
int world_fault(const struct blk_req *req, void *arg);
/* All that was acknowledged is flushed, and noted so; errors may prevent it. */
void co_world_flush(struct world *w);

/* Opens the image in w->rec, works @nr_ops requests' worth and closes it. */
void co_workload(struct world *w, unsigned nr_ops);

void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the backing has in @sectors from @sector on; zeros where it ends. */
void world_base_content(const struct world *w, uint64_t sector, uint64_t sectors, uint8_t *buf);

/* Opens @file, with the world's backing below it if the image names one. */
int co_world_open(struct world *w, struct record_node *file, struct blk_node **node,
                  bool *has_backing, struct error *err);

#endif
