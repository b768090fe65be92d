/* SPDX-License-Identifier: BSD-3-Clause */
/* The registry of chains, their life from opening to closing; see chains.h. */
#define LOG_AREA "chain"
#include "admin/chains.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/holds.h"
#include "util/log.h"
#include "util/loop.h"

struct chain *chain_find(struct daemon *d, const char *name)
{
    struct chain *c;

    list_for_each_entry (c, &d->chains, link) {
        if (!strcmp(c->rec->name, name))
            return c;
    }
    return NULL;
}

struct chain *chain_lookup(struct daemon *d, const char *name, struct error *err)
{
    struct chain *c = chain_find(d, name);

    if (!c)
        error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
                        "no chain is named '%s'; cowtgt chain list shows those there are", name);
    return c;
}

struct chain *chain_lookup_device(struct daemon *d, const char *device, struct error *err)
{
    struct chain *c = chain_find(d, device);

    if (c)
        return c;
    list_for_each_entry (c, &d->chains, link) {
        for (unsigned i = 0; i < c->nr_layers; i++) {
            if (!strcmp(c->layers[i].node->name, device))
                return c;
        }
    }
    error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
                    "no chain or node is named '%s'; cowtgt chain list shows those there are",
                    device);
    return NULL;
}

struct chain *chain_get(struct chain *c)
{
    c->refs++;
    return c;
}

void chain_put(struct chain *c)
{
    if (--c->refs)
        return;
    record_free(c->rec);
    free(c);
}

int chain_claim(struct chain *c, const char *doing, struct error *err)
{
    if (c->claimed)
        return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "chain '%s' is in use: %s",
                               c->rec->name, c->claimed);
    if (c->d->shutting_down)
        return error_set(err, ESHUTDOWN, "the daemon is ending");
    c->claimed = doing;
    chain_get(c);
    return 0;
}

void chain_release(struct chain *c)
{
    c->claimed = NULL;
    chain_put(c);
}

static struct chain *list_chain(struct daemon *d, struct chain_record *rec)
{
    struct chain *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->d = d;
    c->rec = rec;
    c->refs = 1; /* the list's */
    list_init(&c->limits);
    list_add_tail(&d->chains, &c->link);
    return c;
}

struct chain *chain_new(struct daemon *d, struct chain_record *rec, const char *doing,
                        struct error *err)
{
    struct chain *c = NULL;

    if (chain_find(d, rec->name))
        error_set_class(err, ERR_DEVICE_IN_USE, EEXIST,
                        "chain '%s' exists: choose another name or remove it first", rec->name);
    else if (!(c = list_chain(d, rec)))
        error_set(err, ENOMEM, "out of memory");
    else if (!chain_claim(c, doing, err))
        return c;
    if (c) {
        list_del(&c->link);
        chain_put(c);
    } else {
        record_free(rec);
    }
    return NULL;
}

void co_chain_discard(struct chain *c)
{
    co_chain_close_down(c);
    if (c->removed)
        return;
    c->removed = true;
    list_del(&c->rec->link);
    list_del(&c->link);
    chain_put(c); /* the list's reference */
}

/* ---- layers ----------------------------------------------------------------------------- */

struct layer *chain_top(const struct chain *c)
{
    return c->nr_layers ? &c->layers[c->nr_layers - 1] : NULL;
}

struct blk_node *chain_disk_node(const struct chain *c)
{
    return c->filter ? c->filter : chain_top(c)->node;
}

int chain_add_layer(struct chain *c, struct blk_node *node, const char *filename,
                    const char *format, bool writable, const struct uuid *uuid, struct error *err)
{
    struct layer *layers = reallocarray(c->layers, c->nr_layers + 1, sizeof(*layers)), *l;

    if (!layers)
        return error_set(err, ENOMEM, "out of memory");
    c->layers = layers;
    l = &layers[c->nr_layers];
    memset(l, 0, sizeof(*l));
    l->filename = strdup(filename);
    if (!l->filename)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(l->format, sizeof(l->format), "%s", format);
    l->node = blk_node_ref(node);
    l->writable = writable;
    l->uuid = *uuid;
    l->lun = (uint16_t)(c->nr_layers + 1);
    c->nr_layers++;
    return 0;
}

static void co_close_nodes(struct chain *c)
{
    struct blk_node *filter = c->filter, *remote = c->remote, *upper = c->upper;
    struct chain_image *base = c->base;

    co_keep_release(c);
    c->nr_kept = 0;
    c->filter = c->upper = NULL;
    c->base = NULL;
    co_blk_node_unref(filter);
    while (c->nr_layers) {
        struct layer *l = &c->layers[--c->nr_layers];

        co_blk_node_unref(l->node);
        free(l->filename);
    }
    free(c->layers);
    c->layers = NULL;
    c->remote = NULL;
    co_blk_node_unref(upper);
    co_chain_close(base);
    co_blk_node_unref(remote);
}

void co_chain_close_down(struct chain *c)
{
    struct target *t = c->target;

    chain_throttle_drop_all(c);
    c->target = NULL;
    if (t)
        co_target_destroy(t);
    co_holds_close(c);
    co_close_nodes(c);
}

/* ---- at start and end ----------------------------------------------------------------- */

static int co_open_again(struct chain *c, struct error *err)
{
    int ret = record_is_pull(c->rec) ? co_chain_open_pull(c, err) : co_chain_open_export(c, err);

    return ret ? ret : co_chain_serve(c, err);
}

static void co_resume_stream(struct chain *c)
{
    struct stream_opts opts = {
        .speed_bytes = c->rec->speed_bytes,
        .on_error = job_on_error_from(c->rec->stream_on_error, JOB_ERR_ENOSPC),
        .paused = c->rec->stream_paused,
        .auto_finalize = true,
        .auto_dismiss = true,
    };
    struct error err = ERROR_INIT;

    if (!c->remote && c->rec->stream && c->nr_layers)
        co_chain_resume_local_stream(c);
    if (c->remote && c->rec->stream && co_chain_start_stream(c, &opts, &err))
        log_err("chain %s: the stream can't go on: %s", c->rec->name, err.msg);
}

/* A copy of it was being made when the daemon was killed. */
static void forget_copy(struct chain_record *rec)
{
    if (!rec->copy_to)
        return;
    log_notice("chain %s: copying into %s does not go on after the restart: the file is incomplete",
               rec->name, rec->copy_to);
    record_set(&rec->copy_to, NULL);
}

/* Before anything is opened for writing it is on disk that it is; chains from the state. */
static void co_list_chains(struct daemon *d)
{
    struct chain_record *rec;
    struct chain *c;

    list_for_each_entry (rec, &d->state->chains, link) {
        c = list_chain(d, rec);
        if (!c) {
            log_err("chain %s: out of memory", rec->name);
            continue;
        }
        forget_copy(rec);
        c->fix_leaks = rec->unclean;
        rec->unclean = rec->unclean || rec->writable;
    }
    if (!list_empty(&d->chains))
        co_state_save_or_log(d->state);
}

void co_chains_reopen(struct daemon *d)
{
    struct chain_record *rec;
    struct error err = ERROR_INIT;
    struct chain *c;
    bool any = false;

    co_list_chains(d);
    list_for_each_entry (c, &d->chains, link) {
        rec = c->rec;
        any = true;
        if (!co_open_again(c, &c->failure)) {
            log_info("chain %s: served again as %s", rec->name, rec->target);
            continue;
        }
        log_err("chain %s: not served: %s", rec->name, c->failure.msg);
        co_chain_close_down(c);
    }
    if (any && co_state_save(d->state, &err)) /* layers may have got new UUIDs */
        log_err("%s", err.msg);
    list_for_each_entry (c, &d->chains, link) {
        if (!*err.msg)
            co_pull_tidy(c->rec);
        co_resume_stream(c);
        if (c->target) /* one that failed is left as it is, its holds too */
            holds_start(c);
    }
}

/* Commands that are changing a chain end by themselves: what they wait for has time limits. */
static void co_wait_for_claims(struct daemon *d)
{
    uint64_t limit_ns = now_ns() + UINT64_C(30000000000);
    struct chain *c;
    bool claimed;

    do {
        claimed = false;
        list_for_each_entry (c, &d->chains, link)
            claimed = claimed || c->claimed;
        if (claimed)
            co_sleep(5000000);
    } while (claimed && now_ns() < limit_ns);
}

void chains_cancel_jobs(struct daemon *d)
{
    struct error ignored = ERROR_INIT;
    struct chain *c;

    list_for_each_entry (c, &d->chains, link) {
        if (chain_job(c))
            job_cancel(chain_job(c), &ignored);
    }
}

/* The list may change while one is being closed. */
static struct chain *first_unclosed(struct daemon *d)
{
    struct chain *c;

    list_for_each_entry (c, &d->chains, link) {
        if (!c->closed)
            return c;
    }
    return NULL;
}

void co_chains_close_all(struct daemon *d)
{
    struct chain *c;
    bool any = false;

    co_wait_for_claims(d);
    while ((c = first_unclosed(d))) {
        c->closed = any = true;
        co_chain_stop_job(c);
        co_chain_close_down(c);
        c->rec->unclean = *c->failure.msg && c->fix_leaks; /* one that failed was not looked at */
    }
    if (any)
        co_state_save_or_log(d->state);
    while (!list_empty(&d->chains))
        co_chain_discard(list_first_entry(&d->chains, struct chain, link)); /* from memory only */
}
