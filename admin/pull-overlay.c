/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The local side of a pull: a qcow2 overlay, a raw file, or a block device whose map of local
 * blocks is kept in the state directory.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/pull.h"
#include "lun-backends/cowmap.h"
#include "lun-backends/file.h"
#include "lun-backends/formats.h"
#include "lun-backends/qcow2.h"
#include "util/co-path.h"
#include "util/utf8.h"
#include "util/workers.h"

#define OVERLAY_CLUSTER_BYTES (128u << 10) /* subclusters of 4 KiB */

struct real_dir {
    const char *dir;
    bool is_device;
    char out[PATH_MAX];
};

static int resolve_dir(void *arg)
{
    struct real_dir *r = arg;
    struct stat st;

    r->is_device = !stat(r->dir, &st) && S_ISBLK(st.st_mode);
    if (r->is_device) /* as it was named: what /dev/disk/by-id leads to may differ tomorrow */
        return snprintf(r->out, sizeof(r->out), "%s", r->dir) < PATH_MAX ? 0 : -ENAMETOOLONG;
    if (!realpath(r->dir, r->out))
        return -errno;
    return 0;
}

bool pull_is_raw(const struct chain_record *rec)
{
    return !strcmp(rec->format, "raw");
}

/* Where the local copy goes in a directory. */
static int file_path(const struct real_dir *r, const char *name, const char *format,
                     char path[PATH_MAX], struct error *err)
{
    if (snprintf(path, PATH_MAX, "%s/%s.%s", r->out, name, format) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "directory %s: the name is too long", r->dir);
    return 0;
}

/* A device holds the disk itself; which blocks are local is kept with the state. */
static int device_path(const struct chain *c, const struct pull_opts *opts,
                       const struct real_dir *r, const char *format, char path[PATH_MAX],
                       struct error *err)
{
    char map[PATH_MAX];

    if (strcmp(format, "raw"))
        return error_set(err, EINVAL, "%s is a block device: it takes --format raw only", r->dir);
    if (opts->base)
        return error_set(err, EINVAL, "%s is a block device: it can't name a base", r->dir);
    strcpy(path, r->out);
    if (snprintf(map, sizeof(map), "%s/%s%s", c->d->state->dir, c->rec->name, COWMAP_MAP_SUFFIX) >=
        PATH_MAX)
        return error_set(err, ENAMETOOLONG, "directory %s: the name is too long", c->d->state->dir);
    return record_set(&c->rec->map_path, map) ? error_set(err, ENOMEM, "out of memory") : 0;
}

int co_pull_overlay_path(struct chain *c, const struct pull_opts *opts, char *out_dir,
                         struct error *err)
{
    struct real_dir *r = calloc(1, sizeof(*r));
    struct chain_record *rec = c->rec;
    const char *format = opts->format;
    char path[PATH_MAX];
    int ret;

    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    r->dir = opts->into_dir;
    ret = co_work(resolve_dir, r);
    if (!format)
        format = r->is_device ? "raw" : "qcow2";
    if (ret)
        error_set(err, -ret, "%s: %s", r->dir, strerror(-ret));
    else if (r->is_device)
        ret = device_path(c, opts, r, format, path, err);
    else
        ret = file_path(r, rec->name, format, path, err);
    if (!ret && !utf8_is_valid(path)) /* what is kept in the state is JSON */
        ret = error_set(err, EILSEQ, "%s: its real name is no UTF-8", r->dir);
    if (!ret && (record_set(&rec->path, path) || record_set(&rec->format, format) ||
                 string_list_add(&rec->layer_formats, format)))
        ret = error_set(err, ENOMEM, "out of memory");
    if (!ret)
        strcpy(out_dir, r->is_device ? c->d->state->dir : r->out);
    free(r);
    return ret;
}

void co_pull_overlay_remove(struct chain_record *rec)
{
    if (pull_is_raw(rec))
        co_cowmap_remove(rec->path, rec->map_path);
    else
        co_path_unlink(rec->path);
}

static int co_write_qcow2(struct chain *c, struct error *err)
{
    struct qcow2_create_opts qo = {
        .size_bytes = c->remote->size_bytes,
        .cluster_bytes = OVERLAY_CLUSTER_BYTES,
        .extended_l2 = true,
        .backing = c->rec->source_url,
        .backing_fmt = "raw",
    };
    struct file_opts fo = {.writable = true, .create = true};
    struct blk_node *file;
    int ret;

    ret = co_file_open(c->rec->path, &fo, &file, err);
    if (ret == -EEXIST)
        return error_set(err, EEXIST,
                         "%s exists already: remove it, or choose another directory or name",
                         c->rec->path);
    if (ret)
        return ret;
    ret = co_qcow2_create(file, &qo, err);
    co_blk_node_unref(file);
    if (ret)
        co_path_unlink(c->rec->path);
    return ret;
}

int co_pull_overlay_write(struct chain *c, struct error *err)
{
    if (pull_is_raw(c->rec))
        return co_cowmap_create(c->rec->path, c->rec->map_path, c->remote->size_bytes, 0,
                                c->rec->source_url, err);
    return co_write_qcow2(c, err);
}

static int co_open_qcow2(struct chain *c, struct blk_node **node, struct error *err)
{
    struct qcow2_open_opts qo = {.writable = true, .fix_leaks = c->fix_leaks};
    struct file_opts fo = {.writable = true};
    struct blk_node *file;
    int ret;

    ret = co_file_open(c->rec->path, &fo, &file, err);
    if (ret)
        return ret;
    ret = co_qcow2_open_opts(file, &qo, node, err);
    co_blk_node_unref(file);
    return ret;
}

int co_pull_overlay_open(struct chain *c, struct error *err)
{
    struct blk_node *node;
    struct uuid uuid;
    int ret = pull_is_raw(c->rec) ? co_cowmap_open(c->rec->path, c->rec->map_path, &node, err)
                                  : co_open_qcow2(c, &node, err);

    if (ret)
        return ret;
    uuid_make(&uuid); /* writable: its content has no lasting name */
    ret = chain_add_layer(c, node, c->rec->path, c->rec->format, true, &uuid, err);
    co_blk_node_unref(node);
    return ret ? ret : chain_match_layers(c, err);
}

const char *pull_overlay_backing(const struct chain *c)
{
    const struct blk_node *node = chain_top(c)->node;
    struct qcow2_info info;

    if (pull_is_raw(c->rec))
        return cowmap_backing(node);
    qcow2_get_info(node, &info);
    return info.backing;
}

void co_pull_tidy(struct chain_record *rec)
{
    if (!rec->map_path || rec->source_url)
        return;
    co_cowmap_tidy(rec->map_path);
    record_set(&rec->map_path, NULL);
}
