/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pull that keeps layers apart: base' <- sn1' <- top' <- overlay. Each layer of the source is
 * copied whole, lowest first, from its own LUN into a file of its own, while the guest's overlay
 * stays on the source's disk; when all are here it moves to them in one change of the graph.
 *
 * A file says itself whether it is complete: until then its backing file is called INCOMPLETE and
 * the source's URL, which no program opens. So a crash at any point loses nothing but what was not
 * flushed, and a layer that is complete is not asked for again.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/pull.h"
#include "lun-backends/cowmap.h"
#include "lun-backends/file.h"
#include "lun-backends/formats.h"
#include "lun-backends/qcow2.h"
#include "lun-backends/remote.h"
#include "lun-backends/stream.h"
#include "util/co-path.h"
#include "util/log.h"
#include "util/size.h"

#define INCOMPLETE      "cowtgt-incomplete:"
#define DEFAULT_CLUSTER (128u << 10)
#define MIN_CLUSTER     512u
#define MAX_CLUSTER     (2u << 20)
#define MIN_EXT_L2      (16u << 10) /* smallest cluster that can have subclusters */
#define URL_MAX         640

/* The layer that is being recreated: its file over the source's layer LUN. */
struct keeping {
    struct blk_node *layer, *upper, *remote;
};

const char *keep_top_path(const struct chain_record *rec)
{
    return rec->keep_layers ? rec->kept_paths.items[rec->kept_paths.nr - 1] : NULL;
}

/* ---- the plan ------------------------------------------------------------------------------ */

static int add_layer(struct chain_record *rec, const struct found_lun *lun, const char *dir,
                     bool raw, struct error *err)
{
    char path[PATH_MAX], uuid[UUID_STRLEN] = "";
    uint64_t cluster = 0;
    const char *format = raw ? "raw" : "qcow2";

    if (lun->has_cowl) {
        uuid_to_text(&lun->cowl.layer_uuid, uuid);
        cluster = (uint64_t)lun->cowl.granularity_blocks * lun->block_bytes;
    }
    if (snprintf(path, sizeof(path), "%s/%s-layer%u.%s", dir, rec->name, rec->kept_paths.nr,
                 format) >= (int)sizeof(path))
        return error_set(err, ENAMETOOLONG, "directory %s: the name is too long", dir);
    if (number_list_add(&rec->kept_luns, lun->number) ||
        number_list_add(&rec->kept_bytes, lun->size_bytes) ||
        number_list_add(&rec->kept_cluster, cluster) || string_list_add(&rec->kept_uuids, uuid) ||
        string_list_add(&rec->kept_paths, path) || string_list_add(&rec->kept_formats, format))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

/* The layer LUN of the chain with that index; not LUN 0, which is the disk. */
static const struct found_lun *find_index(const struct found_chain *found,
                                          const struct cowl_page *pulled, unsigned index)
{
    for (unsigned i = 0; i < found->nr_luns; i++) {
        const struct found_lun *l = &found->luns[i];

        if (l->number && l->has_cowl && l->cowl.layer_index == index &&
            uuid_equal(&l->cowl.chain_uuid, &pulled->chain_uuid))
            return l;
    }
    return NULL;
}

static int check_layer(const struct found_lun *l, unsigned index, bool quiesced, struct error *err)
{
    if (!l)
        return error_set(err, ENOENT,
                         "layer %u of the source has no LUN there (it may lie on another target): "
                         "its layers can't be kept apart",
                         index);
    if (l->cowl.view == COWL_VIEW_IMAGE)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "the source shows the bytes of its image files (view image), not "
                               "layers: export it with --view flat or delta");
    if (!(l->cowl.flags & COWL_SEALED) && !quiesced)
        return error_set(err, EPERM,
                         "LUN %u of the source is not sealed: its layer may change. Say --quiesced "
                         "if nobody writes to it",
                         l->number);
    return 0;
}

int keep_plan(struct chain *c, const struct found_chain *found, unsigned lun,
              const struct pull_opts *opts, const char *dir, struct error *err)
{
    struct chain_record *rec = c->rec;
    const struct found_lun *l = &found->luns[lun];
    const struct cowl_page *pulled = &l->cowl;
    unsigned first = 0;

    rec->keep_layers = true;
    if (!l->has_cowl) {
        if (rec->base_path)
            return error_set(err, EINVAL,
                             "the source does not tell of its layers: --keep-layers and --base "
                             "together have no meaning for it");
        return add_layer(rec, l, dir, opts->raw_base, err);
    }
    rec->source_generation = pulled->generation;
    if (rec->base_path)
        first = pulled->layer_index + 1u - (unsigned)rec->base_layers;
    for (unsigned i = first; i <= pulled->layer_index; i++) {
        l = find_index(found, pulled, i);
        if (check_layer(l, i, opts->quiesced, err) ||
            add_layer(rec, l, dir, !i && opts->raw_base, err))
            return -err->errnum;
    }
    return 0;
}

/* ---- making the files ---------------------------------------------------------------------- */

static bool is_raw(const struct chain_record *rec, unsigned i)
{
    return !strcmp(rec->kept_formats.items[i], "raw");
}

static void co_remove_one(const struct chain_record *rec, unsigned i)
{
    if (is_raw(rec, i))
        co_cowmap_remove(rec->kept_paths.items[i], NULL);
    else
        co_path_unlink(rec->kept_paths.items[i]);
}

static int co_create_qcow2(const struct chain_record *rec, unsigned i, const char *backing,
                           struct error *err)
{
    uint64_t cluster = rec->kept_cluster.items[i];
    bool known = cluster >= MIN_CLUSTER && cluster <= MAX_CLUSTER && !(cluster & (cluster - 1));
    struct qcow2_create_opts qo = {
        .size_bytes = rec->kept_bytes.items[i],
        .cluster_bytes = known ? (uint32_t)cluster : DEFAULT_CLUSTER,
        .extended_l2 = !known || cluster >= MIN_EXT_L2,
        .backing = backing,
        .backing_fmt = "raw",
    };
    struct file_opts fo = {.writable = true, .create = true};
    char *path = rec->kept_paths.items[i];
    struct blk_node *file;
    int ret = co_file_open(path, &fo, &file, err);

    if (ret == -EEXIST)
        return error_set(err, EEXIST,
                         "%s exists already: remove it, or choose another directory or name", path);
    if (ret)
        return ret;
    ret = co_qcow2_create(file, &qo, err);
    co_blk_node_unref(file);
    if (ret)
        co_path_unlink(path);
    return ret;
}

static int co_create_one(const struct chain_record *rec, unsigned i, struct error *err)
{
    char backing[URL_MAX + sizeof(INCOMPLETE)];

    snprintf(backing, sizeof(backing), INCOMPLETE "%s", rec->source_url);
    if (is_raw(rec, i))
        return co_cowmap_create(rec->kept_paths.items[i], NULL, rec->kept_bytes.items[i], 0,
                                backing, err);
    return co_create_qcow2(rec, i, backing, err);
}

int co_keep_create(struct chain *c, struct error *err)
{
    const struct chain_record *rec = c->rec;

    for (unsigned i = 0; i < rec->kept_paths.nr; i++) {
        if (!co_create_one(rec, i, err))
            continue;
        while (i-- > 0)
            co_remove_one(rec, i);
        return -err->errnum;
    }
    return 0;
}

void co_keep_remove(const struct chain_record *rec)
{
    for (unsigned i = 0; i < rec->kept_paths.nr; i++)
        co_remove_one(rec, i);
}

/* ---- layers that are complete -------------------------------------------------------------- */

static struct blk_node *lowest_complete(const struct chain *c)
{
    return c->base && c->base->nr_layers ? c->base->layers[c->base->nr_layers - 1].node : NULL;
}

/* As one layer, with nothing below it: that is set by us. */
static int co_open_sealed(const struct chain *c, unsigned i, struct chain_image **image,
                          struct error *err)
{
    struct chain_open_opts opts = {.format = c->rec->kept_formats.items[i], .only_top = true};

    return co_chain_open(c->rec->kept_paths.items[i], &opts, image, err);
}

/* On top of c->base, under the name that the content has at the source. */
static int append(struct chain *c, unsigned i, struct chain_image *one, struct error *err)
{
    struct chain_layer *layers;
    struct uuid uuid;

    if (!c->base && !(c->base = calloc(1, sizeof(*c->base))))
        return error_set(err, ENOMEM, "out of memory");
    layers = reallocarray(c->base->layers, c->base->nr_layers + 1, sizeof(*layers));
    if (!layers)
        return error_set(err, ENOMEM, "out of memory");
    c->base->layers = layers;
    blk_set_backing(one->layers[0].node, lowest_complete(c));
    layers[c->base->nr_layers++] = one->layers[0];
    one->nr_layers = 0; /* it is the base's now */
    c->nr_kept++;
    if (uuid_from_text(&uuid, c->rec->kept_uuids.items[i]) && !uuid_is_zero(&uuid))
        state_set_file_uuid(c->d->state, layers[c->base->nr_layers - 1].filename,
                            &layers[c->base->nr_layers - 1].identity, &uuid);
    return 0;
}

static int co_take_complete(struct chain *c, unsigned i, struct error *err)
{
    struct chain_image *one;
    int ret = co_open_sealed(c, i, &one, err);

    if (ret)
        return ret;
    ret = append(c, i, one, err);
    co_chain_close(one);
    if (ret)
        return ret;
    /* Found complete after a crash it may not be on the disk yet. */
    if (co_path_fsync(c->rec->kept_paths.items[i]) ||
        co_path_fsync_parent(c->rec->kept_paths.items[i]))
        log_warn("chain %s: %s can't be made durable", c->rec->name, c->rec->kept_paths.items[i]);
    else
        co_chain_give_back(c, (uint16_t)c->rec->kept_luns.items[i]);
    return 0;
}

/* ---- the layer that comes next --------------------------------------------------------------- */

static const char *backing_of(const struct chain_record *rec, unsigned i, struct blk_node *node)
{
    struct qcow2_info info;

    if (is_raw(rec, i))
        return cowmap_backing(node);
    qcow2_get_info(node, &info);
    return info.backing;
}

static int co_open_writable(struct chain *c, unsigned i, struct blk_node **node, struct error *err)
{
    const char *path = c->rec->kept_paths.items[i];
    struct qcow2_open_opts qo = {.writable = true, .fix_leaks = c->fix_leaks};
    struct file_opts fo = {.writable = true};
    struct blk_node *file;
    int ret;

    if (is_raw(c->rec, i))
        return co_cowmap_open(path, NULL, node, err);
    ret = co_file_open(path, &fo, &file, err);
    if (ret)
        return ret;
    ret = co_qcow2_open_opts(file, &qo, node, err);
    co_blk_node_unref(file);
    return ret;
}

/* It need not be there now: then the job waits for it. */
static int co_open_source_layer(struct chain *c, unsigned i, struct blk_node **remote,
                                struct error *err)
{
    const struct chain_record *rec = c->rec;
    struct remote_opts *ro = co_remote_opts_from_record(c, err);
    int ret;

    if (!ro)
        return -err->errnum;
    if (rec->source_has_cowl) {
        ro->url.lun = (int)rec->kept_luns.items[i];
        memset(&ro->expect, 0, sizeof(ro->expect));
        ro->expect.has_cowl = true;
        ro->expect.size_bytes = rec->kept_bytes.items[i];
        uuid_from_text(&ro->expect.layer_uuid, rec->kept_uuids.items[i]);
    }
    ret = co_remote_open(ro, remote, err);
    free_remote_opts(ro);
    return ret;
}

void co_keep_release(struct chain *c)
{
    struct keeping *k = c->keeping;

    c->keeping = NULL;
    if (!k)
        return;
    co_blk_node_unref(k->layer);
    co_blk_node_unref(k->upper);
    co_blk_node_unref(k->remote);
    free(k);
}

/* The source's layer LUN as one layer over what is here <- the file. */
static int co_join_layer(struct chain *c, unsigned i, struct error *err)
{
    struct keeping *k = c->keeping;
    int ret = co_open_source_layer(c, i, &k->remote, err);

    if (ret)
        return ret;
    /* The LUN is this layer whatever becomes of those below it; LUN numbers are given once. */
    k->upper = upper_node_new(k->remote, 1, lowest_complete(c), UPPER_ANY_GENERATION);
    if (!k->upper)
        return error_set(err, ENOMEM, "out of memory");
    blk_set_backing(k->layer, k->upper);
    return 0;
}

/* 1: layer @i is to be copied, as @stage says; 0: it is complete, and part of c->base now. */
static int co_enter_layer(struct chain *c, unsigned i, struct stream_stage *stage,
                          struct error *err)
{
    const char *backing;
    struct keeping *k = c->keeping = calloc(1, sizeof(*k));
    int ret;

    if (!k)
        return error_set(err, ENOMEM, "out of memory");
    ret = co_open_writable(c, i, &k->layer, err);
    if (!ret) {
        backing = backing_of(c->rec, i, k->layer);
        if (!backing || strncmp(backing, INCOMPLETE, strlen(INCOMPLETE))) {
            co_keep_release(c);
            return co_take_complete(c, i, err);
        }
        ret = co_join_layer(c, i, err);
    }
    if (ret) {
        co_keep_release(c);
        return ret;
    }
    *stage = (struct stream_stage){
        .overlay = k->layer,
        .layers = c->rec->source_has_cowl ? 1 : 0,
        .as_is = c->rec->source_has_cowl,
    };
    return 1;
}

static int co_next_layer(struct chain *c, struct stream_stage *stage, struct error *err)
{
    int ret = 0;

    while (!ret && c->nr_kept < c->rec->kept_paths.nr)
        ret = co_enter_layer(c, c->nr_kept, stage, err);
    return ret;
}

/* All of the layer is in its file: it gets its backing reference, and is sealed. */
static int co_complete_layer(struct chain *c, struct error *err)
{
    struct keeping *k = c->keeping;
    const struct chain_layer *below =
        lowest_complete(c) ? &c->base->layers[c->base->nr_layers - 1] : NULL;
    unsigned i = c->nr_kept;
    int ret;

    co_blk_drain_begin(k->layer);
    ret = k->layer->drv->co_change_backing(k->layer, below ? below->filename : NULL,
                                           below ? below->format : NULL, err);
    if (!ret)
        blk_set_backing(k->layer, NULL);
    blk_drain_end(k->layer);
    if (ret)
        return error_prefix(err, "%s: can't write the backing reference",
                            c->rec->kept_paths.items[i]);
    co_keep_release(c);
    ret = co_take_complete(c, i, err);
    if (ret)
        return ret;
    log_notice("chain %s: layer %u of %u is complete: %s", c->rec->name, i + 1,
               c->rec->kept_paths.nr, c->rec->kept_paths.items[i]);
    co_state_save_or_log(c->d->state); /* its UUID */
    return 0;
}

/* The stream job's co_next. */
static int co_after_layer(struct job *job, struct stream_stage *next, struct error *err)
{
    struct chain *c = job->opaque;
    int ret = co_complete_layer(c, err);

    return ret ? ret : co_next_layer(c, next, err);
}

int co_keep_begin(struct chain *c, struct stream_plan_opts *plan, struct error *err)
{
    int ret = co_next_layer(c, &plan->first, err);

    plan->co_next = co_after_layer;
    plan->guests = chain_top(c)->node;
    plan->total_bytes = 0;
    for (unsigned i = c->nr_kept; i < c->rec->kept_bytes.nr; i++)
        plan->total_bytes += c->rec->kept_bytes.items[i];
    return ret;
}
