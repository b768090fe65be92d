/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-export, chain-pull, chain-remove, query-chains. */
#define LOG_AREA "chain"
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/accounts.h"
#include "admin/chain-info.h"
#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "admin/live.h"
#include "admin/holds.h"
#include "admin/pull.h"
#include "lun-backends/ram.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_ALLOWED 1024

static int check_name(const char *name, struct error *err)
{
    if (chain_name_ok(name))
        return 0;
    return error_set(err, EINVAL,
                     "'%.80s' can't name a chain: a name is 1 to %d letters, digits, '.', '_' or "
                     "'-', and starts with none of the last but '_'",
                     name, CHAIN_NAME_MAX);
}

static int check_absolute(const char *what, const char *path, struct error *err)
{
    if (*path == '/' && strlen(path) < PATH_MAX)
        return 0;
    return error_set(err, EINVAL, "%s: '%.200s' is no absolute path", what, path);
}

static int check_account_args(const json_t *args, struct error *err)
{
    const char *user = arg_string(args, "user"), *file = arg_string(args, "secret-file");

    if (!user != !file)
        return error_set(err, EINVAL, "'user' and 'secret-file' go together");
    return file ? check_absolute("secret file", file, err) : 0;
}

static int set_allowed(struct chain_record *rec, const json_t *list, struct error *err)
{
    const json_t *item;
    size_t i;

    if (json_array_size(list) > MAX_ALLOWED)
        return error_set(err, E2BIG, "more than %d allowed initiators", MAX_ALLOWED);
    json_array_foreach (list, i, item) {
        if (string_list_add(&rec->allowed, json_string_value(item)))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

static int set_groups(struct chain_record *rec, const json_t *list, struct error *err)
{
    const json_t *item;
    size_t i;

    if (json_array_size(list) > MAX_ALLOWED)
        return error_set(err, E2BIG, "more than %d portal groups", MAX_ALLOWED);
    json_array_foreach (list, i, item) {
        const char *text = json_string_value(item);
        char *end;
        unsigned long group = strtoul(text, &end, 10);

        if (*text < '0' || *text > '9' || *end || !group || group > UINT16_MAX)
            return error_set(err, EINVAL,
                             "'%.40s' is no portal group: use a number from 1 to 65535", text);
        if (number_list_add(&rec->portal_groups, group))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

static int set_masks(struct chain_record *rec, const json_t *list, struct error *err)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (record_add_mask(rec, json_string_value(item), err))
            return -err->errnum;
    }
    return 0;
}

/* What export and pull have in common. NULL with @err. */
static struct chain_record *record_from_args(struct daemon *d, const char *kind, const json_t *args,
                                             struct error *err)
{
    const char *name = arg_string(args, "name"), *target = arg_string(args, "target");
    char default_target[ISCSI_NAME_MAX + 1];
    struct chain_record *rec;

    if (check_name(name, err))
        return NULL;
    if (!target) {
        chain_default_target(name, default_target, sizeof(default_target));
        target = default_target;
    }
    if (chain_find(d, name)) {
        error_set_class(err, ERR_DEVICE_IN_USE, EEXIST,
                        "chain '%s' exists: choose another name or remove it first", name);
        return NULL;
    }
    if (target_find(target)) {
        error_set_class(err, ERR_DEVICE_IN_USE, EEXIST,
                        "target %s exists: give this chain another one with --target", target);
        return NULL;
    }
    rec = record_new(kind, name);
    if (!rec || record_set(&rec->target, target) || record_set(&rec->view, "flat")) {
        error_set(err, ENOMEM, "out of memory");
        record_free(rec);
        return NULL;
    }
    rec->source_timeout_s = arg_size(args, "source-timeout", DEFAULT_SOURCE_TIMEOUT_S);
    if (!rec->source_timeout_s || rec->source_timeout_s > 86400)
        error_set(err, EINVAL, "the source's timeout is 1 to 86400 seconds");
    else if (!set_allowed(rec, json_object_get(args, "allow"), err) &&
             !set_masks(rec, json_object_get(args, "mask"), err) &&
             !set_groups(rec, json_object_get(args, "portal-group"), err))
        return rec;
    record_free(rec);
    return NULL;
}

static json_t *co_info_and_release(struct chain *c)
{
    json_t *info;

    c->claimed = NULL;
    info = co_chain_info(c);
    chain_put(c);
    return info;
}

/* ---- chain-export ------------------------------------------------------------------------- */

static const char *const image_formats[] = {"qcow2", "raw", NULL};
static const char *const views[] = {"flat", "delta", "image", NULL};

static const char *const cache_modes[] = {"auto", "none", "writeback", NULL};

static const struct cmd_arg export_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "image", .type = ARG_STRING},
    {.name = "format", .type = ARG_STRING, .optional = true, .choices = image_formats},
    {.name = "target", .type = ARG_STRING, .optional = true},
    {.name = "writable", .type = ARG_BOOL, .optional = true},
    {.name = "view", .type = ARG_STRING, .optional = true, .choices = views},
    {.name = "allow", .type = ARG_STRINGS, .optional = true},
    {.name = "mask", .type = ARG_STRINGS, .optional = true},
    {.name = "portal-group", .type = ARG_STRINGS, .optional = true},
    {.name = "probe-backing", .type = ARG_BOOL, .optional = true},
    {.name = "cache", .type = ARG_STRING, .optional = true, .choices = cache_modes},
    {.name = "block-size", .type = ARG_SIZE, .optional = true},
    {.name = "removable", .type = ARG_BOOL, .optional = true},
    {.name = "user", .type = ARG_STRING, .optional = true},
    {.name = "secret-file", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

static int set_export(struct chain_record *rec, const json_t *args, struct error *err)
{
    const char *view = arg_string(args, "view");

    rec->writable = rec->unclean = arg_bool(args, "writable", false);
    rec->probe_backing = arg_bool(args, "probe-backing", false);
    rec->block_bytes = arg_size(args, "block-size", 512);
    rec->removable = arg_bool(args, "removable", false);
    rec->generation = 1;
    uuid_make(&rec->uuid);
    if (rec->block_bytes != 512 && rec->block_bytes != 4096)
        return error_set(err, EINVAL, "blocks are 512 or 4096 bytes");
    if (view && !strcmp(view, "image") && rec->writable)
        return error_set(err, EINVAL,
                         "view 'image' shows sealed layers only: export without --writable");
    if (record_set(&rec->path, arg_string(args, "image")) ||
        record_set(&rec->format, arg_string(args, "format")) ||
        record_set(&rec->cache, arg_string(args, "cache")) ||
        record_set(&rec->view, view ? view : "flat"))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

static int co_export(struct chain *c, const json_t *args, struct error *err)
{
    struct error ignored = ERROR_INIT;
    int ret = co_chain_open_export(c, err);

    if (!ret)
        ret = co_chain_first_account(c, arg_string(args, "user"), arg_string(args, "secret-file"),
                                     err);

    if (ret)
        return ret;
    list_add_tail(&c->d->state->chains, &c->rec->link);
    ret = co_state_save(c->d->state, err);
    if (!ret)
        ret = co_chain_serve(c, err);
    if (ret) {
        list_del(&c->rec->link);
        co_state_save(c->d->state, &ignored); /* the first error is the one to tell */
    }
    return ret;
}

static json_t *export_warnings(const struct chain *c)
{
    json_t *list = json_array();
    char text[PATH_MAX + 128];

    if (c->base_assumed_raw) {
        snprintf(text, sizeof(text),
                 "%s is a backing file without a recorded format: taken as raw; --probe-backing "
                 "looks at it",
                 c->layers[0].filename);
        json_array_append_new(list, json_text(text));
    }
    return list;
}

static json_t *run_export(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain_record *rec;
    json_t *info, *warnings;
    struct chain *c;

    if (check_account_args(args, err) || (!ram_is_name(arg_string(args, "image")) &&
                                          check_absolute("image", arg_string(args, "image"), err)))
        return NULL;
    rec = record_from_args(d, "export", args, err);
    if (!rec)
        return NULL;
    if (set_export(rec, args, err)) {
        record_free(rec);
        return NULL;
    }
    c = chain_new(d, rec, "it is being exported", err);
    if (!c)
        return NULL;
    if (co_export(c, args, err)) {
        co_accounts_forget(d->accounts, rec->name, &(struct error)ERROR_INIT);
        co_chain_discard(c);
        chain_release(c);
        return NULL;
    }
    log_notice("chain %s: %s with %u layers served as %s", rec->name, rec->path, c->nr_layers,
               rec->target);
    warnings = export_warnings(c);
    info = co_info_and_release(c);
    json_put(info, "warnings", warnings);
    return info;
}

/* ---- chain-pull ----------------------------------------------------------------------------- */

static const char *const pull_formats[] = {"qcow2", "raw", NULL};

static const struct cmd_arg pull_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "url", .type = ARG_STRING},
    {.name = "into", .type = ARG_STRING},
    {.name = "source-secret-file", .type = ARG_STRING, .optional = true},
    {.name = "quiesced", .type = ARG_BOOL, .optional = true},
    {.name = "target", .type = ARG_STRING, .optional = true},
    {.name = "allow", .type = ARG_STRINGS, .optional = true},
    {.name = "mask", .type = ARG_STRINGS, .optional = true},
    {.name = "portal-group", .type = ARG_STRINGS, .optional = true},
    {.name = "user", .type = ARG_STRING, .optional = true},
    {.name = "secret-file", .type = ARG_STRING, .optional = true},
    {.name = "format", .type = ARG_STRING, .optional = true, .choices = pull_formats},
    {.name = "keep-layers", .type = ARG_BOOL, .optional = true},
    {.name = "base", .type = ARG_STRING, .optional = true},
    {.name = "stream", .type = ARG_BOOL, .optional = true},
    {.name = "copy-on-read", .type = ARG_BOOL, .optional = true},
    {.name = "speed", .type = ARG_SIZE, .optional = true},
    {.name = "source-timeout", .type = ARG_SIZE, .optional = true},
    {.name = "source-digests", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

/* NULL: as fits what it is pulled into. */
static const char *format_of(const json_t *args)
{
    return arg_string(args, "format");
}

static int check_pull(const json_t *args, struct error *err)
{
    const char *secret = arg_string(args, "source-secret-file");

    if (check_account_args(args, err) ||
        check_absolute("directory or device", arg_string(args, "into"), err))
        return -err->errnum;
    return secret ? check_absolute("source secret file", secret, err) : 0;
}

static json_t *run_pull(struct daemon *d, const json_t *args, struct error *err)
{
    bool keep = arg_bool(args, "keep-layers", false);
    const char *format = format_of(args);
    struct pull_opts opts = {
        .format = keep ? "qcow2" : format,
        .keep_layers = keep,
        .raw_base = keep && format && !strcmp(format, "raw"),
        .url = arg_string(args, "url"),
        .into_dir = arg_string(args, "into"),
        .quiesced = arg_bool(args, "quiesced", false),
        .start_stream = arg_bool(args, "stream", true),
        .base = arg_string(args, "base"),
        .user = arg_string(args, "user"),
        .secret_file = arg_string(args, "secret-file"),
    };
    struct chain_record *rec;
    struct chain *c;
    json_t *info;

    if (check_pull(args, err))
        return NULL;
    rec = record_from_args(d, "pull", args, err);
    if (!rec)
        return NULL;
    rec->copy_on_read = arg_bool(args, "copy-on-read", true);
    rec->speed_bytes = arg_size(args, "speed", 0);
    rec->source_digests = arg_bool(args, "source-digests", false);
    if (record_set(&rec->source_secret_file, arg_string(args, "source-secret-file"))) {
        error_set(err, ENOMEM, "out of memory");
        record_free(rec);
        return NULL;
    }
    opts.warnings = json_array();
    c = co_pull(d, rec, &opts, err);
    if (!c) {
        json_decref(opts.warnings);
        return NULL;
    }
    info = co_info_and_release(c);
    json_object_set_new(info, "warnings", opts.warnings);
    return info;
}

/* ---- chain-remove --------------------------------------------------------------------------- */

static const struct cmd_arg remove_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "force", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static int check_unused(const struct chain *c, struct error *err)
{
    struct error why = ERROR_INIT;
    char who[512] = "";
    size_t i, n = 0;
    json_t *list, *s;

    if (chain_check_op(c, CHAIN_OP_REMOVE, &why))
        return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "%s, or use --force", why.msg);
    if (holders_check(c, err))
        return -err->errnum;
    if (!c->target || !target_nr_sessions(c->target))
        return 0;
    list = target_sessions(c->target);
    json_array_foreach (list, i, s) {
        if (n < sizeof(who) - 1)
            n += (size_t)snprintf(who + n, sizeof(who) - n, "%s%s from %s", i ? ", " : "",
                                  json_string_value(json_object_get(s, "initiator")),
                                  json_string_value(json_object_get(s, "peer")));
    }
    json_decref(list);
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "initiators are logged in to chain '%s' (%s): log them out, or use "
                           "--force",
                           c->rec->name, who);
}

static json_t *run_remove(struct daemon *d, const json_t *args, struct error *err)
{
    struct error ignored = ERROR_INIT;
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);

    if (!c || chain_claim(c, "it is being removed", err))
        return NULL;
    if (!arg_bool(args, "force", false) && check_unused(c, err)) {
        chain_release(c);
        return NULL;
    }
    list_del(&c->rec->link);
    if (co_state_save(d->state, err)) {
        list_add_tail(&d->state->chains, &c->rec->link);
        chain_release(c);
        return NULL;
    }
    co_chain_stop_job(c);
    if (co_accounts_forget(d->accounts, c->rec->name, &ignored))
        log_err("chain %s: %s", c->rec->name, ignored.msg);
    holds_give_up(c->rec);
    co_holds_give_back(c);
    if (c->rec->drop_luns.nr)
        log_warn("chain %s: its source %s goes on listing this host as one that needs it: there, "
                 "chain remove takes --force",
                 c->rec->name, c->rec->hold_url);
    log_notice("chain %s: removed; its image files stay", c->rec->name);
    co_chain_discard(c);
    chain_release(c);
    return json_object();
}

/* ---- query-chains ------------------------------------------------------------------------- */

static const struct cmd_arg query_args[] = {
    {.name = "name", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

static json_t *co_all_chains(struct daemon *d)
{
    json_t *list = json_array();
    struct chain *c, **chains;
    unsigned n = 0, i = 0;

    list_for_each_entry (c, &d->chains, link)
        n++;
    chains = calloc(n ? n : 1, sizeof(*chains));
    if (!chains)
        return list;
    list_for_each_entry (c, &d->chains, link)
        chains[i++] = chain_get(c);
    for (i = 0; i < n; i++) {
        if (!chains[i]->removed)
            json_array_append_new(list, co_chain_info(chains[i]));
        chain_put(chains[i]);
    }
    free(chains);
    return list;
}

static json_t *run_query_chains(struct daemon *d, const json_t *args, struct error *err)
{
    const char *name = arg_string(args, "name");
    struct chain *c;
    json_t *list;

    if (!name)
        return co_all_chains(d);
    c = chain_lookup(d, name, err);
    if (!c)
        return NULL;
    chain_get(c);
    list = json_pack("[o]", co_chain_info(c));
    chain_put(c);
    return list;
}

const struct command chain_commands[] = {
    {"chain-export", "serves an image and its backing chain", export_args, run_export},
    {"chain-pull", "serves a remote disk over a local overlay and copies it", pull_args, run_pull},
    {"chain-remove", "stops serving a chain; image files stay", remove_args, run_remove},
    {"query-chains", "all chains, or one", query_args, run_query_chains},
    {NULL, NULL, NULL, NULL},
};
