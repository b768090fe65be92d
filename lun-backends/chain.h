/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A chain of image layers on this host: base <- ... <- top, opened from the top's file name.
 */
#ifndef COWTGT_CHAIN_H
#define COWTGT_CHAIN_H

#include "lun-backends/block.h"
#include "lun-backends/file.h"
#include "lun-backends/qcow2.h"
#include "util/uuid.h"

#define CHAIN_MAX_LAYERS 1024

struct chain_layer {
    struct blk_node *node;         /* format node; holds a reference */
    char *filename;                /* absolute path, "ram:SIZE", or a URL for a remote */
    char format[16];               /* "qcow2", "raw", "ram", "iscsi" */
    struct file_identity identity; /* of the file as opened (an external data file mixed in); all
                                      zeros for a remote or a RAM disk */
    bool writable;
    /* kept for the owner of the chain (admin), set after opening: */
    struct uuid uuid;
    uint16_t lun; /* its layer LUN; 0: not exported */
};

struct chain_image {
    unsigned nr_layers;
    struct chain_layer *layers; /* [0] = base .. [nr_layers - 1] = top */
    bool base_assumed_raw;      /* its format is recorded nowhere, and nobody looked */
};

struct chain_open_opts {
    const char *format; /* of the top image: NULL = probe it (only at first export) */
    bool writable;      /* the top */
    bool probe_backing; /* probe a backing file without a recorded format (else raw + warning) */
    bool fix_leaks;     /* the top was not closed in order: free what a crash may have leaked */
    enum file_cache cache;
    bool only_top; /* nothing below it: it reads zeros where it holds nothing itself */
    bool no_lock;  /* tools that look while others write */
    const struct qcow2_snapshot_name *snapshot; /* of the top; NULL: the disk as it is */
};

/*
 * Opens @path and everything below it, joined by backing edges. Backing names are relative to
 * the image that names them; "file:NAME" is taken, `json:{"driver":...}` with a plain file (and
 * qcow2 or raw over it) too, anything else (http:, nbd:, iscsi: ...) is refused by name. A loop,
 * "ram:SIZE" as @path is a new RAM disk. A loop, more than CHAIN_MAX_LAYERS layers, or a layer that
 * can't be served: one line that names the image and the reason. On failure everything is closed
 * again.
 */
int co_chain_open(const char *path, const struct chain_open_opts *opts, struct chain_image **chain,
                  struct error *err);
/* Of an open layer's files as they were opened last; false: nothing that lasts. */
bool chain_node_identity(const struct blk_node *layer, struct file_identity *id);
/* In a coroutine: drops the references, top first. NULL is fine. */
void co_chain_close(struct chain_image *chain);

/* Pure: what a backing name means. Result in @out (PATH_MAX); -ENOTSUP / -EINVAL with @err. */
int chain_resolve_backing(const char *image_path, const char *backing, char *out, size_t out_len,
                          char *format, size_t format_len, struct error *err);

/* The same for the name of a qcow2 image's external data file; always raw. */
int chain_resolve_data_file(const char *image_path, const char *name, char *out, size_t out_len,
                            struct error *err);

#endif
