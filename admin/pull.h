/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-pull: what is asked for, and doing it. */
#ifndef COWTGT_PULL_H
#define COWTGT_PULL_H

#include <jansson.h>
#include "admin/chains.h"
#include "discovery/chain-reader.h"

struct pull_opts {
    const char *url, *into_dir;     /* or a block device */
    const char *user, *secret_file; /* what initiators log in with; NULL: nothing */
    const char *format; /* of the local copy: "qcow2" or "raw"; NULL: as fits into_dir */
    const char *base;   /* a layer to keep, as the user named it; NULL: none */
    bool keep_layers;   /* the source's layers are recreated one by one */
    bool raw_base;      /* the lowest of them as raw */
    bool quiesced;      /* the user vouches that nobody writes to the source */
    bool start_stream;
    json_t *warnings; /* array; what the user should know is appended */
};

/*
 * Coroutine. @rec: name, target, allowed and the wishes about streaming are set; taken over. Makes
 * the overlay, joins it to the source, saves, serves, starts the stream. Returns the chain,
 * claimed, or NULL with everything undone.
 */
struct chain *co_pull(struct daemon *d, struct chain_record *rec, const struct pull_opts *opts,
                      struct error *err);

/* ---- pull-overlay.c -------------------------------------------------------------------------
 * Coroutines; the overlay is the one that the record names.
 */
bool pull_is_raw(const struct chain_record *rec);
/* Into the record: where, and which format. @out_dir (PATH_MAX): the directory to be synced when
 * the overlay is there. */
int co_pull_overlay_path(struct chain *c, const struct pull_opts *opts, char *out_dir,
                         struct error *err);
int co_pull_overlay_write(struct chain *c, struct error *err);
void co_pull_overlay_remove(struct chain_record *rec);
int co_pull_overlay_open(struct chain *c, struct error *err);
/* Of the open overlay; NULL: it stands alone. */
const char *pull_overlay_backing(const struct chain *c);

/* ---- pull-base.c --------------------------------------------------------------------------- */
/*
 * Which file here is the base that @text names, and how many layers of the source, of which LUN
 * @lun of @found is pulled, are above it; into the record. @dir: where to look for it by UUID.
 */
int co_pull_choose_base(struct chain *c, const struct found_chain *found, unsigned lun,
                        const char *text, const char *dir, struct error *err);
/* The base, open, against the source, connected: its size, and what it reads in some places. */
int co_pull_check_base(struct chain *c, struct error *err);
/* For a pull that was begun without one; @c is claimed and no job works on it. */
int co_pull_set_base(struct chain *c, const char *text, struct error *err);

/* ---- pull.c, for the others ------------------------------------------------------------------ */
/* What the source is reached with, as the record says; to be freed by free_remote_opts(). NULL with
 * @err. */
struct remote_opts *co_remote_opts_from_record(const struct chain *c, struct error *err);
void free_remote_opts(struct remote_opts *ro);

/* ---- pull-layers.c --------------------------------------------------------------------------- */
/* Which layers are to be recreated, and in which files in @dir; into the record. */
int keep_plan(struct chain *c, const struct found_chain *found, unsigned lun,
              const struct pull_opts *opts, const char *dir, struct error *err);
/* Makes the files, none of which may exist; on failure none is left. */
int co_keep_create(struct chain *c, struct error *err);
void co_keep_remove(const struct chain_record *rec);
/* How the overlay calls the topmost layer once all is here; NULL: layers are not kept. */
const char *keep_top_path(const struct chain_record *rec);

#endif
