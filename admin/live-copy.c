/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies of a disk in use: a mirror, to which the chain can go over, and a backup.
 *
 * While the job copies nothing of the chain changes, on disk or in the record: a crash leaves the
 * chain as it is and a file that nobody refers to. A mirror's end, drained: the copy is complete
 * and durable, the record names it as the disk's image, the graph follows. Before the record the
 * old layers are the disk, after it the copy is; the guest's writes wait in between.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/live.h"
#include "admin/settings.h"
#include "lun-backends/replica.h"
#include "util/log.h"

#define LIVE_ROUNDS 8 /* of catching up before the disk is drained for the rest */
#define LITTLE      (1u << 20)

struct copying {
    struct chain *c;
    bool backup;
    unsigned keep;            /* layers, lowest first, that are below the copy, too */
    struct blk_node *replica; /* the chain's filter */
    struct copy_target target;
    struct layer *plan; /* as the layers are to be */
    struct layer_shape shape;
};

/* ---- may it be done? ----------------------------------------------------------------------- */

static unsigned layers_kept(const struct chain *c, enum copy_sync sync)
{
    switch (sync) {
    case COPY_FULL:
        break;
    case COPY_TOP:
        return c->nr_layers - 1;
    case COPY_NONE:
        return c->nr_layers;
    }
    return 0;
}

static int check_kept(const struct chain *c, unsigned keep, struct error *err)
{
    const struct layer *l = keep ? &c->layers[keep - 1] : NULL;

    if (l && (*l->filename != '/' || !l->node->drv->co_reopen))
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "%s (%s) can't be below another image: use sync 'full'", l->filename,
                               l->format);
    return 0;
}

static int check_mirror(const struct chain *c, unsigned keep, struct error *err)
{
    if (c->rec->commit_top)
        return error_set(err, EINVAL, "a commit into %s did not come to its end: do it again first",
                         c->rec->commit_base);
    if (keep >= CHAIN_MAX_LAYERS || chain_next_lun(c->rec) > TARGET_MAX_LUN)
        return error_set(err, E2BIG,
                         "chain '%s' has had too many layers: commit some, or export it anew",
                         c->rec->name);
    for (unsigned i = keep; i < c->nr_layers; i++) {
        if (c->layers[i].lun && chain_check_lun(c, c->layers[i].lun, err))
            return -err->errnum;
    }
    return 0;
}

static int check_order(const struct chain *c, const struct copy_order *o, unsigned keep,
                       struct error *err)
{
    const char *id = o->job_id ? o->job_id : c->rec->name;

    if (job_find(id)) /* found out before a file is made */
        return error_set(err, EEXIST, "job id '%s' is in use", id);
    if (o->target.node_name && blk_node_find(o->target.node_name))
        return error_set(err, EEXIST, "Duplicate nodes with node-name='%s'", o->target.node_name);
    if (check_kept(c, keep, err))
        return -err->errnum;
    return o->backup ? 0 : check_mirror(c, keep, err);
}

/* ---- the filter ------------------------------------------------------------------------------ */

static struct blk_head *disk_head(const struct chain *c)
{
    return lun_head(target_find_lun(c->target, 0));
}

static int co_insert_replica(struct copying *m, const struct copy_order *o, struct error *err)
{
    struct chain *c = m->c;
    struct blk_node *top = chain_top(c)->node;
    struct replica_opts opts = {
        .kind = m->backup ? REPLICA_BACKUP : REPLICA_MIRROR,
        .source = top,
        .target = m->target.node,
        .levels = o->sync == COPY_TOP && m->keep ? 1 : 0,
        .all = o->sync != COPY_NONE,
        .keep_zeros = o->keep_zeros,
        .write_blocking = o->write_blocking,
        .granularity_bytes = o->granularity_bytes,
    };

    co_blk_drain_begin(top);
    m->replica = replica_new(&opts);
    if (m->replica) {
        c->filter = m->replica;
        blk_head_set_root(disk_head(c), m->replica);
    }
    blk_drain_end(top);
    return m->replica ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void co_remove_replica(struct copying *m)
{
    struct chain *c = m->c;
    struct blk_node *top = chain_top(c)->node;

    if (!m->replica)
        return;
    co_blk_drain_begin(top);
    c->filter = NULL;
    blk_head_set_root(disk_head(c), top);
    blk_drain_end(top);
    co_blk_node_unref(m->replica);
    m->replica = NULL;
}

/* ---- the end ------------------------------------------------------------------------------ */

static int fail_last_writes(const struct copying *m, int ret, struct error *err)
{
    return error_set(err, -ret, "the last writes into %s: %s", m->target.path, strerror(-ret));
}

/* With the guest running, until there is little left. */
static int co_catch_up_live(struct copying *m, struct error *err)
{
    struct blk_head head;
    int ret = 0;

    blk_head_init(&head, "the end of a mirror", chain_top(m->c)->node, false);
    for (int i = 0; !ret && i < LIVE_ROUNDS && replica_dirty_bytes(m->replica) > LITTLE; i++) {
        co_blk_head_enter(&head); /* a drain waits for us */
        ret = co_replica_catch_up(m->replica);
        blk_head_exit(&head);
    }
    co_blk_head_fini(&head);
    return ret ? fail_last_writes(m, ret, err) : 0;
}

static int co_settle(struct blk_node *node)
{
    return node->drv->co_inactivate ? node->drv->co_inactivate(node) : co_blk_flush(node);
}

/* The copy is the disk at this moment, or as it was at the start, and stays so. */
static int co_end_copy(struct copying *m, struct error *err)
{
    struct blk_node *top = chain_top(m->c)->node;
    int ret = m->backup ? 0 : co_catch_up_live(m, err);

    if (!ret && !m->backup) {
        co_blk_drain_begin(top);
        ret = co_replica_catch_up(m->replica);
        if (!ret) { /* what comes now is not copied any more */
            m->c->filter = NULL;
            blk_head_set_root(disk_head(m->c), top);
        }
        blk_drain_end(top);
        if (ret)
            return fail_last_writes(m, ret, err);
        co_blk_node_unref(m->replica);
        m->replica = NULL;
    }
    if (ret)
        return ret;
    ret = co_settle(m->target.node);
    return ret ? fail_last_writes(m, ret, err) : 0;
}

static int plan_layers(struct copying *m, struct error *err)
{
    const struct chain *c = m->c;
    struct layer *l;

    m->plan = calloc(m->keep + 1, sizeof(*m->plan));
    if (!m->plan)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(m->plan, c->layers, m->keep * sizeof(*m->plan));
    l = &m->plan[m->keep];
    l->filename = strdup(m->target.path);
    if (!l->filename)
        return error_set(err, ENOMEM, "out of memory");
    strcpy(l->format, m->target.format);
    l->writable = true;
    l->lun = chain_next_lun(c->rec);
    uuid_make(&l->uuid);
    return shape_init(&m->shape, c->rec, m->plan, m->keep + 1, err);
}

/* Drained: from here to the switch the guest waits. What is below the copy gets durable, too. */
static int co_pivot(struct copying *m, struct error *err)
{
    struct chain *c = m->c;
    int ret = co_replica_catch_up(m->replica);

    if (!ret && m->keep == c->nr_layers && chain_top(c)->writable)
        ret = co_settle(chain_top(c)->node);
    if (!ret)
        ret = co_settle(m->target.node);
    if (ret)
        return fail_last_writes(m, ret, err);
    record_set(&c->rec->copy_to, NULL);
    ret = co_state_save_shape(c, &m->shape, err);
    if (!ret)
        blk_head_set_root(disk_head(c), m->target.node);
    return ret;
}

/* The disk is the copy already. */
static void co_take_over(struct copying *m)
{
    struct chain *c = m->c;
    struct layer *were = c->layers;
    unsigned nr_gone = c->nr_layers - m->keep;
    struct error err = ERROR_INIT;

    c->filter = NULL;
    m->plan[m->keep].node = blk_node_ref(m->target.node);
    c->layers = m->plan;
    c->nr_layers = m->keep + 1;
    m->plan = NULL;
    co_blk_node_unref(m->replica);
    m->replica = NULL;
    for (unsigned i = m->keep; i < m->keep + nr_gone; i++)
        if (were[i].lun)
            co_chain_unserve_lun(c, were[i].lun);
    if (m->keep && c->layers[m->keep - 1].writable)
        co_layer_seal(c, &c->layers[m->keep - 1], true);
    co_chain_settings_follow(c);
    if (!c->rec->writable)
        co_layer_seal(c, chain_top(c), false);
    if (chain_serve_layer(c, m->keep, &err))
        log_err("chain %s: %s", c->rec->name, err.msg);
    co_chain_let_go(c, &were[m->keep], nr_gone);
    free(were);
}

static int co_end_switch(struct copying *m, struct error *err)
{
    struct chain *c = m->c;
    struct blk_node *top = blk_node_ref(chain_top(c)->node);
    int ret = co_catch_up_live(m, err);

    if (!ret)
        ret = plan_layers(m, err);
    if (!ret) {
        co_blk_drain_begin(top);
        ret = co_pivot(m, err);
        blk_drain_end(top);
    }
    if (!ret) {
        co_take_over(m);
        log_notice("chain %s: its disk is %s now, with %u layers below", c->rec->name,
                   m->target.path, m->keep);
    }
    co_blk_node_unref(top);
    return ret;
}

static void co_free_copying(struct copying *m)
{
    if (m->plan)
        free(m->plan[m->keep].filename);
    free(m->plan);
    shape_release(&m->shape);
    copy_target_release(&m->target);
    free(m);
}

/* The job's on_done; runs in the job's coroutine. */
static void copy_done(struct job *job, void *opaque)
{
    struct copying *m = opaque;
    struct chain *c = m->c;
    bool stays = m->backup || job->left;

    if (job->ret == 0)
        job->ret = stays ? co_end_copy(m, &job->err) : co_end_switch(m, &job->err);
    co_remove_replica(m);
    if (job->ret)
        log_notice("chain %s: %s is no copy of its disk", c->rec->name, m->target.path);
    else if (stays)
        log_notice("chain %s: %s is a copy of its disk", c->rec->name, m->target.path);
    c->copy = NULL;
    record_set(&c->rec->copy_to, NULL);
    co_state_save_or_log(c->d->state); /* UUIDs, too */
    chain_update_pages(c, true);
    co_copy_target_close(&m->target);
    co_free_copying(m);
}

/* ---- the command -------------------------------------------------------------------------- */

/* It is known after a crash that the file is incomplete. */
static int co_note_copy(struct copying *m, struct error *err)
{
    struct chain_record *rec = m->c->rec;
    int ret = record_set(&rec->copy_to, m->target.path);

    ret = ret ? error_set(err, ENOMEM, "out of memory") : co_state_save(m->c->d->state, err);
    if (ret)
        record_set(&rec->copy_to, NULL);
    return ret;
}

static int start_job(struct copying *m, const struct copy_order *o, struct error *err)
{
    struct replica_job_opts opts = {
        .replica = m->replica,
        .auto_complete = o->auto_complete,
        .on_source = o->on_source_error,
        .on_target = o->on_target_error,
        .buf_bytes = o->buf_bytes,
    };
    struct job *job = replica_job_new(o->job_id, m->c->rec->name, &opts, err);

    if (!job)
        return -err->errnum;
    job->speed = o->speed_bytes;
    job->auto_finalize = o->auto_finalize;
    job->auto_dismiss = o->auto_dismiss;
    job->on_done = copy_done;
    job->opaque = m;
    m->c->copy = job;
    job_start(job);
    return 0;
}

int co_chain_copy(struct chain *c, const struct copy_order *o, struct error *err)
{
    unsigned keep;
    struct copying *m;
    int ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, o->backup ? CHAIN_OP_BACKUP : CHAIN_OP_MIRROR, err);
    if (ret)
        return ret;
    keep = layers_kept(c, o->sync);
    ret = check_order(c, o, keep, err);
    if (ret)
        return ret;
    m = calloc(1, sizeof(*m));
    if (!m)
        return error_set(err, ENOMEM, "out of memory");
    m->c = c;
    m->backup = o->backup;
    m->keep = keep;
    ret = co_copy_target_open(&m->target, c, &o->target, keep ? &c->layers[keep - 1] : NULL, err);
    if (!ret)
        ret = co_note_copy(m, err);
    if (!ret)
        ret = co_insert_replica(m, o, err);
    if (!ret)
        ret = start_job(m, o, err);
    if (ret) {
        record_set(&c->rec->copy_to, NULL);
        co_remove_replica(m);
        co_copy_target_discard(&m->target);
        co_free_copying(m);
    }
    return ret;
}
