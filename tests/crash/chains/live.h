/* SPDX-License-Identifier: BSD-3-Clause */
/* A chain of files in memory that changes while it is written to: see live.c. */
#ifndef COWTGT_CRASH_LIVE_H
#define COWTGT_CRASH_LIVE_H

#include "tests/crash/chains/vdisk.h"
#include "tests/crash/workload.h"

#define LIVE_LAYERS 12
#define LIVE_SAVES  32

enum live_op {
    LIVE_NONE, /* guests only */
    LIVE_SNAPSHOT,
    LIVE_COMMIT,
    LIVE_COMMIT_TOP,
    LIVE_MIRROR,
    LIVE_STREAM,
    LIVE_RAW,
    LIVE_GROW,
    LIVE_SHRINK,
    LIVE_NR_OPS,
};
extern const char *const live_op_names[LIVE_NR_OPS];

/* Barriers that can be removed on purpose. */
enum live_broken {
    LIVE_WHOLE,
    LIVE_NO_HEADER,    /* a snapshot is the top before its header is durable */
    LIVE_NO_COPY,      /* layers are taken out before what was committed is durable */
    LIVE_NO_DATA,      /* a backing is dropped before the data that replaces it is durable */
    LIVE_NO_BLOCKS,    /* a map says local before the block's data is durable */
    LIVE_NO_MIRROR,    /* the disk goes over to a mirror before it is durable */
    LIVE_NO_DATA_FILE, /* an image names data in its data file before it is durable there */
    LIVE_NR_BROKEN,
};

struct live_layer {
    char name[VDISK_NAME];
    struct blk_node *node;
};

/* What the owner's record names as the top, from @end on. */
struct live_save {
    char top[VDISK_NAME];
    uint64_t start, end;
};

struct live_span {
    enum live_op op;
    uint64_t start, end;
};

struct live {
    struct world w; /* first: it is what the guests see */
    struct vdisk *disk;
    enum live_broken broken;
    struct live_layer layer[LIVE_LAYERS]; /* base first */
    unsigned nr_layers, serial;
    bool raw; /* the destination is a raw image */
    struct blk_node *cor;
    struct record_node *weak_file; /* whose flushes do nothing */
    struct live_save save[LIVE_SAVES];
    bool weak_new; /* ... nor of the newest file */
    unsigned nr_saves;
    struct live_span span[LIVE_SAVES];
    unsigned nr_spans;
};

/* Makes the files of a new chain. */
int co_live_make(struct live *l, struct error *err);
/* Opens the chain whose top is @top; layers base first. */
int co_live_open(struct live *l, const char *top, struct error *err);
void co_live_close(struct live *l);
/* Guests' requests and a few operations; recorded, with the chain open before and after. */
void co_live_work(struct live *l, unsigned nr_ops);
unsigned live_lose_flush(struct record_node *r, void *arg);

#endif
