/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file that a mirror or a backup writes: made by us, or one that is there already. It has the
 * disk's size, and its header names exactly what the chain has below it.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "admin/live.h"
#include "lun-backends/file.h"
#include "lun-backends/qcow2.h"
#include "util/co-path.h"

/* ---- a new one --------------------------------------------------------------------------- */

static int co_fill(struct copy_target *t, struct blk_node *file, uint64_t size_bytes,
                   const struct layer *below, struct error *err)
{
    struct qcow2_create_opts qo = {
        .size_bytes = size_bytes,
        .backing = below ? below->filename : NULL,
        .backing_fmt = below ? below->format : NULL,
    };

    if (!strcmp(t->format, "raw"))
        return file->drv->co_resize(file, size_bytes, err);
    return co_qcow2_create(file, &qo, err);
}

static int co_make(struct copy_target *t, const struct chain *c, const struct layer *below,
                   struct error *err)
{
    struct file_opts fo = {.writable = true, .create = true, .cache = record_cache(c->rec)};
    struct blk_node *file;
    int ret = co_file_open(t->path, &fo, &file, err);

    if (ret == -EEXIST)
        return error_set(err, EEXIST,
                         "%s exists already: remove it, choose another file, or say that it is the "
                         "one (mode 'existing')",
                         t->path);
    if (ret)
        return ret;
    t->created = true;
    ret = co_fill(t, file, chain_top(c)->node->size_bytes, below, err);
    co_blk_node_unref(file);
    if (!ret) {
        ret = co_path_fsync_parent(t->path);
        if (ret)
            error_set(err, -ret, "can't make %s durable: %s", t->path, strerror(-ret));
    }
    return ret;
}

/* ---- one that is there ------------------------------------------------------------------- */

/* The name in the header of @t leads to the file of @below. */
static int co_check_backing(const struct copy_target *t, const char *name,
                            const struct layer *below, struct error *err)
{
    struct file_identity id;
    char path[PATH_MAX], format[16];
    struct stat st;
    int ret = chain_resolve_backing(t->path, name, path, sizeof(path), format, sizeof(format), err);

    if (ret)
        return ret;
    ret = co_path_stat(path, &st);
    if (ret)
        return error_set(err, -ret, "%s: %s", path, strerror(-ret));
    if (!chain_node_identity(below->node, &id) || id.dev != st.st_dev || id.inode != st.st_ino)
        return error_set(err, EINVAL, "%s has %s below it, not %s as the disk: rebase it first",
                         t->path, name, below->filename);
    return 0;
}

static int co_check_existing(const struct copy_target *t, const struct chain *c,
                             const struct layer *below, struct error *err)
{
    uint64_t size = chain_top(c)->node->size_bytes;
    struct qcow2_info info = {0};

    if (t->node->size_bytes != size)
        return error_set(err, EINVAL, "%s has %llu bytes, the disk %llu: they must be equal",
                         t->path, (unsigned long long)t->node->size_bytes,
                         (unsigned long long)size);
    if (!strcmp(t->format, "qcow2"))
        qcow2_get_info(t->node, &info);
    if (!below && info.backing)
        return error_set(err, EINVAL,
                         "%s has %s below it, and a full copy has nothing below: take it away "
                         "(qemu-img rebase -u -b ''), or use sync 'top'",
                         t->path, info.backing);
    if (below && !info.backing)
        return error_set(err, EINVAL, "%s has nothing below it, but it needs %s there", t->path,
                         below->filename);
    return below ? co_check_backing(t, info.backing, below, err) : 0;
}

/* ---- both -------------------------------------------------------------------------------- */

static int co_open(struct copy_target *t, const struct chain *c, struct error *err)
{
    struct chain_open_opts opts = {
        .format = *t->format ? t->format : NULL,
        .writable = true,
        .only_top = true,
        .cache = record_cache(c->rec),
    };
    struct chain_image *image;
    int ret = co_chain_open(t->path, &opts, &image, err);

    if (ret)
        return ret;
    t->node = blk_node_ref(image->layers[0].node);
    strcpy(t->format, image->layers[0].format);
    co_chain_close(image);
    return 0;
}

static int set_name(struct blk_node *node, const char *node_name, struct error *err)
{
    char *name = strdup(node_name);

    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    free(node->name);
    node->name = name;
    return 0;
}

/* As asked for; else a new file is as the top is, if that has a format for files. */
static void choose_format(struct copy_target *t, const struct chain *c,
                          const struct copy_target_order *o)
{
    const char *top = chain_top(c)->format;

    if (o->format)
        strcpy(t->format, o->format);
    else if (!o->existing)
        strcpy(t->format, strcmp(top, "raw") ? "qcow2" : "raw");
}

static int co_open_checked(struct copy_target *t, const struct chain *c,
                           const struct copy_target_order *o, const struct layer *below,
                           struct error *err)
{
    int ret = o->existing ? 0 : co_make(t, c, below, err);

    if (!ret)
        ret = co_open(t, c, err);
    if (!ret && below && strcmp(t->format, "qcow2"))
        ret = error_set(err, EINVAL, "a %s file has nothing below it: use sync 'full', or qcow2",
                        t->format);
    if (!ret && o->existing)
        ret = co_check_existing(t, c, below, err);
    if (!ret && o->node_name)
        ret = set_name(t->node, o->node_name, err);
    return ret;
}

int co_copy_target_open(struct copy_target *t, const struct chain *c,
                        const struct copy_target_order *o, const struct layer *below,
                        struct error *err)
{
    int ret;

    t->path = strdup(o->file);
    if (!t->path)
        return error_set(err, ENOMEM, "out of memory");
    choose_format(t, c, o);
    if (below && !strcmp(t->format, "raw"))
        return error_set(err, EINVAL, "a raw file has nothing below it: use sync 'full', or qcow2");
    ret = co_open_checked(t, c, o, below, err);
    if (ret)
        co_copy_target_discard(t);
    else if (below)
        blk_set_backing(t->node, below->node);
    return ret;
}

void co_copy_target_close(struct copy_target *t)
{
    co_blk_node_unref(t->node);
    t->node = NULL;
}

void co_copy_target_discard(struct copy_target *t)
{
    co_copy_target_close(t);
    if (t->created)
        co_path_unlink(t->path);
    t->created = false;
}

void copy_target_release(struct copy_target *t)
{
    free(t->path);
    t->path = NULL;
}
