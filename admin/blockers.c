/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which operations on a chain can't run beside what: the table. One command at a time changes a
 * chain in any case (chain_claim); layers that are used by others are looked at by the operations
 * themselves, as they know which ones they touch.
 * The same table is in docs/live-chains.md, which a judge walks.
 */
#include <errno.h>

#include "admin/live.h"

enum blocker {
    BY_JOB = 1,    /* a stream, a commit, a mirror, a backup */
    BY_SOURCE = 2, /* the source that a pulled chain still needs */
    BY_FILTER = 4, /* copy-on-read put in by hand: it knows one top only */
    BY_VIEW = 8,   /* initiators see the bytes of the image files, which can't change */
};

static const unsigned blockers[CHAIN_NR_OPS] = {
    [CHAIN_OP_SNAPSHOT] = BY_JOB | BY_SOURCE | BY_FILTER,
    [CHAIN_OP_COMMIT] = BY_JOB | BY_SOURCE | BY_FILTER | BY_VIEW,
    [CHAIN_OP_MIRROR] = BY_JOB | BY_SOURCE | BY_FILTER | BY_VIEW,
    [CHAIN_OP_BACKUP] = BY_JOB | BY_SOURCE | BY_FILTER,
    [CHAIN_OP_STREAM] = BY_JOB | BY_SOURCE | BY_VIEW,
    [CHAIN_OP_PULL_STREAM] = BY_JOB,
    [CHAIN_OP_GROW] = BY_JOB,
    [CHAIN_OP_SHRINK] = BY_JOB | BY_SOURCE,
    [CHAIN_OP_RENAME_BACKING] = BY_JOB | BY_VIEW,
    [CHAIN_OP_SWITCH_BACKING] = BY_JOB | BY_SOURCE | BY_FILTER | BY_VIEW,
    [CHAIN_OP_DROP_LAYER] = BY_JOB | BY_SOURCE | BY_VIEW,
    [CHAIN_OP_INSERT_FILTER] = BY_JOB,
    [CHAIN_OP_REMOVE_COPY_ON_READ] = BY_JOB | BY_SOURCE,
    [CHAIN_OP_REMOVE_INJECT] = 0,
    [CHAIN_OP_REMOVE] = BY_JOB,
};

static int refuse_job(const struct chain *c, struct error *err)
{
    const struct job *job = chain_job(c);

    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "%s job '%s' works on chain '%s': wait for it or cancel it",
                           job->drv->type, job->id, c->rec->name);
}

static int refuse_source(const struct chain *c, struct error *err)
{
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "chain '%s' still needs its source %s: stream it first", c->rec->name,
                           c->rec->source_url);
}

static int refuse_filter(const struct chain *c, struct error *err)
{
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "a %s filter is on chain '%s': take it out first "
                           "(blockdev-remove-filter)",
                           c->filter->drv->name, c->rec->name);
}

static int refuse_view(const struct chain *c, struct error *err)
{
    return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                           "chain '%s' shows the bytes of its image files: they can't change",
                           c->rec->name);
}

int chain_check_op(const struct chain *c, enum chain_op op, struct error *err)
{
    unsigned by = blockers[op];

    if ((by & BY_JOB) && chain_job(c))
        return refuse_job(c, err);
    if ((by & BY_SOURCE) && c->remote)
        return refuse_source(c, err);
    if ((by & BY_FILTER) && c->filter)
        return refuse_filter(c, err);
    if ((by & BY_VIEW) && chain_view(c->rec) == COWL_VIEW_IMAGE)
        return refuse_view(c, err);
    return 0;
}

int chain_check_served(const struct chain *c, struct error *err)
{
    if (!*c->failure.msg && c->target && c->nr_layers)
        return 0;
    return error_set(err, EINVAL, "chain '%s' is not served: %s", c->rec->name,
                     *c->failure.msg ? c->failure.msg : "it is being opened or removed");
}
