/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of chains under guest I/O: each is prepared with the guest running, then committed or
 * taken back with the disk drained. Invariant: at every moment the saved record and the images on
 * disk give a chain that reads as the guest left it. All functions are coroutines.
 */
#ifndef COWTGT_LIVE_H
#define COWTGT_LIVE_H

#include "admin/chains.h"

enum chain_op {
    CHAIN_OP_SNAPSHOT,
    CHAIN_OP_COMMIT,
    CHAIN_OP_MIRROR,
    CHAIN_OP_BACKUP,
    CHAIN_OP_STREAM, /* between layers */
    CHAIN_OP_PULL_STREAM,
    CHAIN_OP_GROW,
    CHAIN_OP_SHRINK,
    CHAIN_OP_RENAME_BACKING,
    CHAIN_OP_SWITCH_BACKING,
    CHAIN_OP_DROP_LAYER,
    CHAIN_OP_INSERT_FILTER,
    CHAIN_OP_REMOVE_COPY_ON_READ,
    CHAIN_OP_REMOVE_INJECT,
    CHAIN_OP_REMOVE, /* of the chain */
    CHAIN_NR_OPS,
};
/* Nothing that blockers.c lists is in the way; DeviceInUse names what is. */
int chain_check_op(const struct chain *c, enum chain_op op, struct error *err);
/* Open, with a target. */
int chain_check_served(const struct chain *c, struct error *err);
/* By node name, file name (whole, or its last part) or UUID; index, -1 with @err. */
int chain_find_layer(const struct chain *c, const char *text, struct error *err);

struct snapshot_order {
    struct chain *c;       /* claimed by the caller */
    const char *file;      /* absolute; NULL: one beside the top, named by us */
    const char *node_name; /* of the new top; may be NULL */
};
/* All or none, at one instant. */
int co_chains_snapshot(struct daemon *d, const struct snapshot_order *orders, unsigned n,
                       struct error *err);

/* Out of the chain, if nothing above needs what it decides; its file stays. */
int co_chain_drop_layer(struct chain *c, const char *text, struct error *err);

/* @shrink: may become smaller, which loses what is behind the new end. */
int co_chain_resize(struct chain *c, uint64_t size_bytes, bool shrink, struct error *err);
/* Another name, in the image of layer @i, for the file that is its backing. */
int co_chain_rename_backing(struct chain *c, unsigned i, const char *name, struct error *err);

/* ---- live-backing.c ---- */
/* Below layer @i come @file and its own backings, which have to read the same; @format NULL: as it
 * looks. */
int co_chain_switch_backing(struct chain *c, unsigned i, const char *file, const char *format,
                            struct error *err);

/* ---- live-commit.c ---- */
struct commit_order {
    unsigned top, base;       /* layers; top > base */
    const char *job_id;       /* NULL: the chain's name */
    const char *backing_file; /* what the layer above top is to call base; NULL: chosen */
    uint64_t speed_bytes;
    enum job_on_error on_error;
    bool auto_finalize, auto_dismiss;
    bool auto_complete; /* of the active layer: without being told */
};
int co_chain_commit(struct chain *c, const struct commit_order *order, struct error *err);

/* ---- live-stream.c ---- */
struct stream_order {
    unsigned top;             /* layer that is streamed into */
    int base;                 /* layer that stays, below top - 1; -1: none */
    const char *backing_file; /* what top is to call base; NULL: its file name */
    struct stream_opts opts;
};
int co_chain_stream(struct chain *c, const struct stream_order *order, struct error *err);

/* ---- copy-target.c ---- */
struct copy_target_order {
    const char *file;      /* absolute */
    const char *format;    /* "qcow2" or "raw"; NULL: an existing one as it looks, a new one as the
                              top is */
    bool existing;         /* it is there already; else it must not be */
    const char *node_name; /* may be NULL */
};
struct copy_target {
    char *path;
    char format[16];
    bool created;
    struct blk_node *node; /* holds a reference */
};
/* @t zeroed. A file of the size of the disk, open for writing; @below, or NULL for nothing, is what
 * its header names and what is below it in the graph. On failure a file that was made is gone. */
int co_copy_target_open(struct copy_target *t, const struct chain *c,
                        const struct copy_target_order *o, const struct layer *below,
                        struct error *err);
void co_copy_target_close(struct copy_target *t);
/* Closed, and removed if we made it. */
void co_copy_target_discard(struct copy_target *t);
void copy_target_release(struct copy_target *t);

/* ---- live-copy.c ---- */
enum copy_sync { COPY_FULL, COPY_TOP, COPY_NONE };
struct copy_order {
    bool backup; /* else a mirror */
    enum copy_sync sync;
    struct copy_target_order target;
    const char *job_id; /* NULL: the chain's name */
    uint64_t speed_bytes, buf_bytes;
    uint32_t granularity_bytes; /* 0: chosen; power of two */
    enum job_on_error on_source_error, on_target_error;
    bool keep_zeros, write_blocking;
    bool auto_finalize, auto_dismiss;
    bool auto_complete; /* of a mirror: the chain goes over without being told */
};
/* Starts the job. */
int co_chain_copy(struct chain *c, const struct copy_order *o, struct error *err);

/* ---- shared by them: live-layers.c, and co_layer_write_backing() in live.c ---- */
/* An image, and of no other chain of this daemon. */
int chain_check_other_chains(const struct chain *c, const struct layer *l, struct error *err);
/* Nobody uses the LUN of that number. */
int chain_check_lun(const struct chain *c, uint16_t number, struct error *err);
/* Layers are out of use: off the chain in memory, closed, told of. */
void co_chain_drop_layers(struct chain *c, unsigned first, unsigned n);
/* The same of @gone, which are not in its array any more; only those are told of whose files it has
 * not. The array stays the caller's. */
void co_chain_let_go(struct chain *c, struct layer *gone, unsigned n);
/* The record as @s says, on disk, and @s as the record was; on failure both as they were. */
int co_state_save_shape(struct chain *c, struct layer_shape *s, struct error *err);
/* The layer's file was changed by us, or is known to be as it is: what its UUID names, now and at
 * the next start. @keep_uuid: the content is still the one of that name. */
void layer_set_sealed(struct chain *c, struct layer *l, bool keep_uuid);
/* No writes any more, then layer_set_sealed(). One that can't be is logged and stays writable. */
void co_layer_seal(struct chain *c, struct layer *l, bool keep_uuid);
/* Drained above @l. Writes name and format of its backing into its image, sealed or not. */
int co_layer_write_backing(struct chain *c, struct layer *l, const char *name, const char *format,
                           struct error *err);

#endif
