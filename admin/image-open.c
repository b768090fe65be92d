/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening what an image command works on, and the small things all of them need. */
#include "admin/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/image-probe.h"
#include "util/size.h"

/* Written data is flushed at the end in all of them. */
static const struct {
    const char *name;
    enum file_cache cache;
} cache_modes[] = {
    {"none", FILE_CACHE_NONE},           {"directsync", FILE_CACHE_NONE},
    {"writeback", FILE_CACHE_WRITEBACK}, {"writethrough", FILE_CACHE_WRITEBACK},
    {"unsafe", FILE_CACHE_WRITEBACK},
};

static bool find_cache(const char *name, enum file_cache *cache)
{
    *cache = FILE_CACHE_WRITEBACK;
    for (size_t i = 0; name && i < ARRAY_LEN(cache_modes); i++) {
        if (!strcmp(cache_modes[i].name, name)) {
            *cache = cache_modes[i].cache;
            return true;
        }
    }
    return !name || !*name;
}

bool image_cache_modes(const json_t *args)
{
    static const char *const keys[] = {"target-cache", "cache"};
    enum file_cache cache;

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (!find_cache(cli_str(args, keys[i]), &cache)) {
            cli_fail("no cache mode '%s': none, writeback, writethrough, directsync or unsafe",
                     cli_str(args, keys[i]));
            return false;
        }
    }
    return true;
}

struct chain_image *co_image_open(const char *path, const struct image_open *how)
{
    struct chain_open_opts opts = {
        .format = how->format && *how->format ? how->format : NULL,
        .writable = how->writable,
        .probe_backing = true,
        .only_top = how->only_top,
        .no_lock = how->share,
        .snapshot = how->snapshot,
    };
    struct error err = ERROR_INIT;
    struct chain_image *chain;

    find_cache(how->cache, &opts.cache);
    if (!co_chain_open(path, &opts, &chain, &err))
        return chain;
    cli_fail("%s", err.msg);
    return NULL;
}

struct blk_node *co_image_open_file(const char *path, bool writable, bool share)
{
    struct file_opts opts = {
        .writable = writable,
        .no_lock = share,
        .cache = FILE_CACHE_WRITEBACK,
    };
    struct error err = ERROR_INIT;
    struct blk_node *file;

    if (!co_file_open(path, &opts, &file, &err))
        return file;
    cli_fail("%s", err.msg);
    return NULL;
}

static int co_probe(struct blk_node *file, const char **format)
{
    uint8_t head[IMAGE_PROBE_HEAD] = {0}, foot[IMAGE_PROBE_FOOT] = {0};
    uint64_t size = file->size_bytes;
    size_t bytes = MIN_OF(size, sizeof(head));
    int ret = bytes ? co_blk_read(file, 0, head, bytes, 0) : 0;

    if (!ret && size >= sizeof(foot))
        ret = co_blk_read(file, size - sizeof(foot), foot, sizeof(foot), 0);
    *format = image_probe(head, bytes, foot);
    return ret;
}

const char *co_image_format(struct blk_node *file, const char *told)
{
    const char *format = told;
    int ret;

    if (!told || !*told) {
        ret = co_probe(file, &format);
        if (ret) {
            cli_fail("reading '%s': %s", file->filename, strerror(-ret));
            return NULL;
        }
    }
    if (!strcmp(format, "qcow2"))
        return "qcow2";
    if (!strcmp(format, "raw"))
        return "raw";
    cli_fail("'%s': format %s is not supported", file->filename, format);
    return NULL;
}

int co_image_read(struct blk_node *node, uint64_t offset, void *buf, size_t bytes)
{
    size_t there = 0;

    if (node && offset < node->size_bytes)
        there = MIN_OF(bytes, node->size_bytes - offset);
    memset((char *)buf + there, 0, bytes - there);
    return there ? co_blk_read(node, offset, buf, there, BLK_BULK) : 0;
}

int co_image_finish(struct chain_image *chain)
{
    struct blk_node *top = image_top(chain);
    int ret = top->read_only ? 0 : co_blk_flush(top);

    if (!ret && !top->read_only && top->drv->co_inactivate)
        ret = top->drv->co_inactivate(top);
    if (ret)
        cli_fail("writing '%s': %s", top->filename, strerror(-ret));
    co_chain_close(chain);
    return ret;
}

bool image_output(const json_t *args, bool *json)
{
    const char *form = cli_str(args, "output");

    *json = !strcmp(form, "json");
    if (*json || !*form || !strcmp(form, "human"))
        return true;
    cli_fail("--output must be human or json, not '%s'", form);
    return false;
}

void image_print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(4));
    putchar('\n');
    json_decref(value);
}
