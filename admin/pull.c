/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pulled chain: a local overlay over a disk that another target serves. The overlay's own header
 * decides whether it still needs the source: while a backing name is in it, it does.
 */
#define LOG_AREA "chain"
#include "admin/pull.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/accounts.h"
#include "admin/holds.h"
#include "admin/secret.h"
#include "admin/settings.h"
#include "discovery/chain-reader.h"
#include "lun-backends/remote.h"
#include "util/co-path.h"
#include "util/log.h"

#define URL_MAX 640

/* ---- the source -------------------------------------------------------------------------- */

static void warn_user(const struct pull_opts *opts, const struct chain_record *rec,
                      const char *text)
{
    log_warn("chain %s: %s", rec->name, text);
    json_array_append_new(opts->warnings, json_string(text));
}

/* Only what nobody changes may be streamed from (COW layer extension, section 5 rule 2). */
static int check_source(const struct found_lun *lun, const struct pull_opts *opts,
                        const struct chain_record *rec, struct error *err)
{
    if (!lun->is_disk)
        return error_set(err, EINVAL, "LUN %u of the source is no disk", lun->number);
    if (!lun->has_cowl) {
        if (!opts->quiesced)
            warn_user(opts, rec,
                      "the source does not say whether anybody may write to it (no VPD page D5h); "
                      "taken as quiesced");
        return 0;
    }
    if (lun->cowl.view != COWL_VIEW_FLAT)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "LUN %u of the source shows one layer by itself (view %s), not a "
                               "disk: pull LUN 0",
                               lun->number, lun->cowl.view == COWL_VIEW_DELTA ? "delta" : "image");
    if (!(lun->cowl.flags & COWL_SEALED) && !opts->quiesced)
        return error_set(err, EPERM,
                         "LUN %u of the source is writable there (not sealed): its data may change "
                         "while it is copied. Export it without --writable, or say --quiesced if "
                         "nobody writes to it",
                         lun->number);
    return 0;
}

static int co_read_source(const struct remote_opts *ro, struct found_chain *found,
                          struct error *err)
{
    struct iscsi_conn_opts co = {
        .host = ro->url.host,
        .port = ro->url.port,
        .target = ro->url.target,
        .initiator = ro->initiator,
        .user = *ro->url.user ? ro->url.user : NULL,
        .secret = *ro->url.user ? ro->secret : NULL,
        .digests = ro->digests,
    };
    struct iscsi_conn *conn;
    int ret;

    if (co_iscsi_connect(&co, &conn, err)) {
        if (err->errnum == EACCES && !co.user && strstr(err->msg, "uthentication"))
            error_prefix(err, "the source wants a user: give USER@ and --source-secret-file");
        return -err->errnum;
    }
    ret = co_chain_read(conn, found, err);
    co_iscsi_close(conn);
    return ret;
}

/* A stock login: which LUN is meant, may it be pulled, and what is the base. */
static int co_find_source(struct chain *c, struct remote_opts *ro, const struct pull_opts *opts,
                          const char *dir, struct error *err)
{
    struct found_chain found = {0};
    int i = co_read_source(ro, &found, err);

    if (i)
        return i;
    i = found_chain_pick(&found, ro->url.lun, err);
    if (i >= 0 && check_source(&found.luns[i], opts, c->rec, err))
        i = -err->errnum;
    if (i >= 0)
        ro->url.lun = found.luns[i].number;
    if (i >= 0 &&
        ((opts->base && co_pull_choose_base(c, &found, (unsigned)i, opts->base, dir, err)) ||
         holds_plan(c->rec, &found, (unsigned)i, &ro->url, err) ||
         (opts->keep_layers && keep_plan(c, &found, (unsigned)i, opts, dir, err))))
        i = -err->errnum;
    found_chain_free(&found);
    return i < 0 ? i : 0;
}

static void note_source(struct chain_record *rec, const struct remote_identity *id)
{
    rec->source_has_cowl = id->has_cowl;
    rec->source_unsealed = id->unsealed;
    rec->source_layer = id->layer_uuid;
    memcpy(rec->source_naa.b, id->naa, sizeof(rec->source_naa.b));
    rec->source_bytes = id->size_bytes;
}

static void expect_source(const struct chain_record *rec, struct remote_identity *id)
{
    memset(id, 0, sizeof(*id));
    id->has_cowl = rec->source_has_cowl;
    id->unsealed = rec->source_unsealed;
    id->layer_uuid = rec->source_layer;
    memcpy(id->naa, rec->source_naa.b, sizeof(id->naa));
    id->size_bytes = rec->source_bytes;
}

/* The layer's own LUN shows the same disk; LUN 0 may come to show another one, after a snapshot. */
static void note_own_lun(struct chain *c, int lun)
{
    const struct chain_record *rec = c->rec;
    char own[UUID_STRLEN];

    uuid_to_text(&rec->source_layer, own);
    for (unsigned i = 0; rec->source_has_cowl && i < rec->hold_luns.nr; i++) {
        if (!strcmp(rec->hold_layers.items[i], own) && (int)rec->hold_luns.items[i] != lun)
            remote_set_other_lun(c->remote, (int)rec->hold_luns.items[i]);
    }
}

static int co_connect_source(struct chain *c, const struct pull_opts *opts, const char *dir,
                             struct error *err)
{
    struct chain_record *rec = c->rec;
    struct remote_opts *ro = calloc(1, sizeof(*ro));
    struct remote_identity id;
    char url[URL_MAX];
    int ret;

    if (!ro)
        return error_set(err, ENOMEM, "out of memory");
    ro->digests = c->rec->source_digests;
    snprintf(ro->initiator, sizeof(ro->initiator), "%s", c->d->state->initiator);
    ret = iscsi_url_parse(opts->url, &ro->url, err);
    if (!ret && !*ro->url.user != !rec->source_secret_file)
        ret = error_set(err, EINVAL,
                        "USER@ in the URL and --source-secret-file ('source-secret-file') go "
                        "together: what we log in to the source with");
    if (!ret && rec->source_secret_file)
        ret = co_secret_read(rec->source_secret_file, ro->secret, sizeof(ro->secret), err);
    if (!ret)
        ret = co_find_source(c, ro, opts, dir, err);
    if (!ret)
        ret = co_remote_open(ro, &c->remote, err);
    if (!ret) {
        remote_get_identity(c->remote, &id);
        note_source(rec, &id);
        note_own_lun(c, ro->url.lun);
        ret = iscsi_url_format(&ro->url, url, sizeof(url));
        if (!ret)
            ret = record_set(&rec->source_url, url);
        if (!ret && *ro->url.user)
            ret = record_set(&rec->source_user, ro->url.user);
        if (ret)
            error_set(err, -ret, "the source's name: %s", strerror(-ret));
    }
    explicit_bzero(ro->secret, sizeof(ro->secret));
    free(ro);
    return ret;
}

struct remote_opts *co_remote_opts_from_record(const struct chain *c, struct error *err)
{
    const struct chain_record *rec = c->rec;
    struct remote_opts *ro = calloc(1, sizeof(*ro));
    struct error secret_err = ERROR_INIT;

    if (!ro) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    ro->may_be_down = true;
    ro->digests = c->rec->source_digests;
    snprintf(ro->initiator, sizeof(ro->initiator), "%s", c->d->state->initiator);
    expect_source(rec, &ro->expect);
    if (iscsi_url_parse(rec->source_url, &ro->url, err)) {
        free(ro);
        return NULL;
    }
    if (rec->source_user)
        snprintf(ro->url.user, sizeof(ro->url.user), "%s", rec->source_user);
    if (rec->source_secret_file &&
        co_secret_read(rec->source_secret_file, ro->secret, sizeof(ro->secret), &secret_err))
        log_err("chain %s: %s; the source will refuse the login", rec->name, secret_err.msg);
    return ro;
}

void free_remote_opts(struct remote_opts *ro)
{
    explicit_bzero(ro->secret, sizeof(ro->secret));
    free(ro);
}

/* After a restart the source may be away: the chain is served all the same. */
static int co_reconnect_source(struct chain *c, struct error *err)
{
    struct remote_opts *ro = co_remote_opts_from_record(c, err);
    int ret;

    if (!ro)
        return -err->errnum;
    ret = co_remote_open(ro, &c->remote, err);
    if (!ret)
        note_own_lun(c, ro->url.lun);
    free_remote_opts(ro);
    return ret;
}

/* ---- after a restart ---------------------------------------------------------------------- */

/* The overlay came to stand alone, or on its base, just before the end. */
static int co_open_complete(struct chain *c, struct error *err)
{
    c->rec->generation++;
    holds_give_up(c->rec);
    record_forget_source(c->rec);
    return co_chain_open_export(c, err);
}

int co_chain_open_pull(struct chain *c, struct error *err)
{
    struct chain_record *rec = c->rec;
    const char *backing, *lower;
    int ret;

    if (!rec->source_url) /* all is here: an image and what lies below it, as any other */
        return co_chain_open_export(c, err);
    ret = co_pull_overlay_open(c, err);
    if (ret)
        return ret;
    chain_settings_adopt(c);
    backing = pull_overlay_backing(c);
    lower = keep_top_path(rec) ? keep_top_path(rec) : rec->base_path;
    if (!backing || (lower && !strcmp(backing, lower))) {
        co_chain_close_down(c);
        return co_open_complete(c, err);
    }
    if (strcmp(backing, rec->source_url))
        return error_set(err, EINVAL,
                         "%s has the backing file '%s' now, the chain was pulled from '%s'",
                         rec->path, backing, rec->source_url);
    ret = co_reconnect_source(c, err);
    if (!ret)
        ret = co_pull_open_base(c, err);
    return ret ? ret : pull_join(c, err);
}

/* ---- the command ---------------------------------------------------------------------------- */

/* The source is used without, where it does not take it. */
static void co_hold_source(struct chain *c, const struct pull_opts *opts)
{
    struct error err = ERROR_INIT;

    if (co_holds_start(c, &err)) /* the log has it */
        json_array_append_new(opts->warnings, json_string(err.msg));
}

static int co_save_and_serve(struct chain *c, const struct pull_opts *opts, struct error *err)
{
    struct error ignored = ERROR_INIT;
    int ret;

    list_add_tail(&c->d->state->chains, &c->rec->link);
    ret = co_state_save(c->d->state, err);
    if (!ret) {
        co_hold_source(c, opts);
        ret = co_chain_serve(c, err);
        if (ret) {
            holds_give_up(c->rec);
            co_holds_give_back(c);
        }
    }
    if (ret) {
        list_del(&c->rec->link);
        co_state_save(c->d->state, &ignored); /* the first error is the one to tell */
    }
    return ret;
}

static int co_build(struct chain *c, const struct pull_opts *opts, bool *created, struct error *err)
{
    char dir[PATH_MAX];
    int ret;

    if (co_pull_overlay_path(c, opts, dir, err))
        return -err->errnum;
    if (opts->base && pull_is_raw(c->rec))
        return error_set(err, EINVAL, "a raw image can't name a base: pull with --base as qcow2");
    if (co_connect_source(c, opts, dir, err) || co_pull_open_base(c, err) ||
        co_pull_check_base(c, err) || co_keep_create(c, err))
        return -err->errnum;
    if (co_pull_overlay_write(c, err)) {
        co_keep_remove(c->rec);
        return -err->errnum;
    }
    *created = true;
    ret = co_path_fsync_dir(dir);
    if (ret)
        return error_set(err, -ret, "directory %s: %s", dir, strerror(-ret));
    if (co_pull_overlay_open(c, err) || pull_join(c, err))
        return -err->errnum;
    return co_save_and_serve(c, opts, err);
}

/* ---- a base, later ----------------------------------------------------------------------- */

/* LUN 0 may show another disk by now. */
static int pick_again(const struct chain_record *rec, const struct found_chain *found, int lun,
                      struct error *err)
{
    for (unsigned i = 0; rec->source_has_cowl && i < found->nr_luns; i++) {
        if (found->luns[i].number && found->luns[i].has_cowl &&
            uuid_equal(&found->luns[i].cowl.layer_uuid, &rec->source_layer))
            return (int)i;
    }
    return found_chain_pick(found, lun, err);
}

/* @found is filled in any case. The LUN of it that was pulled, or -errno. */
static int co_choose_again(struct chain *c, const char *text, struct found_chain *found,
                           struct error *err)
{
    struct remote_opts *ro = co_remote_opts_from_record(c, err);
    char dir[PATH_MAX];
    int i;

    if (!ro)
        return -err->errnum;
    snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(c->rec->path, '/') - c->rec->path),
             c->rec->path);
    i = co_read_source(ro, found, err);
    if (!i)
        i = pick_again(c->rec, found, ro->url.lun, err);
    if (i >= 0 && co_pull_choose_base(c, found, (unsigned)i, text, dir, err))
        i = -err->errnum;
    free_remote_opts(ro);
    return i;
}

/* The base is here: the source's, and what is below it there, is needed no more. */
static void co_give_back_base(struct chain *c, const struct found_chain *found, int pulled)
{
    const struct cowl_page *top = &found->luns[pulled].cowl;

    for (unsigned i = 0; c->upper && i < found->nr_luns; i++) {
        const struct found_lun *l = &found->luns[i];

        if (l->number && l->has_cowl && uuid_equal(&l->cowl.chain_uuid, &top->chain_uuid) &&
            l->cowl.layer_index + c->rec->base_layers <= top->layer_index)
            co_chain_give_back(c, l->number);
    }
}

static int co_join_base(struct chain *c, struct error *err)
{
    struct blk_node *overlay = chain_top(c)->node;
    int ret = co_pull_open_base(c, err);

    if (!ret)
        ret = co_pull_check_base(c, err);
    if (ret)
        return ret;
    co_blk_drain_begin(overlay);
    pull_set_backing(c);
    blk_drain_end(overlay);
    return 0;
}

int co_pull_set_base(struct chain *c, const char *text, struct error *err)
{
    struct chain_record *rec = c->rec;
    struct found_chain found = {0};
    struct blk_node *upper;
    struct chain_image *base;
    int ret, pulled;

    if (rec->base_path && !strcmp(text, rec->base_path))
        return 0;
    if (rec->base_path || rec->keep_layers)
        return error_set(err, EINVAL, "chain '%s' is to keep %s below it", rec->name,
                         rec->base_path ? rec->base_path : "all layers");
    if (pull_is_raw(rec))
        return error_set(err, EINVAL, "chain '%s' is a raw image, which can't name a base",
                         rec->name);
    pulled = co_choose_again(c, text, &found, err);
    ret = pulled < 0 ? pulled : co_join_base(c, err);
    if (!ret)
        co_give_back_base(c, &found, pulled);
    found_chain_free(&found);
    if (!ret)
        return 0;
    upper = c->upper;
    base = c->base;
    c->upper = NULL;
    c->base = NULL;
    co_blk_node_unref(upper);
    co_chain_close(base);
    record_set(&rec->base_path, NULL);
    record_set(&rec->base_format, NULL);
    rec->base_layers = 0;
    return ret;
}

/* ---- the whole ------------------------------------------------------------------------------ */

struct chain *co_pull(struct daemon *d, struct chain_record *rec, const struct pull_opts *opts,
                      struct error *err)
{
    struct chain *c = chain_new(d, rec, "it is being pulled", err);
    struct stream_opts so = {
        .on_error = JOB_ERR_ENOSPC,
        .auto_finalize = true,
        .auto_dismiss = true,
    };
    struct error stream_err = ERROR_INIT;
    bool created = false;

    if (!c)
        return NULL; /* and @rec is gone */
    so.speed_bytes = rec->speed_bytes;
    uuid_make(&rec->uuid);
    rec->generation = 1;
    rec->writable = rec->unclean = true;
    rec->stream = opts->start_stream;
    if (co_chain_first_account(c, opts->user, opts->secret_file, err) ||
        co_build(c, opts, &created, err)) {
        co_accounts_forget(d->accounts, rec->name, &stream_err);
        co_chain_close_down(c);
        if (created)
            co_keep_remove(rec);
        co_chain_discard(c);
        if (created)
            co_pull_overlay_remove(rec);
        chain_release(c);
        return NULL;
    }
    log_notice("chain %s: pulled from %s into %s, served as %s", rec->name, rec->source_url,
               rec->path, rec->target);
    if (opts->start_stream && co_chain_start_stream(c, &so, &stream_err))
        warn_user(opts, rec, stream_err.msg);
    return c;
}
