/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening a chain of images: each image says what lies below it, until one says nothing.
 * Layers below the top are open read-only, their locks refuse writers: they are sealed. A file is
 * looked at for a loop before it is opened, as its own lock could be in the way.
 */
#define LOG_AREA "chain"
#include "lun-backends/chain.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/formats.h"
#include "lun-backends/image-probe.h"
#include "lun-backends/qcow2.h"
#include "lun-backends/ram.h"
#include "util/byteorder.h"
#include "util/co-path.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/size.h"

struct opening {
    struct chain_image *chain; /* layers top first while opening */
    const struct chain_open_opts *opts;
    struct error *err;
    char path[PATH_MAX];
    char format[16]; /* "": not recorded */
    bool more;
};

static int oom(struct opening *o)
{
    return error_set(o->err, ENOMEM, "opening '%s': out of memory", o->path);
}

/* ---- loops --------------------------------------------------------------------------- */

static int co_refuse_loop(struct opening *o)
{
    struct stat st;

    if (co_path_stat(o->path, &st))
        return 0; /* opening it says why */
    for (unsigned i = 0; i < o->chain->nr_layers; i++) {
        const struct chain_layer *l = &o->chain->layers[i];

        if (l->identity.dev == st.st_dev && l->identity.inode == st.st_ino)
            return error_set(o->err, ELOOP, "'%s' is below itself in its chain of backing files",
                             l->filename);
    }
    if (o->chain->nr_layers == CHAIN_MAX_LAYERS)
        return error_set(o->err, ELOOP, "the chain of '%s' has more than %d layers",
                         o->chain->layers[0].filename, CHAIN_MAX_LAYERS);
    return 0;
}

#define QCOW2_BACKING_AT 8 /* backing_file_offset, in the header */

/* ---- one layer ------------------------------------------------------------------------ */

static int co_probe_format(struct opening *o, struct blk_node *file)
{
    uint64_t size = file->size_bytes, foot = size < IMAGE_PROBE_FOOT ? 0 : size - IMAGE_PROBE_FOOT;
    size_t head_bytes = MIN_OF(size, IMAGE_PROBE_HEAD);
    uint8_t head_buf[IMAGE_PROBE_HEAD] = {0}, foot_buf[IMAGE_PROBE_FOOT] = {0};
    const char *format;
    int ret = 0;

    if (head_bytes)
        ret = co_blk_read(file, 0, head_buf, head_bytes, 0);
    if (!ret && size >= IMAGE_PROBE_FOOT)
        ret = co_blk_read(file, foot, foot_buf, IMAGE_PROBE_FOOT, 0);
    if (ret)
        return error_set(o->err, -ret, "reading '%s': %s", o->path, strerror(-ret));
    format = image_probe(head_buf, head_bytes, foot_buf);
    snprintf(o->format, sizeof(o->format), "%s", format);
    return 0;
}

/* Settles o->format: told, probed, or raw. */
static int co_choose_format(struct opening *o, struct blk_node *file, bool top)
{
    int ret = 0;

    if (!*o->format && (top || o->opts->probe_backing)) {
        ret = co_probe_format(o, file);
    } else if (!*o->format) {
        log_warn("'%s' is a backing file without a recorded format: taken as raw", o->path);
        o->chain->base_assumed_raw = true;
        strcpy(o->format, "raw");
    }
    if (!strcmp(o->format, "file") || !strcmp(o->format, "host_device"))
        strcpy(o->format, "raw");
    if (!ret && strcmp(o->format, "raw") && strcmp(o->format, "qcow2"))
        ret = error_set_class(o->err, ERR_NOT_SUPPORTED, ENOTSUP,
                              "'%s' is in format %s, which can't be served", o->path, o->format);
    return ret;
}

static int co_open_format(struct opening *o, struct blk_node *file, bool writable,
                          struct blk_node **node)
{
    const struct qcow2_open_opts qo = {
        .writable = writable,
        .fix_leaks = writable && o->opts->fix_leaks,
        .no_lock = o->opts->no_lock,
        .cache = file_node_cache(file),
        .snapshot = o->chain->nr_layers ? NULL : o->opts->snapshot,
    };

    if (!strcmp(o->format, "qcow2"))
        return co_qcow2_open_opts(file, &qo, node, o->err);
    if (qo.snapshot)
        return error_set(o->err, ENOTSUP, "'%s' is raw: it has no snapshots", o->path);
    return co_raw_open(file, writable, node, o->err);
}

static int co_is_overlay(struct opening *o, struct blk_node *file, bool *overlay)
{
    uint8_t head[QCOW2_BACKING_AT + 8] = {0};
    int ret = 0;

    *overlay = false;
    if (strcmp(o->format, "qcow2") || file->size_bytes < sizeof(head))
        return 0;
    ret = co_blk_read(file, 0, head, sizeof(head), 0);
    if (ret)
        return error_set(o->err, -ret, "reading '%s': %s", o->path, strerror(-ret));
    *overlay = get_be64(head + QCOW2_BACKING_AT) != 0;
    return 0;
}

/*
 * auto, for a file that is written: a disk of its own is read back and overwritten, so it goes
 * through the page cache; what is written to an overlay is mostly new, and what is read mostly
 * below it, so it is left past the page cache, as devices are.
 */
static int co_choose_cache(struct opening *o, struct blk_node *file)
{
    bool overlay;
    int ret;

    if (o->opts->cache != FILE_CACHE_AUTO || file->read_only || file_node_is_device(file))
        return 0;
    ret = co_is_overlay(o, file, &overlay);
    return ret || overlay ? ret : co_file_set_cache(file, FILE_CACHE_WRITEBACK, o->err);
}

/* A change of the external data file is a change of the layer. */
static void mix_identity(struct file_identity *id, const struct file_identity *data)
{
    const uint64_t parts[] = {data->dev, data->inode, data->size_bytes, (uint64_t)data->mtime_ns,
                              (uint64_t)data->ctime_ns};
    uint64_t sum = (uint64_t)id->mtime_ns;

    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        sum = (sum ^ parts[i]) * UINT64_C(0x100000001b3);
    id->mtime_ns = (int64_t)(sum >> 1);
}

bool chain_node_identity(const struct blk_node *layer, struct file_identity *id)
{
    const struct blk_node *file = layer->file.child;
    struct file_identity data;

    memset(id, 0, sizeof(*id));
    while (file && file->drv->is_filter)
        file = file->file.child;
    if (!file || strcmp(file->drv->name, "file"))
        return false;
    file_node_identity(file, id);
    if (layer->data.child) {
        file_node_identity(layer->data.child, &data);
        mix_identity(id, &data);
        id->is_device = id->is_device || data.is_device;
    }
    return true;
}

static int add_layer(struct opening *o, struct blk_node *node, bool writable)
{
    struct chain_image *c = o->chain;
    struct chain_layer *l = realloc(c->layers, (c->nr_layers + 1) * sizeof(*l));
    char *filename = strdup(o->path);

    if (l)
        c->layers = l;
    if (!l || !filename) {
        free(filename);
        return oom(o);
    }
    l += c->nr_layers;
    memset(l, 0, sizeof(*l));
    l->node = node;
    l->filename = filename;
    strcpy(l->format, o->format);
    chain_node_identity(node, &l->identity);
    l->writable = writable;
    if (c->nr_layers++)
        blk_set_backing(l[-1].node, node);
    return 0;
}

/* What comes next: o->path and o->format of the layer below @node, or nothing. */
static int find_next(struct opening *o, const struct blk_node *node)
{
    char image[PATH_MAX], format[sizeof(o->format)];
    struct qcow2_info info;
    int ret;

    o->more = false;
    if (strcmp(o->format, "qcow2"))
        return 0;
    qcow2_get_info(node, &info);
    if (!info.backing)
        return 0;
    memcpy(image, o->path, sizeof(image));
    ret = chain_resolve_backing(image, info.backing, o->path, sizeof(o->path), format,
                                sizeof(format), o->err);
    if (ret)
        return ret;
    if (!*format && info.backing_fmt) {
        if (strlen(info.backing_fmt) >= sizeof(format))
            return error_set_class(o->err, ERR_NOT_SUPPORTED, ENOTSUP,
                                   "'%s': its backing format '%s' can't be served", image,
                                   info.backing_fmt);
        strcpy(format, info.backing_fmt);
    }
    strcpy(o->format, format);
    o->more = true;
    return 0;
}

static int co_open_layer(struct opening *o)
{
    bool top = !o->chain->nr_layers, writable = top && o->opts->writable;
    struct file_opts fopts = {
        .writable = writable,
        .cache = o->opts->cache,
        .no_lock = o->opts->no_lock,
    };
    struct blk_node *file, *node = NULL;
    int ret = co_refuse_loop(o);

    if (!ret)
        ret = co_file_open(o->path, &fopts, &file, o->err);
    if (ret)
        return ret;
    ret = co_choose_format(o, file, top);
    if (!ret)
        ret = co_choose_cache(o, file);
    if (!ret)
        ret = co_open_format(o, file, writable, &node);
    if (!ret)
        ret = add_layer(o, node, writable);
    if (ret)
        co_blk_node_unref(node);
    else if (!o->opts->only_top)
        ret = find_next(o, node);
    co_blk_node_unref(file);
    return ret;
}

static int co_open_ram(struct opening *o, const char *name)
{
    struct blk_node *node;
    int ret;

    if (!o->opts->writable)
        return error_set(o->err, EINVAL,
                         "'%s': a new RAM disk is empty, so it makes sense only writable", name);
    if (o->opts->format && strcmp(o->opts->format, "ram"))
        return error_set(o->err, EINVAL, "'%s' is a RAM disk, not format %s", name,
                         o->opts->format);
    ret = co_ram_open(name, true, &node, o->err);
    if (ret)
        return ret;
    snprintf(o->path, sizeof(o->path), "%s", name);
    strcpy(o->format, "ram");
    ret = add_layer(o, node, true);
    if (ret)
        co_blk_node_unref(node);
    return ret;
}

/* ---- the chain ------------------------------------------------------------------------- */

static int set_top_path(struct opening *o, const char *path)
{
    char cwd[PATH_MAX] = "";
    int n;

    if (path[0] != '/' && !getcwd(cwd, sizeof(cwd)))
        return error_set(o->err, errno, "asking for the working directory: %s", strerror(errno));
    n = snprintf(o->path, sizeof(o->path), "%s%s%s", cwd, *cwd ? "/" : "", path);
    if (n < 0 || (size_t)n >= sizeof(o->path))
        return error_set(o->err, ENAMETOOLONG, "the name of '%.64s...' is too long", path);
    if (o->opts->format &&
        snprintf(o->format, sizeof(o->format), "%s", o->opts->format) >= (int)sizeof(o->format))
        return error_set(o->err, EINVAL, "no image format '%s': raw or qcow2", o->opts->format);
    return 0;
}

static void reverse(struct chain_image *c)
{
    for (unsigned i = 0, j = c->nr_layers; i + 1 < j; i++) {
        struct chain_layer tmp = c->layers[i];

        c->layers[i] = c->layers[--j];
        c->layers[j] = tmp;
    }
}

/* Says through which image a layer was reached. */
static int explain(struct opening *o)
{
    unsigned n = o->chain->nr_layers;

    if (!n || strstr(o->err->msg, o->chain->layers[n - 1].filename))
        return -o->err->errnum;
    return error_prefix(o->err, "below '%s'", o->chain->layers[n - 1].filename);
}

int co_chain_open(const char *path, const struct chain_open_opts *opts, struct chain_image **chain,
                  struct error *err)
{
    struct opening *o = calloc(1, sizeof(*o)); /* paths are large for a coroutine's stack */
    int ret;

    if (!o || !(o->chain = calloc(1, sizeof(*o->chain)))) {
        free(o);
        return error_set(err, ENOMEM, "opening '%s': out of memory", path);
    }
    o->opts = opts;
    o->err = err;
    ret = ram_is_name(path) ? co_open_ram(o, path) : set_top_path(o, path);
    if (!ret && !ram_is_name(path)) {
        do {
            ret = co_open_layer(o);
        } while (!ret && o->more && !o->opts->only_top);
        if (ret)
            ret = explain(o);
    }
    reverse(o->chain);
    if (ret)
        co_chain_close(o->chain);
    else
        *chain = o->chain;
    free(o);
    return ret;
}

void co_chain_close(struct chain_image *chain)
{
    if (!chain)
        return;
    for (unsigned i = chain->nr_layers; i-- > 0;) {
        co_blk_node_unref(chain->layers[i].node);
        free(chain->layers[i].filename);
    }
    free(chain->layers);
    free(chain);
}
