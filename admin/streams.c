/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Streams into pulled chains: starting them, and what happens at their end. The order of the drop
 * is the promise of this file: overlay durable without its backing reference, then the graph, then
 * what was held is given back, logout, then the state, then the events.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/events.h"
#include "admin/holds.h"
#include "admin/settings.h"
#include "lun-backends/remote.h"
#include "lun-backends/stream.h"
#include "util/log.h"

static struct chain_layer *base_top(const struct chain *c)
{
    return c->base ? &c->base->layers[c->base->nr_layers - 1] : NULL;
}

/* 0: the overlay stands alone, or on its base, on disk and in the graph. */
static int co_detach(struct chain *c, struct error *err)
{
    struct blk_node *overlay = chain_top(c)->node;
    const struct chain_layer *base = base_top(c);
    int ret;

    co_blk_drain_begin(overlay);
    ret = overlay->drv->co_change_backing(overlay, base ? base->filename : NULL,
                                          base ? base->format : NULL, err);
    if (!ret) {
        blk_set_backing(overlay, base ? base->node : NULL);
        blk_replace_node(c->filter, overlay);
    }
    blk_drain_end(overlay);
    return ret;
}

/* The base is part of the chain from now on. */
static void co_take_base(struct chain *c)
{
    struct chain_image *base = c->base;
    struct error err = ERROR_INIT;

    c->base = NULL;
    c->nr_kept = 0;
    if (!base)
        return;
    if (chain_insert_below(c, base, &err))
        log_err("chain %s: its layers are shown at the next start: %s", c->rec->name, err.msg);
    for (unsigned i = 0; i < base->nr_layers && !*err.msg; i++)
        chain_serve_layer(c, i, &err);
    if (*err.msg)
        log_err("chain %s: %s", c->rec->name, err.msg);
    co_chain_close(base); /* the layers have references of their own */
}

static int co_drop_source(struct chain *c, struct error *err)
{
    struct chain_record *rec = c->rec;
    struct blk_node *filter, *remote, *upper;
    char uuid[UUID_STRLEN];
    struct remote_status st;
    struct iscsi_url url;
    struct error url_err = ERROR_INIT;
    json_t *data, *layers, *layer;
    size_t i;
    int ret;

    ret = co_detach(c, err);
    if (ret)
        return error_prefix(err, "%s: can't drop the backing reference", rec->path);
    filter = c->filter;
    remote = c->remote;
    remote_get_status(remote, &st);
    c->source_bytes_read = st.bytes_read;
    upper = c->upper;
    c->filter = c->remote = c->upper = NULL;
    layers = holds_dropped_events(rec);
    holds_give_up(rec);
    co_holds_give_back(c);
    co_blk_node_unref(filter);
    co_blk_node_unref(upper);
    co_blk_node_unref(remote);

    if (iscsi_url_parse(rec->source_url, &url, &url_err))
        url.target[0] = '\0';
    uuid_to_text(&rec->source_layer, uuid);
    data = json_pack("{s:s, s:s, s:s, s:s}", "chain", rec->name, "layer", rec->source_url, "uuid",
                     uuid, "target", url.target);
    rec->generation++;
    record_forget_source(rec);
    co_take_base(c);
    co_state_save_or_log(c->d->state);
    co_pull_tidy(rec);
    c->stream = NULL;
    chain_update_pages(c, true);
    log_notice("chain %s: all data is local, the source is dropped", rec->name);
    json_array_foreach (layers, i, layer)
        event_emit(c->d, "CHAIN_LAYER_DROPPED", json_incref(layer));
    json_decref(layers);
    event_emit(c->d, "CHAIN_LAYER_DROPPED", data);
    return 0;
}

/* The job's on_done; runs in the job's coroutine. The job outlives neither chain nor this call. */
static void stream_done(struct job *job, void *opaque)
{
    struct chain *c = opaque;

    co_keep_release(c);
    chain_forget_passed(c);
    if (job->ret == 0)
        job->ret = co_drop_source(c, &job->err);
    else if (job->ret == -ECANCELED && !c->d->shutting_down && !c->removed) {
        c->rec->stream = c->rec->stream_paused = false; /* the user's wish, also after a restart */
        co_state_save_or_log(c->d->state);
    }
    c->stream = NULL;
    if (c->remote)
        chain_update_pages(c, false);
}

void chain_begin_stream(struct job *job, const struct stream_opts *opts,
                        void (*on_done)(struct job *job, void *opaque), void *opaque)
{
    struct error ignored = ERROR_INIT;

    job->speed = opts->speed_bytes;
    job->on_error = opts->on_error;
    job->auto_finalize = opts->auto_finalize;
    job->auto_dismiss = opts->auto_dismiss;
    job->on_done = on_done;
    job->opaque = opaque;
    if (opts->paused)
        job_pause(job, &ignored); /* just created: nothing can be in its way */
    job_start(job);
}

void chain_pace_stream(const struct chain *c)
{
    const struct qcow2_settings *s = &c->settings;
    struct stream_config config = {
        .throttle_group = c->rec->stream_group,
        .pace = {.mode = PREFETCH_ADAPTIVE, .grace_ns = PACE_GRACE_NS},
    };

    if (s->set & QCOW2_SET_PREFETCH_MODE)
        config.pace.mode = s->prefetch_mode;
    if (s->set & QCOW2_SET_PREFETCH_DELAY)
        config.start_delay_ns = s->prefetch_delay_s * UINT64_C(1000000000);
    if (s->set & QCOW2_SET_PREFETCH_GRACE)
        config.pace.grace_ns = s->prefetch_grace_s * UINT64_C(1000000000);
    if (c->stream)
        stream_configure(c->stream, &config);
}

int co_chain_start_stream(struct chain *c, const struct stream_opts *opts, struct error *err)
{
    struct stream_plan_opts plan = {
        .first = {.overlay = chain_top(c)->node, .layers = c->upper ? 1 : 0},
        .guests = chain_top(c)->node, /* whatever is copied into */
    };
    struct job *job;

    if (!c->remote)
        return error_set(err, EINVAL,
                         "chain '%s' has nothing to stream: all of its data is on this host",
                         c->rec->name);
    if ((!c->base || c->upper) && c->rec->hold_luns.nr > 1)
        plan.co_passed = co_chain_passed;
    if (c->rec->keep_layers) {
        int ret = co_keep_begin(c, &plan, err);

        if (ret <= 0)
            return ret ? ret : co_drop_source(c, err);
        plan.co_passed = NULL;
    } else if (c->base && !c->upper) {
        plan.first.differ = base_top(c)->node;
    }
    job = stream_job_new(opts->job_id, c->rec->name, &plan, err);
    if (!job) {
        co_keep_release(c);
        return -err->errnum;
    }
    c->stream = job;
    chain_pace_stream(c);
    chain_begin_stream(job, opts, stream_done, c);
    chain_update_pages(c, false);
    return 0;
}

void co_chain_note_job(struct daemon *d, const struct job *job)
{
    struct chain *c;

    list_for_each_entry (c, &d->chains, link) {
        if (c->stream != job)
            continue;
        if (c->rec->stream_paused == job->user_paused && c->rec->speed_bytes == job->speed)
            return;
        co_chain_prefetch_said(c, !job->user_paused);
        c->rec->stream_paused = job->user_paused;
        c->rec->speed_bytes = job->speed;
        co_state_save_or_log(d->state);
        return;
    }
}

void co_chain_stop_job(struct chain *c)
{
    struct error ignored = ERROR_INIT;
    struct job *job = chain_job(c);
    char id[sizeof(job->id)];

    if (!job)
        return;
    strcpy(id, job->id);
    job_cancel(job, &ignored); /* refused only when it is about to complete: wait, too */
    co_job_wait(id);
}
