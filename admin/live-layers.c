/* SPDX-License-Identifier: BSD-3-Clause */
/* What the changes of live chains do to layers in common: live.h, "shared by them". */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/events.h"
#include "admin/json-util.h"
#include "admin/live.h"
#include "util/log.h"

int chain_check_other_chains(const struct chain *c, const struct layer *l, struct error *err)
{
    struct file_identity mine, theirs;
    struct chain *other;

    if (!chain_node_identity(l->node, &mine) || !l->node->drv->co_reopen)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "%s is no image that can be committed", l->filename);
    list_for_each_entry (other, &c->d->chains, link) {
        for (unsigned i = 0; other != c && i < other->nr_layers; i++) {
            if (!chain_node_identity(other->layers[i].node, &theirs))
                continue;
            if (mine.dev == theirs.dev && mine.inode == theirs.inode)
                return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "chain '%s' uses %s, too",
                                       other->rec->name, l->filename);
        }
    }
    return 0;
}

int chain_check_lun(const struct chain *c, uint16_t number, struct error *err)
{
    struct lun *lun = target_find_lun(c->target, number);
    char who[256];

    if (!lun || !lun_in_use(lun, who, sizeof(who)))
        return 0;
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "chain '%s': %s, which would be taken away", c->rec->name, who);
}

/* ---- the record ------------------------------------------------------------------------------ */

int co_state_save_shape(struct chain *c, struct layer_shape *s, struct error *err)
{
    struct error ignored = ERROR_INIT;
    int ret;

    shape_swap(s, c->rec);
    ret = co_state_save(c->d->state, err);
    if (!ret)
        return 0;
    shape_swap(s, c->rec);
    co_state_save(c->d->state, &ignored); /* the first error is the one to tell */
    return ret;
}

void layer_set_sealed(struct chain *c, struct layer *l, bool keep_uuid)
{
    struct file_identity id;

    if (!chain_node_identity(l->node, &id))
        return;
    if (keep_uuid)
        state_set_file_uuid(c->d->state, l->filename, &id, &l->uuid);
    else
        state_file_uuid(c->d->state, l->filename, &id, &l->uuid);
}

void co_layer_seal(struct chain *c, struct layer *l, bool keep_uuid)
{
    struct error err = ERROR_INIT;
    int ret;

    co_blk_drain_begin(l->node);
    ret = co_blk_reopen(l->node, false, &err);
    if (ret) /* all of it is flushed: an error that passes is no reason to leave it unsealed */
        ret = co_blk_reopen(l->node, false, &err);
    blk_drain_end(l->node);
    if (ret)
        log_err("chain %s: %s is not sealed: %s", c->rec->name, l->filename, err.msg);
    l->writable = ret != 0;
    if (!ret || !keep_uuid)
        layer_set_sealed(c, l, keep_uuid);
}

/* ---- layers that are out of use -------------------------------------------------------------- */

static void tell_dropped(const struct chain *c, const struct layer *l)
{
    char uuid[UUID_STRLEN];

    uuid_to_text(&l->uuid, uuid);
    event_emit(c->d, "CHAIN_LAYER_DROPPED",
               json_pack("{s:s, s:o, s:s, s:s}", "chain", c->rec->name, "layer",
                         json_text(l->filename), "uuid", uuid, "target", c->rec->target));
}

static bool has_file(const struct chain *c, const char *filename)
{
    for (unsigned i = 0; i < c->nr_layers; i++)
        if (!strcmp(c->layers[i].filename, filename))
            return true;
    return false;
}

void co_chain_let_go(struct chain *c, struct layer *gone, unsigned n)
{
    while (n-- > 0) {
        co_blk_node_unref(gone[n].node);
        if (!has_file(c, gone[n].filename))
            tell_dropped(c, &gone[n]);
        free(gone[n].filename);
    }
}

void co_chain_drop_layers(struct chain *c, unsigned first, unsigned n)
{
    struct layer *gone = calloc(n, sizeof(*gone));

    if (gone)
        memcpy(gone, &c->layers[first], n * sizeof(*gone));
    for (unsigned i = first; !gone && i < first + n; i++) { /* no memory: closed behind our back */
        blk_node_unref(c->layers[i].node);
        free(c->layers[i].filename);
    }
    memmove(&c->layers[first], &c->layers[first + n],
            (c->nr_layers - first - n) * sizeof(*c->layers));
    c->nr_layers -= n;
    if (gone)
        co_chain_let_go(c, gone, n);
    free(gone);
}
