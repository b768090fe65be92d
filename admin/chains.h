/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The chains this daemon serves: layers, the target that shows them, and what is remembered of
 * them. Invariant: nothing is served before its record is on disk, and a record goes from disk
 * before the name is free again.
 *
 * A chain is changed by one command at a time (chain_claim); others are told that it is in use.
 */
#ifndef COWTGT_CHAINS_H
#define COWTGT_CHAINS_H

#include "admin/daemon.h"
#include "admin/state.h"
#include "lun-backends/block.h"
#include "lun-backends/chain.h"
#include "lun-backends/image-settings.h"
#include "lun-backends/job.h"
#include "target/target.h"

#define DEFAULT_SOURCE_TIMEOUT_S 120
#define TARGET_PREFIX            "iqn.2026-11.org.cowtgt:" /* where the user gives no --target */

struct stream_plan_opts;

struct layer {
    struct blk_node *node; /* format node; holds a reference */
    char *filename;
    char format[16];
    struct uuid uuid;
    uint16_t lun;  /* 0: it has none (half committed: it reads as the disk never did) */
    bool writable; /* not sealed */
};

struct chain {
    struct list_head link;
    struct daemon *d;
    struct chain_record *rec;
    unsigned refs;
    const char *claimed;  /* what the command that changes it is doing; NULL: free */
    struct error failure; /* why it is not served; msg "" if it is or will be */
    struct target *target;
    unsigned nr_layers;
    struct layer *layers;     /* local ones, [0] = lowest */
    bool base_assumed_raw;    /* layers[0]: nobody has said what it is */
    struct blk_node *remote;  /* below layers[0]; NULL: none (any more) */
    struct holder *holder;    /* of the source's LUNs, see holds.h; NULL: none */
    struct chain_image *base; /* of a pull that keeps one, until the source goes; may be NULL */
    struct blk_node *upper;   /* the source's layers above that base, between it and layers[0];
                                 NULL: there is none, or the source can't tell */
    struct keeping *keeping;  /* a layer that is being recreated, see pull-layers.c; mostly NULL */
    unsigned nr_kept;         /* layers of c->base that were recreated */
    struct needs *needs;      /* of the source's layers, see pull-drop.c; NULL: not known */
    struct blk_node *filter;  /* above the top: copy-on-read, a commit's watch, a replica;
                                 NULL: none */
    struct job *stream;       /* NULL: none runs */
    struct job *commit;       /* the same */
    struct job *copy;         /* a mirror, a backup; never two of the three */
    struct qcow2_settings settings; /* kept for it, see settings.h */
    uint64_t source_bytes_read;     /* over the wire, of a source that was dropped */
    bool fix_leaks;                 /* at opening: its writable top was not closed in order */
    bool closed;                    /* at the end of the daemon */
    struct list_head limits;        /* LUNs in throttle groups, see throttles.c */
    bool removed;                   /* off the list; whoever still has a reference lets go soon */
};

struct chain *chain_find(struct daemon *d, const char *name);
/* DeviceNotFound in @err if there is none. */
struct chain *chain_lookup(struct daemon *d, const char *name, struct error *err);
/* By chain name, or by the node name of one of its layers. */
struct chain *chain_lookup_device(struct daemon *d, const char *device, struct error *err);
struct chain *chain_get(struct chain *c);
void chain_put(struct chain *c);
/* For one command at a time: -EBUSY if another has it. */
int chain_claim(struct chain *c, const char *doing, struct error *err);
void chain_release(struct chain *c);

/* A new chain, claimed and listed, for a record that is not in the state yet: takes @rec over, on
 * failure too. */
struct chain *chain_new(struct daemon *d, struct chain_record *rec, const char *doing,
                        struct error *err);
/* Closes everything (coroutine) and takes the chain off the list; the record with it. */
void co_chain_discard(struct chain *c);

struct layer *chain_top(const struct chain *c);
/* What LUN 0 is rooted at: the filter or the top layer. */
struct blk_node *chain_disk_node(const struct chain *c);
/* Takes a reference on @node. */
int chain_add_layer(struct chain *c, struct blk_node *node, const char *filename,
                    const char *format, bool writable, const struct uuid *uuid, struct error *err);

/* The job that works on the chain, NULL: none. */
static inline struct job *chain_job(const struct chain *c)
{
    return c->stream ? c->stream : c->commit ? c->commit : c->copy;
}

/* Shows layer @i at its LUN number. */
int chain_serve_layer(struct chain *c, unsigned i, struct error *err);
/* Takes a layer's LUN away, whatever is under way to it has ended. Coroutine. */
void co_chain_unserve_lun(struct chain *c, uint16_t lun);
/* Target, LUN 0, layer LUNs, as the record says. On failure nothing is served. */
int co_chain_serve(struct chain *c, struct error *err);
/* Ends sessions, target, nodes. Jobs have ended before. */
void co_chain_close_down(struct chain *c);
/* VPD D5h of all LUNs anew; @announce: INQUIRY DATA HAS CHANGED. */
void chain_update_pages(struct chain *c, bool announce);

enum cowl_view chain_view(const struct chain_record *rec);
/* The name a target gets by default; -EINVAL where the name can't be part of one. */
int chain_default_target(const char *chain_name, char *out, size_t len);

/* At start: opens and serves every chain of the state. One that fails stays listed with why. */
void co_chains_reopen(struct daemon *d);
/* At the end (d->shutting_down is set): jobs are told to stop, they go on at the next start; ... */
void chains_cancel_jobs(struct daemon *d);
/* ... each is waited for, everything is closed clean. */
void co_chains_close_all(struct daemon *d);

/* ---- layers.c: layers and record --------------------------------------------------------- */
/* The layers just opened get the LUN numbers that the record has for their paths, new ones the
 * next numbers; then the record is made to say what is there. */
int chain_match_layers(struct chain *c, struct error *err);
uint16_t chain_next_lun(const struct chain_record *rec);

/* What a record says of layers: made for layers to come, swapped in, and back if that fails. */
struct layer_shape {
    char *path, *format; /* of the top */
    struct string_list formats, paths;
    struct number_list luns;
    uint64_t next_lun, generation;
    char *commit_base, *commit_top;
};
/* The next generation of @rec, with @n layers; commit_base and commit_top NULL. */
int shape_init(struct layer_shape *s, const struct chain_record *rec, const struct layer *layers,
               unsigned n, struct error *err);
void shape_swap(struct layer_shape *s, struct chain_record *rec);
void shape_release(struct layer_shape *s);
/* Takes the layers [first, first + n) of @c, which has them still, out of its record, in memory:
 * the images say so already. An error is logged, and the record follows at the next start. */
void chain_record_drop_layers(struct chain *c, unsigned first, unsigned n);

/* ---- cmd-account.c ------------------------------------------------------------------------ */
/* Before a new chain is served: what was left of one of its name goes, @user (or NULL) comes. */
int co_chain_first_account(struct chain *c, const char *user, const char *secret_file,
                           struct error *err);

/* ---- cmd-mask.c: LUN masks of the record, and on the target ------------------------------- */
/* Checked; "INITIATOR=LUNS", replaces what the initiator had. */
int record_add_mask(struct chain_record *rec, const char *mask, struct error *err);
int chain_masks_apply(struct chain *c, struct error *err);

/* ---- throttles.c: the limits of the record on LUNs, and none ---------------------------- */
/* On a LUN just served. */
void chain_throttle_apply(struct chain *c, uint16_t lun);
/* Before a LUN goes; the record keeps its limits. */
void chain_throttle_drop(struct chain *c, uint16_t lun);
void chain_throttle_drop_all(struct chain *c);

/* ---- export.c ------------------------------------------------------------------------- */
/* Opens the image and what is below it, fills layers and, the first time, formats. */
int co_chain_open_export(struct chain *c, struct error *err);

/* ---- pull.c --------------------------------------------------------------------------- */
/* Once it is on disk that the source is not needed: what only an incomplete device needed goes. */
void co_pull_tidy(struct chain_record *rec);
/* Opens overlay and source again after a restart. */
int co_chain_open_pull(struct chain *c, struct error *err);

/* ---- pull-base.c ------------------------------------------------------------------------ */
/* Opens the base of the record again and puts it where it belongs below the overlay. */
int co_pull_open_base(struct chain *c, struct error *err);
/* The overlay's backing edge and the copy-on-read filter, as the base wants them; drained. */
int pull_join(struct chain *c, struct error *err);
/* The same edge again, drained: the base has come. */
void pull_set_backing(struct chain *c);
/* The record's wish, as far as what is kept has a place in the overlay. */
void pull_apply_copy_on_read(struct chain *c);
/* The layers of @image, open, become the lowest of the chain, with new LUN numbers; not shown. */
int chain_insert_below(struct chain *c, const struct chain_image *image, struct error *err);

/* ---- pull-layers.c ---------------------------------------------------------------------- */
/* Opens what is complete and gives the first stage of the rest, and how much all of that is. 1:
 * there is one; 0: all is complete; -errno. */
int co_keep_begin(struct chain *c, struct stream_plan_opts *plan, struct error *err);
/* No job works on a layer any more. */
void co_keep_release(struct chain *c);

/* ---- pull-drop.c ------------------------------------------------------------------------ */
/* The stream job's co_passed: gives back the source's layers that are not needed any more. */
uint64_t co_chain_passed(struct job *job, uint64_t durable_bytes);
/* What was found out for it. */
void chain_forget_passed(struct chain *c);
/* The layer of the source at its LUN @lun is here, durably: it is given back, unless the disk
 * there goes by its name. */
void co_chain_give_back(struct chain *c, uint16_t lun);
/* An upper_count_fn; @opaque: the chain. By the layers that are still held. */
int co_chain_count_upper(void *opaque, unsigned *layers, uint32_t *generation, struct error *err);

/* ---- live-stream.c ---------------------------------------------------------------------- */
/* After a restart: the stream between layers goes on that the record tells of. Coroutine. */
void co_chain_resume_local_stream(struct chain *c);

/* ---- streams.c -------------------------------------------------------------------------- */
struct stream_opts {
    const char *job_id; /* NULL: the chain's name */
    uint64_t speed_bytes;
    enum job_on_error on_error;
    bool paused;
    bool auto_finalize, auto_dismiss;
};
/* Options and end of a job just made, which then runs. */
void chain_begin_stream(struct job *job, const struct stream_opts *opts,
                        void (*on_done)(struct job *job, void *opaque), void *opaque);
/* Of the record, for chain_pace_stream(); NULL: none. */
int chain_set_stream_group(struct chain *c, const char *group, struct error *err);
/* The settings of the chain decide how its stream shares with guests; at once. */
void chain_pace_stream(const struct chain *c);
int co_chain_start_stream(struct chain *c, const struct stream_opts *opts, struct error *err);
/* The stream's wish in the record follows what the user does to the job; coroutine, saves. */
void co_chain_note_job(struct daemon *d, const struct job *job);
/* Cancels its job if there is one, waits for its end. */
void co_chain_stop_job(struct chain *c);

#endif
