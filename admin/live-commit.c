/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Committing layers of a chain into the one below them, live.
 *
 * While the job copies, the base and the layers between it and the top read, from themselves, as
 * the disk never did: their LUNs go first, durably (the record has no number for them), and the
 * layers get new UUIDs. The top hides all that, so the disk is right at every moment. The end is
 *   sealed layers:  base durable, the layer above names it as its backing, graph, record;
 *   active layer:   base durable and complete (drained), record, graph: no guest write may reach
 *                   base while the record still has a top above it.
 * A commit that does not come to its end leaves the layers without LUNs; doing it again heals them.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "admin/live.h"
#include "admin/settings.h"
#include "lun-backends/commit.h"
#include "lun-backends/file.h"
#include "lun-backends/qcow2.h"
#include "util/log.h"

#define LIVE_ROUNDS 8 /* of catching up before the disk is drained for the rest */
#define LITTLE      (1u << 20)

struct committing {
    struct chain *c;
    unsigned base, top;
    bool active;
    uint16_t base_lun; /* that it had, and gets back */
    uint64_t base_bytes;
    char *backing_file;
};

static struct layer *layer_at(const struct committing *m, unsigned i)
{
    return &m->c->layers[i];
}

static void free_committing(struct committing *m)
{
    if (m)
        free(m->backing_file);
    free(m);
}

/* ---- may it be done? ------------------------------------------------------------------------- */

static int check_layers(const struct chain *c, const struct commit_order *o, struct error *err)
{
    bool active = o->top == c->nr_layers - 1;

    for (unsigned i = o->base; i <= o->top; i++) {
        const struct layer *l = &c->layers[i];

        if (chain_check_other_chains(c, l, err) || (l->lun && chain_check_lun(c, l->lun, err)))
            return -err->errnum;
    }
    /* the disk stays, but a sealed one would get the name of another layer */
    return active && !chain_top(c)->writable ? chain_check_lun(c, 0, err) : 0;
}

static int check_commit(const struct chain *c, const struct commit_order *o, struct error *err)
{
    const struct blk_node *top = c->layers[o->top].node, *base = c->layers[o->base].node;
    if (base->size_bytes > top->size_bytes)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "%s is a larger disk than %s: committing into it would change the "
                               "size of the disk",
                               c->layers[o->base].filename, c->layers[o->top].filename);
    return check_layers(c, o, err);
}

/* ---- beginning ---------------------------------------------------------------------------- */

/* Sets the record to what @layers say, with the commit's name on it while it goes on. */
static int co_save_layers(struct committing *m, const struct layer *layers, unsigned n,
                          bool under_way, struct error *err)
{
    struct layer_shape s;
    int ret = shape_init(&s, m->c->rec, layers, n, err);

    if (ret)
        return ret;
    if (under_way && (record_set(&s.commit_base, layer_at(m, m->base)->filename) ||
                      record_set(&s.commit_top, layer_at(m, m->top)->filename)))
        ret = error_set(err, ENOMEM, "out of memory");
    if (!ret)
        ret = co_state_save_shape(m->c, &s, err);
    shape_release(&s);
    return ret;
}

static struct layer *copy_layers(const struct chain *c, struct error *err)
{
    struct layer *copy = calloc(c->nr_layers, sizeof(*copy));

    if (copy)
        memcpy(copy, c->layers, c->nr_layers * sizeof(*copy));
    else
        error_set(err, ENOMEM, "out of memory");
    return copy;
}

/* LUNs of base and all between it and top: from the record, then from the target. */
static int co_hide_layers(struct committing *m, struct error *err)
{
    struct chain *c = m->c;
    struct layer *plan = copy_layers(c, err);
    uint16_t lun;
    int ret;

    if (!plan)
        return -err->errnum;
    for (unsigned i = m->base; i < m->top; i++)
        plan[i].lun = 0;
    ret = co_save_layers(m, plan, c->nr_layers, true, err);
    free(plan);
    if (ret)
        return ret;
    m->base_lun = layer_at(m, m->base)->lun;
    for (unsigned i = m->base; i < m->top; i++) {
        lun = layer_at(m, i)->lun;
        layer_at(m, i)->lun = 0;
        if (lun)
            co_chain_unserve_lun(c, lun);
    }
    chain_update_pages(c, true);
    return 0;
}

/* Nothing was written yet: everything gets its number and name back. @were: as they were. */
static void co_show_layers(struct committing *m, const struct layer *were)
{
    struct error err = ERROR_INIT;

    for (unsigned i = m->base; i < m->top; i++) {
        struct layer *l = layer_at(m, i);

        l->lun = were[i].lun;
        l->uuid = were[i].uuid;
        if (!l->writable)
            layer_set_sealed(m->c, l, true);
        if (l->lun && chain_serve_layer(m->c, i, &err))
            log_err("chain %s: %s", m->c->rec->name, err.msg);
    }
    if (co_save_layers(m, m->c->layers, m->c->nr_layers, false, &err))
        log_err("chain %s: %s", m->c->rec->name, err.msg);
    chain_update_pages(m->c, true);
}

/* Drained. */
static int co_fit_base(struct committing *m, struct error *err)
{
    struct blk_node *base = layer_at(m, m->base)->node, *top = layer_at(m, m->top)->node;

    if (base->size_bytes >= top->size_bytes)
        return 0;
    if (!base->drv->co_resize)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s can't be made larger",
                               layer_at(m, m->base)->filename);
    return base->drv->co_resize(base, top->size_bytes, err);
}

/* The same taken back; drained. */
static void co_unfit_base(struct committing *m)
{
    struct blk_node *base = layer_at(m, m->base)->node;
    struct error err = ERROR_INIT;
    int ret = 0;

    if (base->read_only || base->size_bytes <= m->base_bytes)
        return;
    ret = strcmp(base->drv->name, "qcow2") ? base->drv->co_resize(base, m->base_bytes, &err)
                                           : co_qcow2_shrink(base, m->base_bytes, &err);
    if (ret)
        log_err("chain %s: %s keeps its new size: %s", m->c->rec->name, base->filename, err.msg);
}

static int co_unseal_base(struct committing *m, struct error *err)
{
    struct layer *l = layer_at(m, m->base);
    struct error ignored = ERROR_INIT;
    const char *user = blk_user_of(l->node, layer_at(m, m->base + 1)->node);
    int ret;

    if (user)
        return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "%s is in use by %s", l->filename,
                               user);
    m->base_bytes = l->node->size_bytes;
    co_blk_drain_begin(l->node);
    ret = co_blk_reopen(l->node, true, err);
    if (!ret) {
        ret = co_fit_base(m, err);
        if (ret)
            co_blk_reopen(l->node, false, &ignored);
    }
    blk_drain_end(l->node);
    if (ret)
        return ret;
    for (unsigned i = m->base + 1; i < m->top; i++) { /* as disks they change with the base */
        uuid_make(&layer_at(m, i)->uuid);
        layer_set_sealed(m->c, layer_at(m, i), true);
    }
    return co_state_save(m->c->d->state, err);
}

static struct blk_head *disk_head(const struct chain *c)
{
    return lun_head(target_find_lun(c->target, 0));
}

static int co_insert_watch(struct committing *m, struct error *err)
{
    struct chain *c = m->c;
    struct blk_node *top = layer_at(m, m->top)->node, *watch;

    co_blk_drain_begin(top);
    watch = commit_watch_new(top);
    if (watch) {
        c->filter = watch;
        blk_head_set_root(disk_head(c), watch);
    }
    blk_drain_end(top);
    return watch ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void co_remove_watch(struct chain *c)
{
    struct blk_node *watch = c->filter, *top = chain_top(c)->node;

    if (!watch)
        return;
    co_blk_drain_begin(top);
    c->filter = NULL;
    blk_head_set_root(disk_head(c), top);
    blk_drain_end(top);
    co_blk_node_unref(watch);
}

/* ---- the end ------------------------------------------------------------------------------ */

static int co_take_lun_of_top(struct committing *m)
{
    uint16_t lun = layer_at(m, m->top)->lun;

    if (lun)
        co_chain_unserve_lun(m->c, lun);
    return lun;
}

/* The layers as they are to be, base first; a copy, to be freed. */
static struct layer *plan_end(const struct committing *m, unsigned *n, struct error *err)
{
    const struct chain *c = m->c;
    struct layer *plan = copy_layers(c, err);

    if (!plan)
        return NULL;
    *n = c->nr_layers - (m->top - m->base);
    memmove(&plan[m->base + 1], &plan[m->top + 1], (c->nr_layers - m->top - 1) * sizeof(*plan));
    plan[m->base].lun = m->base_lun ? m->base_lun : chain_next_lun(c->rec);
    return plan;
}

static void co_serve_base(struct committing *m, uint16_t lun)
{
    struct chain *c = m->c;
    struct error err = ERROR_INIT;

    layer_at(m, m->base)->lun = lun;
    if (lun <= TARGET_MAX_LUN && chain_serve_layer(c, m->base, &err))
        log_err("chain %s: %s", c->rec->name, err.msg);
}

/* ---- ... of sealed layers */

/* What the layer above top is to call base: the name it was given from the same directory. */
static const char *backing_name(const struct committing *m)
{
    const struct layer *base = layer_at(m, m->base), *first = layer_at(m, m->base + 1),
                       *over = layer_at(m, m->top + 1);
    size_t dir = (size_t)(strrchr(first->filename, '/') - first->filename) + 1;
    struct qcow2_info info;

    if (m->backing_file)
        return m->backing_file;
    if (strcmp(first->format, "qcow2") || strncmp(first->filename, over->filename, dir) ||
        strchr(over->filename + dir, '/'))
        return base->filename;
    qcow2_get_info(first->node, &info);
    return info.backing ? info.backing : base->filename;
}

/* Base is durable, complete and sealed; then the layer above names it, then the graph does. */
static int co_join_over_base(struct committing *m, struct error *err)
{
    struct layer *base = layer_at(m, m->base), *over = layer_at(m, m->top + 1);
    int ret;

    co_blk_drain_begin(over->node);
    ret = co_blk_reopen(base->node, false, err);
    if (!ret)
        ret = co_layer_write_backing(m->c, over, backing_name(m), base->format, err);
    if (!ret)
        blk_set_backing(over->node, base->node);
    blk_drain_end(over->node);
    return ret;
}

static int co_end_sealed(struct committing *m, struct error *err)
{
    struct chain *c = m->c;
    struct layer *base = layer_at(m, m->base);
    struct error save_err = ERROR_INIT;
    uint16_t top_lun;
    unsigned n;
    struct layer *plan = plan_end(m, &n, err);
    int ret;

    if (!plan)
        return -err->errnum;
    top_lun = (uint16_t)co_take_lun_of_top(m);
    ret = co_join_over_base(m, err);
    if (ret) {
        if (top_lun && chain_serve_layer(c, m->top, &save_err))
            log_err("chain %s: %s", c->rec->name, save_err.msg);
        free(plan);
        return ret;
    }
    base->writable = false;
    layer_set_sealed(c, base, false);
    if (co_save_layers(m, plan, n, false, &save_err)) /* found out again at the next start */
        log_err("chain %s: %s", c->rec->name, save_err.msg);
    co_chain_drop_layers(c, m->base + 1, m->top - m->base);
    co_serve_base(m, plan[m->base].lun);
    free(plan);
    return 0;
}

/* ---- ... of the active layer */

/* Drained: from here to the switch the guest waits. */
static int co_pivot(struct committing *m, const struct layer *plan, unsigned n, struct error *err)
{
    struct chain *c = m->c;
    struct layer *base = layer_at(m, m->base);
    int ret = co_commit_catch_up(c->filter, base->node);

    if (!ret)
        ret = base->node->drv->co_inactivate ? base->node->drv->co_inactivate(base->node)
                                             : co_blk_flush(base->node);
    if (ret)
        return error_set(err, -ret, "the last writes into %s: %s", base->filename, strerror(-ret));
    ret = co_save_layers(m, plan, n, false, err);
    if (!ret)
        blk_head_set_root(disk_head(c), base->node);
    return ret;
}

static void co_settle_base(struct committing *m)
{
    struct layer *base = layer_at(m, m->base);

    base->writable = m->c->rec->writable;
    if (base->writable)
        uuid_make(&base->uuid);
    else
        co_layer_seal(m->c, layer_at(m, m->base), false);
    co_chain_settings_follow(m->c);
}

static int co_end_active(struct committing *m, struct error *err)
{
    struct chain *c = m->c;
    struct blk_node *top = blk_node_ref(chain_top(c)->node), *watch = c->filter;
    struct error serve_err = ERROR_INIT;
    uint16_t top_lun;
    unsigned n;
    struct layer *plan = plan_end(m, &n, err);
    int ret = plan ? 0 : -err->errnum;

    for (int i = 0; !ret && i < LIVE_ROUNDS && commit_watch_dirty_bytes(watch) > LITTLE; i++) {
        ret = co_commit_catch_up(watch, layer_at(m, m->base)->node);
        if (ret)
            error_set(err, -ret, "the last writes into %s: %s", layer_at(m, m->base)->filename,
                      strerror(-ret));
    }
    if (!ret) {
        top_lun = (uint16_t)co_take_lun_of_top(m);
        co_blk_drain_begin(top);
        ret = co_pivot(m, plan, n, err);
        blk_drain_end(top);
        if (ret && top_lun && chain_serve_layer(c, m->top, &serve_err))
            log_err("chain %s: %s", c->rec->name, serve_err.msg);
    }
    if (!ret) {
        c->filter = NULL;
        co_blk_node_unref(watch);
        co_chain_drop_layers(c, m->base + 1, m->top - m->base);
        co_settle_base(m);
        co_serve_base(m, plan[m->base].lun);
    }
    free(plan);
    co_blk_node_unref(top);
    return ret;
}

/* The job's on_done; runs in the job's coroutine. */
static void commit_done(struct job *job, void *opaque)
{
    struct committing *m = opaque;
    struct chain *c = m->c;

    if (job->ret == 0) {
        job->ret = m->active ? co_end_active(m, &job->err) : co_end_sealed(m, &job->err);
        if (job->ret == 0)
            log_notice("chain %s: committed into %s, %u layers left", c->rec->name,
                       layer_at(m, m->base)->filename, c->nr_layers);
    }
    if (job->ret) {
        co_remove_watch(c);
        co_layer_seal(m->c, layer_at(m, m->base), false);
    }
    c->commit = NULL;
    co_state_save_or_log(c->d->state); /* UUIDs */
    chain_update_pages(c, true);
    free_committing(m);
}

/* ---- the command -------------------------------------------------------------------------- */

static int co_start_job(struct committing *m, const struct commit_order *o, struct error *err)
{
    struct chain *c = m->c;
    struct commit_opts opts = {
        .top = layer_at(m, m->top)->node,
        .base = layer_at(m, m->base)->node,
        .auto_complete = o->auto_complete,
    };
    struct job *job;

    if (m->active && co_insert_watch(m, err))
        return -err->errnum;
    opts.watch = c->filter;
    job = commit_job_new(o->job_id, c->rec->name, &opts, err);
    if (!job) {
        co_remove_watch(c);
        return -err->errnum;
    }
    job->speed = o->speed_bytes;
    job->on_error = o->on_error;
    job->auto_finalize = o->auto_finalize;
    job->auto_dismiss = o->auto_dismiss;
    job->on_done = commit_done;
    job->opaque = m;
    c->commit = job;
    job_start(job);
    return 0;
}

static void co_take_back(struct committing *m, const struct layer *were)
{
    struct blk_node *base = layer_at(m, m->base)->node;

    co_blk_drain_begin(base);
    co_unfit_base(m);
    blk_drain_end(base);
    if (!base->read_only)
        co_layer_seal(m->c, layer_at(m, m->base), false);
    co_show_layers(m, were);
}

static int co_begin(struct committing *m, const struct commit_order *o, struct error *err)
{
    struct layer *were = copy_layers(m->c, err);
    int ret;

    if (!were)
        return -err->errnum;
    ret = co_hide_layers(m, err);
    if (!ret) {
        ret = co_unseal_base(m, err);
        if (!ret)
            ret = co_start_job(m, o, err);
        if (ret)
            co_take_back(m, were);
    }
    free(were);
    return ret;
}

int co_chain_commit(struct chain *c, const struct commit_order *o, struct error *err)
{
    struct committing *m;
    const char *id = o->job_id ? o->job_id : c->rec->name;
    int ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_COMMIT, err);
    if (!ret && job_find(id)) /* found out before anything is taken away */
        ret = error_set(err, EEXIST, "job id '%s' is in use", id);
    if (!ret)
        ret = check_commit(c, o, err);
    if (ret)
        return ret;
    m = calloc(1, sizeof(*m));
    if (!m || (o->backing_file && !(m->backing_file = strdup(o->backing_file)))) {
        free(m);
        return error_set(err, ENOMEM, "out of memory");
    }
    m->c = c;
    m->base = o->base;
    m->top = o->top;
    m->active = o->top == c->nr_layers - 1;
    ret = co_begin(m, o, err);
    if (ret)
        free_committing(m);
    return ret;
}
