/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a partial raw image: made, opened, completed.
 *
 * Completing, each step durable before the next: blocks that nobody decided are made zeros in the
 * file, the data is flushed, NAME.partial becomes NAME, the map goes. Killed before the rename it
 * goes on with the map; after it NAME is complete, and a map found beside it means nothing.
 */
#define LOG_AREA "cowmap"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/cowmap-int.h"
#include "lun-backends/file.h"
#include "lun-backends/formats.h"
#include "util/bitmap.h"
#include "util/co-path.h"
#include "util/log.h"
#include "util/size.h"
#include "util/workers.h"

#define WORTH_A_HOLE (64u << 10) /* smaller zeros are copied as data */

/* Too large for a coroutine's stack. */
struct names {
    bool device;
    char path[PATH_MAX], partial[PATH_MAX], map[PATH_MAX], done[PATH_MAX], dir[PATH_MAX];
};

/* A device has its final name from the start. */
static bool name_all(struct names *n, const char *path, const char *map)
{
    n->device = map != NULL;
    if (snprintf(n->partial, PATH_MAX, "%s%s", path, map ? "" : COWMAP_PARTIAL_SUFFIX) >=
            PATH_MAX ||
        snprintf(n->map, PATH_MAX, "%s%s", map ? map : path, map ? "" : COWMAP_MAP_SUFFIX) >=
            PATH_MAX ||
        snprintf(n->done, PATH_MAX, "%s%s", n->map, COWMAP_DONE_SUFFIX) >= PATH_MAX)
        return false;
    strcpy(n->path, path);
    strcpy(n->dir, map ? map : path);
    dirname(n->dir);
    return true;
}

static struct names *names_new(const char *path, const char *map, struct error *err)
{
    struct names *n = malloc(sizeof(*n));

    if (!n) {
        error_set(err, ENOMEM, "'%s': out of memory", path);
        return NULL;
    }
    if (!name_all(n, path, map)) {
        error_set(err, ENAMETOOLONG, "'%.200s...': the name is too long", path);
        free(n);
        return NULL;
    }
    return n;
}

/* ---- on a helper thread ------------------------------------------------------------ */

static int sync_names(void *arg)
{
    return path_fsync_dir(((struct names *)arg)->dir);
}

static int unlink_all(void *arg)
{
    struct names *n = arg;

    unlink(n->map);
    if (!n->device)
        unlink(n->partial);
    return 0;
}

enum { HAVE_PARTIAL = 1, HAVE_COMPLETE = 2, HAVE_MAP = 4 };

static int look(void *arg)
{
    struct names *n = arg;
    struct stat partial, complete;

    if (n->device)
        return HAVE_PARTIAL | (access(n->map, F_OK) ? 0 : HAVE_MAP) |
               (access(n->done, F_OK) ? 0 : HAVE_COMPLETE);
    /* Killed between the two halves of take_name(). */
    if (!stat(n->partial, &partial) && !stat(n->path, &complete) &&
        partial.st_dev == complete.st_dev && partial.st_ino == complete.st_ino)
        unlink(n->partial);
    return (access(n->partial, F_OK) ? 0 : HAVE_PARTIAL) |
           (access(n->path, F_OK) ? 0 : HAVE_COMPLETE) | (access(n->map, F_OK) ? 0 : HAVE_MAP);
}

static int drop_map(void *arg)
{
    struct names *n = arg;

    if (n->device) /* it was renamed, and goes with co_cowmap_tidy() */
        return 0;
    return unlink(n->map) && errno != ENOENT ? -errno : path_fsync_dir(n->dir);
}

/* Never over a file that has appeared under the name meanwhile. A file system that can't promise
 * it by one call gets a link and an unlink. */
static int take_name(void *arg)
{
    struct names *n = arg;
    int ret;

    if (n->device)
        return rename(n->map, n->done) ? -errno : path_fsync_dir(n->dir);
    ret = renameat2(AT_FDCWD, n->partial, AT_FDCWD, n->path, RENAME_NOREPLACE) ? -errno : 0;

    if (ret == -EINVAL || ret == -ENOSYS)
        ret = link(n->partial, n->path) || unlink(n->partial) ? -errno : 0;
    return ret ? ret : path_fsync_dir(n->dir);
}

/* ---- making ------------------------------------------------------------------------ */

static int co_new_file(const char *path, uint64_t size_bytes, struct blk_node **file,
                       struct error *err)
{
    struct file_opts fo = {.writable = true, .create = true};
    int ret = co_file_open(path, &fo, file, err);

    if (!ret)
        ret = (*file)->drv->co_resize(*file, size_bytes, err);
    return ret;
}

/* Its content is of no use, but nothing is written yet. */
static int co_take_device(const char *path, uint64_t size_bytes, struct blk_node **file,
                          struct error *err)
{
    struct file_opts fo = {.writable = true};
    struct file_identity id;
    int ret = co_file_open(path, &fo, file, err);

    if (ret)
        return ret;
    file_node_identity(*file, &id);
    if (!id.is_device)
        return error_set(err, ENOTBLK, "'%s' is not a block device", path);
    if ((*file)->size_bytes != size_bytes)
        return error_set(err, EINVAL,
                         "'%s' has %" PRIu64 " bytes, the disk has %" PRIu64
                         ": the device must be exactly as large",
                         path, (*file)->size_bytes, size_bytes);
    return 0;
}

static int co_write_map(struct blk_node *map, const struct cowmap_header *h, struct error *err)
{
    uint8_t *buf = aligned_alloc(4096, COWMAP_HEADER_BYTES);
    int ret = buf ? cowmap_encode(h, buf) : -ENOMEM;

    if (!ret)
        ret = co_blk_write(map, 0, buf, COWMAP_HEADER_BYTES, 0);
    if (!ret)
        ret = co_blk_flush(map);
    free(buf);
    return ret ? error_set(err, -ret, "writing '%s': %s", map->filename, strerror(-ret)) : 0;
}

static int co_make(struct names *n, const struct cowmap_header *h, struct error *err)
{
    struct blk_node *data = NULL, *map = NULL;
    uint64_t map_bytes = COWMAP_HEADER_BYTES + cowmap_nr_pages(h) * COWMAP_PAGE_BYTES;
    int ret = n->device ? co_take_device(n->path, h->size_bytes, &data, err)
                        : co_new_file(n->partial, h->size_bytes, &data, err);
    bool mine = ret != -EEXIST;

    if (!ret) {
        ret = co_blk_flush(data);
        if (ret)
            error_set(err, -ret, "writing '%s': %s", n->partial, strerror(-ret));
    }
    if (!ret)
        ret = co_new_file(n->map, map_bytes, &map, err);
    if (!ret)
        ret = co_write_map(map, h, err);
    co_blk_node_unref(data);
    co_blk_node_unref(map);
    if (!ret) {
        ret = co_work(sync_names, n);
        if (ret)
            error_set(err, -ret, "directory '%s': %s", n->dir, strerror(-ret));
    }
    if (ret && mine)
        co_work(unlink_all, n);
    return ret;
}

static int fill_header(struct cowmap_header *h, const char *path, uint64_t size_bytes,
                       uint32_t block_bytes, const char *backing, struct error *err)
{
    h->size_bytes = size_bytes;
    h->block_bytes = block_bytes ? block_bytes : cowmap_choose_block(size_bytes);
    if (!h->block_bytes || size_bytes > INT64_MAX)
        return error_set(err, EFBIG, "'%s': too large for a map of its blocks", path);
    if (strlen(backing) > COWMAP_BACKING_MAX)
        return error_set(err, ENAMETOOLONG, "'%s': the backing's name is too long", path);
    strcpy(h->backing, backing);
    return 0;
}

int co_cowmap_create(const char *path, const char *map, uint64_t size_bytes, uint32_t block_bytes,
                     const char *backing, struct error *err)
{
    struct names *n = names_new(path, map, err);
    struct cowmap_header *h = calloc(1, sizeof(*h));
    int ret;

    if (!n || !h) {
        free(n);
        free(h);
        return n ? error_set(err, ENOMEM, "'%s': out of memory", path) : -err->errnum;
    }
    ret = fill_header(h, path, size_bytes, block_bytes, backing, err);
    if (!ret) {
        int have = co_work(look, n) & (n->device ? HAVE_MAP | HAVE_COMPLETE : ~0);

        if (have && n->device)
            ret = error_set(err, EEXIST,
                            "%s exists already, of an earlier pull into a device: remove it if "
                            "that is not needed any more, or choose another name",
                            have & HAVE_MAP ? n->map : n->done);
        else if (have)
            ret = error_set(err, EEXIST,
                            "%s exists already: remove it, or choose another directory or name",
                            have & HAVE_COMPLETE  ? n->path
                            : have & HAVE_PARTIAL ? n->partial
                                                  : n->map);
    }
    if (!ret)
        ret = co_make(n, h, err);
    free(n);
    free(h);
    return ret;
}

void co_cowmap_tidy(const char *map)
{
    char *done = malloc(PATH_MAX);

    if (done && snprintf(done, PATH_MAX, "%s%s", map, COWMAP_DONE_SUFFIX) < PATH_MAX)
        co_path_unlink(done);
    free(done);
}

void co_cowmap_remove(const char *path, const char *map)
{
    struct error ignored = ERROR_INIT;
    struct names *n = names_new(path, map, &ignored);

    if (n)
        co_work(unlink_all, n);
    free(n);
}

/* ---- opening ----------------------------------------------------------------------- */

static int co_read_header(struct cowmap *cm, struct error *err)
{
    uint8_t *buf = aligned_alloc(4096, COWMAP_HEADER_BYTES);
    const char *name = cm->map_file->filename;
    int ret = -ENOMEM;

    cm->header = calloc(1, sizeof(*cm->header));
    if (buf && cm->header && cm->map_file->size_bytes < COWMAP_HEADER_BYTES)
        ret = error_set(err, EINVAL, "'%s' is too short for a map", name);
    else if (buf && cm->header)
        ret = co_blk_read(cm->map_file, 0, buf, COWMAP_HEADER_BYTES, 0);
    if (!ret && cowmap_decode(buf, cm->header, err))
        ret = error_prefix(err, "'%s'", name);
    else if (ret && !*err->msg)
        error_set(err, -ret, "reading '%s': %s", name, strerror(-ret));
    free(buf);
    return ret;
}

static int co_read_map(struct cowmap *cm, struct error *err)
{
    const struct blk_node *file = cm->node.file.child;
    int ret = co_read_header(cm, err);

    if (ret)
        return ret;
    cm->nr_blocks = cowmap_nr_blocks(cm->header);
    cm->nr_pages = cowmap_nr_pages(cm->header);
    if (file->size_bytes != cm->header->size_bytes ||
        cm->map_file->size_bytes != COWMAP_HEADER_BYTES + cm->nr_pages * COWMAP_PAGE_BYTES)
        return error_set(err, EINVAL, "'%s' and '%s' don't belong together: their sizes don't fit",
                         file->filename, cm->map_file->filename);
    cm->local = calloc(BITMAP_WORDS(cm->nr_blocks) + 1, 8);
    cm->dirty = calloc(BITMAP_WORDS(cm->nr_pages) + 1, 8);
    ret = cm->local && cm->dirty ? co_cowmap_load(cm) : -ENOMEM;
    if (ret)
        error_set(err, -ret, "reading '%s': %s", cm->map_file->filename, strerror(-ret));
    return ret;
}

static int co_open_partial(struct names *n, struct blk_node **node, struct error *err)
{
    struct file_opts fo = {.writable = true};
    struct blk_node *file;
    struct cowmap *cm;
    int ret = co_file_open(n->partial, &fo, &file, err);

    if (ret)
        return ret;
    cm = to_cowmap(blk_node_new(&cowmap_driver, NULL));
    if (!cm) {
        co_blk_node_unref(file);
        return error_set(err, ENOMEM, "opening '%s': out of memory", n->path);
    }
    blk_set_file(&cm->node, file);
    co_blk_node_unref(file);
    co_mutex_init(&cm->flush_lock);
    list_init(&cm->changes);
    cm->path = strdup(n->path);
    cm->map_path = n->device ? strdup(n->map) : NULL;
    cm->node.filename = strdup(n->partial);
    if (cm->path && cm->node.filename && (cm->map_path || !n->device))
        ret = co_file_open(n->map, &fo, &cm->map_file, err);
    else
        ret = error_set(err, ENOMEM, "opening '%s': out of memory", n->path);
    if (!ret)
        ret = co_read_map(cm, err);
    if (ret) {
        cm->node.read_only = true;
        co_blk_node_unref(&cm->node);
        return ret;
    }
    cm->node.size_bytes = cm->header->size_bytes;
    cm->node.limits = (struct blk_limits){
        .align_bytes = 512,
        .granularity_bytes = MAX_OF(cm->header->block_bytes, WORTH_A_HOLE),
        .subunit_bytes = cm->header->block_bytes,
    };
    *node = &cm->node;
    return 0;
}

static int co_open_complete(struct names *n, struct blk_node **node, struct error *err)
{
    struct file_opts fo = {.writable = true};
    struct blk_node *file;
    int ret = co_file_open(n->path, &fo, &file, err);

    if (ret)
        return ret;
    ret = co_raw_open(file, true, node, err);
    co_blk_node_unref(file);
    if (!ret && co_work(drop_map, n))
        log_warn("'%s' is complete, but '%s' can't be removed", n->path, n->map);
    return ret;
}

int co_cowmap_open(const char *path, const char *map, struct blk_node **node, struct error *err)
{
    struct names *n = names_new(path, map, err);
    int have, ret;

    if (!n)
        return -err->errnum;
    have = co_work(look, n);
    if ((have & (HAVE_PARTIAL | HAVE_MAP)) == HAVE_PARTIAL && !(have & HAVE_COMPLETE))
        ret = error_set(err, ENOENT, "'%s' is missing: nothing else knows what '%s' holds", n->map,
                        n->partial);
    else if ((have & (HAVE_PARTIAL | HAVE_MAP)) == (HAVE_PARTIAL | HAVE_MAP))
        ret = co_open_partial(n, node, err);
    else
        ret = co_open_complete(n, node, err);
    free(n);
    return ret;
}

const char *cowmap_backing(const struct blk_node *node)
{
    const struct cowmap *cm = to_cowmap(node);

    return node->drv == &cowmap_driver && cm->map_file ? cm->header->backing : NULL;
}

/* ---- the end ----------------------------------------------------------------------- */

/* Data of a write whose bit a crash lost lies under blocks that read as zeros. */
static int co_clear_undecided(struct cowmap *cm)
{
    struct blk_node *file = cm->node.file.child;
    uint32_t block = cm->header->block_bytes;
    uint64_t b = 0;
    int ret = 0;

    while (!ret && (b = bitmap_next_clear(cm->local, cm->nr_blocks, b)) < cm->nr_blocks) {
        uint64_t last = bitmap_next_set(cm->local, cm->nr_blocks, b);
        uint64_t at = b * block, end = MIN_OF(last * block, cm->node.size_bytes);
        struct blk_extent ext;

        while (!ret && at < end) {
            ret = co_blk_status(file, at, end - at, &ext);
            if (!ret && ext.state == BLK_ST_DATA)
                ret = co_blk_write_zeroes(file, at, ext.length_bytes, BLK_MAY_UNMAP);
            at += ext.length_bytes;
        }
        b = last;
    }
    return ret;
}

static void forget_map(struct cowmap *cm, struct names *n)
{
    struct blk_node *file = cm->node.file.child;
    char *a = strdup(n->path), *b = strdup(n->path);

    if (a && b) {
        free(cm->node.filename);
        free(file->filename);
        cm->node.filename = a;
        file->filename = b;
    } else {
        free(a);
        free(b);
    }
    co_blk_node_unref(cm->map_file);
    cm->map_file = NULL;
    free(cm->local);
    free(cm->dirty);
    cm->local = cm->dirty = NULL;
}

int co_cowmap_change_backing(struct blk_node *node, const char *name, const char *format,
                             struct error *err)
{
    struct cowmap *cm = to_cowmap(node);
    struct names *n;
    int ret;

    (void)format;
    if (name)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "a raw image can't name a backing file");
    if (!cm->map_file)
        return 0;
    n = names_new(cm->path, cm->map_path, err);
    if (!n)
        return -err->errnum;
    ret = co_clear_undecided(cm);
    if (!ret)
        ret = co_cowmap_flush(cm);
    if (!ret)
        ret = co_work(take_name, n);
    if (!ret) {
        if (co_work(drop_map, n))
            log_warn("'%s' is complete, but '%s' can't be removed", n->path, n->map);
        forget_map(cm, n);
    } else {
        error_set(err, -ret, "completing '%s': %s", n->path, strerror(-ret));
    }
    free(n);
    return ret;
}

void co_cowmap_close(struct blk_node *node)
{
    struct cowmap *cm = to_cowmap(node);
    int ret = cm->map_file && !node->read_only ? co_cowmap_flush(cm) : 0;

    if (ret)
        log_err("closing '%s': %s", node->filename, strerror(-ret));
    co_blk_node_unref(cm->map_file);
    free(cm->local);
    free(cm->dirty);
    free(cm->header);
    free(cm->path);
    free(cm->map_path);
}
