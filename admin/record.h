/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must be known of a chain to serve it again after a restart. Pure: a C struct to JSON and
 * back by one table of fields; a damaged record is an error that names the field.
 */
#ifndef COWTGT_RECORD_H
#define COWTGT_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"
#include "lun-backends/file.h"
#include "util/list.h"
#include "util/uuid.h"

#define CHAIN_NAME_MAX 64

struct string_list {
    unsigned nr;
    char **items;
};
int string_list_add(struct string_list *l, const char *text); /* -ENOMEM */
void string_list_release(struct string_list *l);

struct number_list {
    unsigned nr;
    uint64_t *items;
};
int number_list_add(struct number_list *l, uint64_t number); /* -ENOMEM */
void number_list_release(struct number_list *l);

struct chain_record {
    struct list_head link; /* in the state */
    char *name;
    char *kind; /* "export" or "pull" */
    struct uuid uuid;
    uint64_t generation; /* fits 32 bits */
    char *target;
    struct string_list allowed;       /* initiator names, address prefixes; none: everybody */
    struct number_list portal_groups; /* that serve it; none: all */
    struct string_list masks;         /* "INITIATOR=LUNS", an initiator at most once */
    bool auth;                        /* nobody without a secret, even if the accounts are lost */
    char *redirect_to;                /* where logins are sent; NULL: they stay */
    bool redirect_permanently;
    bool writable;
    char *view;   /* "flat", "delta", "image" */
    char *path;   /* the top image, absolute */
    char *format; /* of the top; never probed again */
    bool probe_backing;
    char *cache;                        /* mode of its files, file_cache_from_name(); NULL: auto */
    struct string_list layer_formats;   /* base first; what each was at export */
    uint64_t block_bytes;               /* logical blocks of the LUNs; 0: 512 */
    bool removable;                     /* LUN 0's medium can be ejected */
    struct string_list mode_parameters; /* saved ones, a LUN each */
    struct string_list reservations;    /* persistent ones kept for initiators, a LUN each */
    struct string_list layer_paths;     /* the same order; tells layers apart after a change */
    struct number_list layer_luns;      /* the same order; 0: not shown (half committed) */
    uint64_t next_lun;                  /* numbers below were given once; 0: not noted yet */
    char *commit_base, *commit_top;     /* paths, while layers are committed; NULL: none are */
    char *copy_to;                      /* of a mirror or backup under way, which a restart ends */
    bool unclean; /* its top is open for writing, or was when the daemon was killed */

    /* ---- a pull, until its source is dropped (source_url NULL then) ---- */
    char *map_path;    /* of a block device's blocks, kept in the state directory; NULL: none */
    char *source_url;  /* with the LUN; neither user nor secret */
    char *source_user; /* CHAP */
    char *source_secret_file;
    bool source_has_cowl;
    bool source_unsealed; /* the user has said --quiesced */
    struct uuid source_layer;
    struct uuid source_naa; /* VPD 83h designator, 16 bytes of anything */
    uint64_t source_bytes;  /* capacity */
    uint64_t source_timeout_s;
    bool source_digests; /* CRC32C of PDU headers is insisted on */
    bool copy_on_read;
    bool stream; /* wanted: goes on after a restart */
    bool stream_paused;
    uint64_t speed_bytes;          /* per second, 0: no limit */
    char *stream_on_error;         /* as QMP has it; NULL: enospc */
    char *stream_group;            /* throttle group of the stream; NULL: none */
    uint64_t source_generation;    /* of the source's chain when layers were counted */
    char *base_path, *base_format; /* what stays below; NULL: nothing */
    uint64_t base_layers;          /* of the source above that base; 0: it can't tell, compare */

    bool keep_layers;                /* each of the source's layers gets a file: */
    struct number_list kept_luns;    /* LUN at the source, lowest layer first; ... */
    struct number_list kept_bytes;   /* its size; ... */
    struct number_list kept_cluster; /* its allocation unit, 0: not told; ... */
    struct string_list kept_uuids;   /* what it is; zeros: not told; ... */
    struct string_list kept_paths;   /* the file; ... */
    struct string_list kept_formats; /* and its format */
    char *stream_top, *stream_base;  /* paths, of a stream between layers of this host; NULL: none
                                        runs; nothing stays below */

    /* ---- what it holds at its source, see holds.h ---- */
    uint64_t hold_key; /* 0: nothing was ever held; fits 62 bits */
    char *hold_url;    /* while anything is held or to be given back */
    char *hold_user;   /* CHAP */
    char *hold_secret_file;
    struct number_list hold_luns;   /* needed */
    struct string_list hold_layers; /* the same order: their UUIDs, "" if the LUN has none */
    struct number_list drop_luns;   /* needed no more, the source may not know it yet */

    struct string_list settings; /* key=value, where the image has no place for them */

    char *throttle;                   /* JSON: group and limits of LUN 0; NULL: none */
    struct string_list lun_throttles; /* the same of layers: "LUN=JSON", a LUN at most once */
};

bool record_is_pull(const struct chain_record *rec);

/* NULL: out of memory. All strings NULL, kind as given. */
struct chain_record *record_new(const char *kind, const char *name);
void record_free(struct chain_record *rec);
/* Replaces a string member; -ENOMEM leaves it as it was. @text may be NULL. */
int record_set(char **member, const char *text);
/* All of the pull is here: what was needed to go on with it goes. */
void record_forget_source(struct chain_record *rec);
void record_forget_kept(struct chain_record *rec);
enum file_cache record_cache(const struct chain_record *rec);
/* NULL: out of memory. */
json_t *record_to_json(const struct chain_record *rec);
struct chain_record *record_from_json(const json_t *j, struct error *err);

/* Letters, digits, . _ -, 1..64 characters, not starting with a dot or dash. */
bool chain_name_ok(const char *name);

#endif
