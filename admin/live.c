/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshot, resize and renaming of a backing file, live.
 *
 * A snapshot's order: the overlay is made and durable, the old top's data is durable (drained),
 * the record says that the overlay is the top, then it becomes the top. A crash before the record
 * leaves a file that nobody refers to; after it, an empty overlay over all that was written.
 */
#define LOG_AREA "chain"
#include "admin/live.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/file.h"
#include "lun-backends/qcow2.h"
#include "util/co-path.h"
#include "util/log.h"
#include "util/size.h"

#define NAME_TRIES 1000

int chain_find_layer(const struct chain *c, const char *text, struct error *err)
{
    char uuid[UUID_STRLEN];
    int found = -1;

    for (unsigned i = 0; i < c->nr_layers; i++) {
        const struct layer *l = &c->layers[i];
        const char *slash = strrchr(l->filename, '/');

        uuid_to_text(&l->uuid, uuid);
        if (!strcmp(l->node->name, text) || !strcmp(l->filename, text) || !strcasecmp(uuid, text))
            return (int)i;
        if (!slash || strcmp(slash + 1, text))
            continue;
        if (found >= 0) {
            error_set(err, EINVAL,
                      "chain '%s' has more than one layer named '%s': say which by "
                      "its whole file name",
                      c->rec->name, text);
            return -1;
        }
        found = (int)i;
    }
    if (found < 0)
        error_set(err, ENOENT, "Can't find '%s' in the backing chain", text);
    return found;
}

/* ---- snapshot ------------------------------------------------------------------------------ */

struct snapshot {
    const struct snapshot_order *order;
    struct chain *c;
    char path[PATH_MAX];
    bool created, drained;
    struct blk_node *old_top; /* holds a reference */
    struct blk_node *node;    /* of the overlay; holds a reference */
    struct layer *layers;     /* as they are to be: the old ones and the overlay */
    struct layer_shape shape;
};

static int check_snapshot(const struct snapshot_order *o, struct error *err)
{
    const struct chain *c = o->c;
    const struct layer *top;

    if (chain_check_served(c, err) || chain_check_op(c, CHAIN_OP_SNAPSHOT, err))
        return -err->errnum;
    top = chain_top(c);
    if (!top->node->drv->co_reopen)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "chain '%s' is no file (%s), so nothing can be put above it",
                               c->rec->name, top->format);
    if (!top->writable)
        return error_set(err, EROFS,
                         "chain '%s' is served read-only: nothing changes in it, and a snapshot "
                         "would freeze nothing",
                         c->rec->name);
    if (c->nr_layers >= CHAIN_MAX_LAYERS || chain_next_lun(c->rec) > TARGET_MAX_LUN)
        return error_set(err, E2BIG,
                         "chain '%s' has had too many layers: commit some, or export "
                         "it anew",
                         c->rec->name);
    if (o->node_name && blk_node_find(o->node_name))
        return error_set(err, EEXIST, "Duplicate nodes with node-name='%s'", o->node_name);
    return 0;
}

/* TOP-DIR/CHAIN-snN.qcow2, N from the number of the layer on. */
static int co_create_named(struct snapshot *s, const struct file_opts *fo, struct blk_node **file,
                           struct error *err)
{
    const char *top = chain_top(s->c)->filename;
    int dir_len = (int)(strrchr(top, '/') - top), ret = -EEXIST;
    unsigned number = chain_next_lun(s->c->rec) - 1;

    for (unsigned i = 0; ret == -EEXIST && i < NAME_TRIES; i++) {
        if (snprintf(s->path, sizeof(s->path), "%.*s/%s-sn%u.qcow2", dir_len, top, s->c->rec->name,
                     number + i) >= (int)sizeof(s->path))
            return error_set(err, ENAMETOOLONG, "the name of a new file beside %s is too long",
                             top);
        ret = co_file_open(s->path, fo, file, err);
    }
    return ret;
}

static int co_create_file(struct snapshot *s, struct blk_node **file, struct error *err)
{
    struct file_opts fo = {.writable = true, .create = true, .cache = record_cache(s->c->rec)};
    int ret;

    if (!s->order->file)
        return co_create_named(s, &fo, file, err);
    if (snprintf(s->path, sizeof(s->path), "%s", s->order->file) >= (int)sizeof(s->path))
        return error_set(err, ENAMETOOLONG, "the snapshot file's name is too long");
    ret = co_file_open(s->path, &fo, file, err);
    if (ret == -EEXIST)
        error_set(err, EEXIST, "%s exists already: remove it, or choose another file", s->path);
    return ret;
}

static int co_create_overlay(struct snapshot *s, struct error *err)
{
    const struct layer *top = chain_top(s->c);
    struct qcow2_create_opts qo = {
        .size_bytes = top->node->size_bytes,
        .backing = top->filename,
        .backing_fmt = top->format,
    };
    struct blk_node *file;
    char *name;
    int ret = co_create_file(s, &file, err);

    if (ret)
        return ret;
    s->created = true;
    ret = co_qcow2_create(file, &qo, err);
    if (!ret)
        ret = co_qcow2_open(file, true, &s->node, err);
    co_blk_node_unref(file);
    if (ret)
        return error_prefix(err, "snapshot file %s", s->path);
    ret = co_path_fsync_parent(s->path);
    if (ret)
        return error_set(err, -ret, "can't make %s durable: %s", s->path, strerror(-ret));
    if (s->c->settings.set && co_qcow2_node_set_settings(s->node, &s->c->settings, err))
        return -err->errnum;
    if (s->order->node_name) {
        name = strdup(s->order->node_name);
        if (!name)
            return error_set(err, ENOMEM, "out of memory");
        free(s->node->name);
        s->node->name = name;
    }
    return 0;
}

/* What the chain will be. */
static int plan_snapshot(struct snapshot *s, struct error *err)
{
    struct chain *c = s->c;
    unsigned n = c->nr_layers;
    struct layer *l;

    s->layers = calloc(n + 1, sizeof(*s->layers));
    if (!s->layers)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(s->layers, c->layers, n * sizeof(*s->layers));
    l = &s->layers[n];
    l->filename = strdup(s->path);
    if (!l->filename)
        return error_set(err, ENOMEM, "out of memory");
    strcpy(l->format, "qcow2");
    l->node = blk_node_ref(s->node);
    l->writable = true;
    l->lun = chain_next_lun(c->rec);
    uuid_make(&l->uuid);
    return shape_init(&s->shape, c->rec, s->layers, n + 1, err);
}

static int co_prepare(struct snapshot *s, struct error *err)
{
    struct blk_node *top = s->old_top;
    int ret;

    if (co_create_overlay(s, err) || plan_snapshot(s, err))
        return -err->errnum;
    ret = co_blk_flush(top); /* most of it with the guest running */
    return ret ? error_set(err, -ret, "can't flush %s: %s", top->filename, strerror(-ret)) : 0;
}

static int co_drain_and_settle(struct snapshot *s, struct error *err)
{
    struct blk_node *top = s->old_top;
    int ret;

    co_blk_drain_begin(top);
    s->drained = true;
    ret = top->drv->co_inactivate ? top->drv->co_inactivate(top) : co_blk_flush(top);
    return ret ? error_set(err, -ret, "can't flush %s: %s", top->filename, strerror(-ret)) : 0;
}

static int co_save_all(struct snapshot *s, unsigned n, struct error *err)
{
    struct daemon *d = s->c->d;
    struct error second = ERROR_INIT;
    int ret;

    for (unsigned i = 0; i < n; i++)
        shape_swap(&s[i].shape, s[i].c->rec);
    ret = co_state_save(d->state, err);
    if (!ret)
        return 0;
    for (unsigned i = 0; i < n; i++)
        shape_swap(&s[i].shape, s[i].c->rec);
    if (co_state_save(d->state, &second)) {
        /* the state on disk may name the overlays: empty, they do no harm, missing they would */
        for (unsigned i = 0; i < n; i++)
            s[i].created = false;
    }
    return ret;
}

/* Cannot fail; drained. */
static void co_switch_top(struct snapshot *s)
{
    struct chain *c = s->c;

    blk_set_backing(s->node, s->old_top);
    blk_head_set_root(lun_head(target_find_lun(c->target, 0)), s->node);
    free(c->layers);
    c->layers = s->layers;
    s->layers = NULL;
    c->nr_layers++;
    co_layer_seal(c, &c->layers[c->nr_layers - 2], true);
}

static void co_finish(struct snapshot *s)
{
    struct chain *c = s->c;
    struct error err = ERROR_INIT;

    if (chain_serve_layer(c, c->nr_layers - 1, &err))
        log_err("chain %s: %s", c->rec->name, err.msg);
    chain_update_pages(c, true);
    log_notice("chain %s: snapshot, new writes go to %s", c->rec->name, s->path);
}

static void co_release(struct snapshot *s, bool done)
{
    if (s->layers) {
        struct layer *l = &s->layers[s->c->nr_layers];

        co_blk_node_unref(l->node);
        free(l->filename);
        free(s->layers);
    }
    co_blk_node_unref(s->node);
    if (s->created && !done)
        co_path_unlink(s->path);
    co_blk_node_unref(s->old_top);
    shape_release(&s->shape);
}

static int co_run_snapshots(struct snapshot *s, unsigned n, struct error *err)
{
    int ret = 0;

    for (unsigned i = 0; i < n && !ret; i++)
        ret = co_prepare(&s[i], err);
    for (unsigned i = 0; i < n && !ret; i++)
        ret = co_drain_and_settle(&s[i], err);
    if (!ret)
        ret = co_save_all(s, n, err);
    for (unsigned i = 0; i < n && !ret; i++)
        co_switch_top(&s[i]);
    for (unsigned i = 0; i < n; i++) {
        if (s[i].drained)
            blk_drain_end(s[i].old_top);
    }
    return ret;
}

int co_chains_snapshot(struct daemon *d, const struct snapshot_order *orders, unsigned n,
                       struct error *err)
{
    struct snapshot *s;
    int ret = 0;

    for (unsigned i = 0; i < n && !ret; i++)
        ret = check_snapshot(&orders[i], err);
    if (ret)
        return ret;
    s = calloc(n, sizeof(*s));
    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    for (unsigned i = 0; i < n; i++) {
        s[i].order = &orders[i];
        s[i].c = orders[i].c;
        s[i].old_top = blk_node_ref(chain_top(orders[i].c)->node);
    }
    ret = co_run_snapshots(s, n, err);
    for (unsigned i = 0; i < n; i++) {
        if (!ret)
            co_finish(&s[i]);
        co_release(&s[i], !ret);
    }
    free(s);
    if (!ret)
        co_state_save_or_log(d->state); /* the UUIDs of what is sealed now */
    return ret;
}

/* ---- resize -------------------------------------------------------------------------------- */

/* Nodes right above a layer that show all of it. */
static void follow_size(struct blk_node *layer)
{
    struct blk_edge *edge;

    list_for_each_entry (edge, &layer->parents, link) {
        struct blk_node *above = edge->parent_node;

        if (above && edge == &above->file)
            above->size_bytes = layer->size_bytes;
    }
    blk_node_notify(layer, BLK_EV_RESIZED);
}

static int check_resize(const struct chain *c, uint64_t size_bytes, bool shrink, struct error *err)
{
    const struct blk_node *node = chain_top(c)->node;
    uint64_t block = MAX_OF(c->rec->block_bytes, UINT64_C(512));

    if (!chain_top(c)->writable)
        return error_set(err, EROFS, "chain '%s' is served read-only", c->rec->name);
    if (!size_bytes || size_bytes % block)
        return error_set(err, EINVAL, "The new size must be a multiple of %llu",
                         (unsigned long long)block);
    if (!node->drv->co_resize)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s images can't be resized",
                               node->drv->name);
    if (size_bytes >= node->size_bytes)
        return 0;
    if (!shrink)
        return error_set(err, EINVAL,
                         "chain '%s' has %llu bytes: what is behind a smaller size is lost; use "
                         "--shrink ('shrink': true) if that is meant",
                         c->rec->name, (unsigned long long)node->size_bytes);
    return chain_check_op(c, CHAIN_OP_SHRINK, err);
}

/* Drained. A new size that is on disk stays, whatever could not be tidied up after it. */
static int co_set_size(struct chain *c, struct blk_node *node, uint64_t size_bytes,
                       struct error *err)
{
    bool smaller = size_bytes < node->size_bytes;
    int ret = smaller && !strcmp(node->drv->name, "qcow2")
                  ? co_qcow2_shrink(node, size_bytes, err)
                  : node->drv->co_resize(node, size_bytes, err);

    if (ret && smaller && node->size_bytes == size_bytes) {
        log_warn("chain %s: what was behind its end is not free yet: %s", c->rec->name, err->msg);
        *err = (struct error)ERROR_INIT;
        ret = 0;
    }
    return ret;
}

int co_chain_resize(struct chain *c, uint64_t size_bytes, bool shrink, struct error *err)
{
    struct blk_node *node;
    int ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_GROW, err);
    if (!ret)
        ret = check_resize(c, size_bytes, shrink, err);
    if (ret || size_bytes == chain_top(c)->node->size_bytes)
        return ret;
    node = blk_node_ref(chain_top(c)->node);
    co_blk_drain_begin(node);
    ret = co_set_size(c, node, size_bytes, err);
    follow_size(node);
    blk_drain_end(node);
    if (!ret)
        log_notice("chain %s: %llu bytes now", c->rec->name, (unsigned long long)size_bytes);
    co_blk_node_unref(node);
    return ret;
}

/* ---- the name of a backing file ------------------------------------------------------------- */

/* @name, as @l would resolve it, has to be the file that is @below now. */
static int co_check_same_file(const struct layer *l, const struct layer *below, const char *name,
                              char path[PATH_MAX], struct error *err)
{
    struct stat st;
    struct file_identity id;
    char format[16];
    int ret = chain_resolve_backing(l->filename, name, path, PATH_MAX, format, sizeof(format), err);

    if (ret)
        return ret;
    ret = co_path_stat(path, &st);
    if (ret)
        return error_set(err, -ret, "%s: %s", path, strerror(-ret));
    if (chain_node_identity(below->node, &id) && id.dev == st.st_dev && id.inode == st.st_ino)
        return 0;
    return error_set(err, EINVAL,
                     "%s is not the file that is below %s: its name can be changed, the file can't",
                     path, l->filename);
}

int co_layer_write_backing(struct chain *c, struct layer *l, const char *name, const char *format,
                           struct error *err)
{
    struct blk_node *node = l->node;
    int ret = co_blk_reopen(node, true, err);

    if (ret)
        return ret;
    ret = node->drv->co_change_backing(node, name, format, err);
    if (!l->writable)
        co_layer_seal(c, l, true); /* as a disk it has not changed */
    return ret;
}

int co_chain_rename_backing(struct chain *c, unsigned i, const char *name, struct error *err)
{
    char path[PATH_MAX], *filename;
    struct layer *l, *below;
    int ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_RENAME_BACKING, err);
    if (ret)
        return ret;
    l = &c->layers[i];
    if (!i || !l->node->drv->co_change_backing)
        return error_set(err, EINVAL,
                         "not allowing backing file change on an image without a backing file");
    below = &c->layers[i - 1];
    ret = co_check_same_file(l, below, name, path, err);
    if (ret)
        return ret;
    filename = strdup(path);
    if (!filename)
        return error_set(err, ENOMEM, "out of memory");
    co_blk_drain_begin(l->node);
    ret = co_layer_write_backing(c, l, name, below->format, err);
    blk_drain_end(l->node);
    if (ret) {
        free(filename);
        return ret;
    }
    if (i <= c->rec->layer_paths.nr)
        record_set(&c->rec->layer_paths.items[i - 1], path);
    free(below->filename);
    below->filename = filename;
    co_state_save_or_log(c->d->state);
    chain_update_pages(c, true); /* they tell the last part of the name */
    return 0;
}
