/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The image commands: qemu-img's words on files, without a daemon. Each runs as one coroutine on
 * a loop of its own, with the same block graph that the daemon uses, and returns the exit status.
 */
#ifndef COWTGT_IMAGE_H
#define COWTGT_IMAGE_H

#include <jansson.h>

#include "admin/cli.h"
#include "lun-backends/chain.h"
#include "lun-backends/qcow2-offline.h"
#include "lun-backends/qcow2.h"

typedef int image_fn(json_t *args);
image_fn co_image_create, co_image_info, co_image_map, co_image_check, co_image_convert,
    co_image_rebase, co_image_commit, co_image_compare, co_image_resize, co_image_update;

#define IMAGE_UNSUPPORTED 63 /* check: the format has nothing to check */

/* image-open.c */
struct image_open {
    const char *format; /* "" or NULL: looked at */
    const char *cache;  /* qemu-img's -t and -T; NULL or "": the page cache */
    bool writable, only_top, share;
    const struct qcow2_snapshot_name *snapshot; /* NULL: the disk as it is */
};
/* Prints why not; NULL then. */
struct chain_image *co_image_open(const char *path, const struct image_open *how);
/* The file alone, as bytes. */
struct blk_node *co_image_open_file(const char *path, bool writable, bool share);
/* The format of an open file: as told, or looked at. NULL: none that we have (printed). */
const char *co_image_format(struct blk_node *file, const char *told);
static inline struct blk_node *image_top(const struct chain_image *chain)
{
    return chain->layers[chain->nr_layers - 1].node;
}
/* Reads zeros past the end. @node NULL: zeros. */
int co_image_read(struct blk_node *node, uint64_t offset, void *buf, size_t bytes);
/* Closes; a failure to write back what is in memory is one. */
int co_image_finish(struct chain_image *chain);
/* -t and -T name a cache mode; false (printed): one does not. */
bool image_cache_modes(const json_t *args);
/* "human" or "json" (*json); false (printed) for anything else. */
bool image_output(const json_t *args, bool *json);
void image_print_json(json_t *value); /* takes it */

/* image-new.c */
struct image_new {
    const char *format; /* "qcow2", "raw" */
    struct qcow2_create_opts q;
    bool has_size;
    enum qcow2_prealloc prealloc;
    char backing[1024], backing_fmt[64], data_file[1024];
};
/* A word of qemu-img's for preallocation; false (printed): @format has no such. */
bool image_prealloc(const char *word, const char *format, enum qcow2_prealloc *how);
/* Gives the disk of @node behind @from its place: "raw" or "qcow2". Prints what is wrong. */
int co_image_preallocate(struct blk_node *node, uint64_t from, enum qcow2_prealloc how, bool below);
/* From -o, -b, -F; prints what is wrong. */
int image_new_parse(struct image_new *n, const json_t *args, const char *format);
/* Makes the file (an existing one is made empty first). Prints what is wrong. */
int co_image_make(const char *path, const struct image_new *n);
/* Opens the backing file of a new image at @path: size, if none is set. */
int co_image_learn_backing(const char *path, struct image_new *n);

/* image-copy.c */
struct image_progress {
    bool on;
    uint64_t done, total;
    int shown; /* hundredths of a per cent */
};
/* -r BYTES/s, "" for no limit; prints what is wrong. */
int image_rate(const json_t *args, uint64_t *rate);
void image_progress_start(struct image_progress *p, const json_t *args, uint64_t total);
void image_progress_add(struct image_progress *p, uint64_t bytes);
void image_progress_end(struct image_progress *p);

struct image_copy {
    struct blk_node *from, *to;
    uint64_t bytes;
    unsigned layers;    /* of @from to look at; what none of them has is left. 0: all, as zeros */
    bool to_reads_zero; /* what is not written in @to reads zeros */
    uint32_t sparse_bytes; /* zeros of this length are not written as data; 0: all is */
    unsigned parallel;
    uint64_t to_offset;    /* where in @to the disk begins */
    uint32_t packed_bytes; /* clusters of this size are written compressed; 0: as they are */
    uint64_t rate;         /* bytes/s, 0: no limit */
    bool salvage;          /* what can't be read is said, and becomes zeros */
    struct image_progress *progress; /* started; the caller's to end */
};
/* -errno with @err. Not flushed. */
int co_image_copy(const struct image_copy *what, struct error *err);

#endif
