/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Streams between layers of this host: what the layers above a base decide, up to the one right
 * below a top, is copied into that top, which then names the base as its backing.
 *
 * The disk, and every layer as a disk, reads the same at every moment. A sealed top is open for
 * writing meanwhile and not called sealed. The end is: top durable with its new backing reference,
 * graph, LUNs of the layers that are out of use, record, events. The images are the truth: after a
 * crash the record follows them, and a stream that was under way goes on.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/live.h"
#include "lun-backends/stream.h"
#include "util/log.h"

struct streaming {
    struct chain *c;
    unsigned top;
    int base;
    bool was_sealed;
    char *backing_file;
};

static struct layer *top_of(const struct streaming *m)
{
    return &m->c->layers[m->top];
}

static void free_streaming(struct streaming *m)
{
    if (m)
        free(m->backing_file);
    free(m);
}

/* ---- may it be done? ----------------------------------------------------------------------- */

static int check_order(const struct chain *c, const struct stream_order *o, struct error *err)
{
    const struct layer *top = &c->layers[o->top];

    if (!o->top || o->base == (int)o->top - 1)
        return error_set(err, EINVAL, "'%s' has nothing to stream: %s", top->filename,
                         o->top ? "the base is right below it" : "it has no layer below it");
    if (o->base >= (int)o->top)
        return error_set(err, ENOENT, "Can't find '%s' in the backing chain of '%s'",
                         c->layers[o->base].filename, top->filename);
    if (!top->node->drv->co_change_backing || !top->node->drv->co_reopen)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s (%s) can't be streamed into",
                               top->filename, top->format);
    return 0;
}

/* LUNs that go at the end, and those of a sealed top, which is not sealed for a while. */
static int check_users(const struct chain *c, const struct stream_order *o, struct error *err)
{
    const struct layer *top = &c->layers[o->top];

    for (int i = o->base + 1; i < (int)o->top; i++) {
        if (c->layers[i].lun && chain_check_lun(c, c->layers[i].lun, err))
            return -err->errnum;
    }
    if (top->writable)
        return 0;
    if (chain_check_other_chains(c, top, err) || (top->lun && chain_check_lun(c, top->lun, err)))
        return -err->errnum;
    return o->top == c->nr_layers - 1 ? chain_check_lun(c, 0, err) : 0;
}

/* ---- sealed tops --------------------------------------------------------------------------- */

static int co_unseal_top(struct streaming *m, struct error *err)
{
    struct layer *l = top_of(m);
    int ret;

    co_blk_drain_begin(l->node);
    ret = co_blk_reopen(l->node, true, err);
    blk_drain_end(l->node);
    l->writable = ret == 0;
    return ret;
}

static void co_seal_top(struct streaming *m)
{
    if (m->was_sealed)
        co_layer_seal(m->c, top_of(m), false);
}

/* ---- the end ------------------------------------------------------------------------------- */

static int co_change_graph(struct streaming *m, struct error *err)
{
    struct layer *top = top_of(m), *base = m->base < 0 ? NULL : &m->c->layers[m->base];
    const char *name = base ? base->filename : NULL;
    int ret;

    if (base && m->backing_file)
        name = m->backing_file;
    co_blk_drain_begin(top->node);
    ret = top->node->drv->co_change_backing(top->node, name, base ? base->format : NULL, err);
    if (!ret)
        blk_set_backing(top->node, base ? base->node : NULL);
    blk_drain_end(top->node);
    return ret ? error_prefix(err, "%s: can't change the backing reference", top->filename) : 0;
}

static void forget_stream(struct chain_record *rec)
{
    rec->stream = rec->stream_paused = false;
    record_set(&rec->stream_top, NULL);
    record_set(&rec->stream_base, NULL);
}

static void co_drop_between(struct streaming *m)
{
    struct chain *c = m->c;
    unsigned first = (unsigned)(m->base + 1), n = m->top - first;

    for (unsigned i = first; i < m->top; i++) {
        if (c->layers[i].lun)
            co_chain_unserve_lun(c, c->layers[i].lun);
        c->layers[i].lun = 0;
    }
    forget_stream(c->rec);
    chain_record_drop_layers(c, first, n);
    co_state_save_or_log(c->d->state);
    co_chain_drop_layers(c, first, n);
}

/* The job's on_done; runs in the job's coroutine. */
static void local_stream_done(struct job *job, void *opaque)
{
    struct streaming *m = opaque;
    struct chain *c = m->c;

    if (job->ret == 0)
        job->ret = co_change_graph(m, &job->err);
    co_seal_top(m);
    if (job->ret == 0) {
        log_notice("chain %s: streamed into %s, %u layers less", c->rec->name, top_of(m)->filename,
                   m->top - (unsigned)(m->base + 1));
        co_drop_between(m);
    } else if (!c->d->shutting_down && !c->removed) {
        forget_stream(c->rec);
    }
    c->stream = NULL;
    co_state_save_or_log(c->d->state); /* UUIDs */
    chain_update_pages(c, true);
    free_streaming(m);
}

/* ---- the beginning ------------------------------------------------------------------------- */

static int note_stream(struct streaming *m, const struct stream_opts *opts, struct error *err)
{
    struct chain_record *rec = m->c->rec;
    const char *base = m->base < 0 ? NULL : m->c->layers[m->base].filename;

    rec->stream = true;
    rec->stream_paused = opts->paused;
    rec->speed_bytes = opts->speed_bytes;
    if (record_set(&rec->stream_top, top_of(m)->filename) || record_set(&rec->stream_base, base) ||
        record_set(&rec->stream_on_error, job_on_error_names[opts->on_error]))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

static int co_begin(struct streaming *m, const struct stream_order *o, struct error *err)
{
    struct stream_plan_opts plan = {
        .first = {.overlay = top_of(m)->node},
        .guests = chain_top(m->c)->node,
    };
    struct job *job;

    if (m->base >= 0)
        plan.first.layers = m->top - 1 - (unsigned)m->base;
    if (m->was_sealed && co_unseal_top(m, err))
        return -err->errnum;
    if (note_stream(m, &o->opts, err))
        return -err->errnum;
    job = stream_job_new(o->opts.job_id, m->c->rec->name, &plan, err);
    if (!job)
        return -err->errnum;
    m->c->stream = job;
    chain_pace_stream(m->c);
    chain_begin_stream(job, &o->opts, local_stream_done, m);
    chain_update_pages(m->c, true);
    co_state_save_or_log(m->c->d->state);
    return 0;
}

int co_chain_stream(struct chain *c, const struct stream_order *o, struct error *err)
{
    struct streaming *m;
    int ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_STREAM, err);
    if (!ret)
        ret = check_order(c, o, err);
    if (!ret)
        ret = check_users(c, o, err);
    if (ret)
        return ret;
    m = calloc(1, sizeof(*m));
    if (!m || (o->backing_file && !(m->backing_file = strdup(o->backing_file)))) {
        free(m);
        return error_set(err, ENOMEM, "out of memory");
    }
    m->c = c;
    m->top = o->top;
    m->base = o->base;
    m->was_sealed = !top_of(m)->writable;
    ret = co_begin(m, o, err);
    if (ret) {
        co_seal_top(m);
        forget_stream(c->rec);
        free_streaming(m);
    }
    return ret;
}

/* ---- after a restart ------------------------------------------------------------------------- */

static int find_layer(const struct chain *c, const char *path)
{
    for (unsigned i = 0; path && i < c->nr_layers; i++) {
        if (!strcmp(c->layers[i].filename, path))
            return (int)i;
    }
    return -1;
}

void co_chain_resume_local_stream(struct chain *c)
{
    struct chain_record *rec = c->rec;
    int top = find_layer(c, rec->stream_top), base = find_layer(c, rec->stream_base);
    struct stream_order o = {
        .top = (unsigned)top,
        .base = base,
        .opts = {.speed_bytes = rec->speed_bytes,
                 .on_error = job_on_error_from(rec->stream_on_error, JOB_ERR_ENOSPC),
                 .paused = rec->stream_paused,
                 .auto_finalize = true,
                 .auto_dismiss = true},
    };
    struct error err = ERROR_INIT;

    if (top <= 0 || base == top - 1 || (rec->stream_base && base < 0)) /* it came to its end */
        forget_stream(rec);
    else if (co_chain_stream(c, &o, &err))
        log_err("chain %s: the stream can't go on: %s", rec->name, err.msg);
}
