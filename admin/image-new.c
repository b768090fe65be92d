/* SPDX-License-Identifier: BSD-3-Clause */
/* New image files: the options of create and convert, and the making. */
#include "admin/image.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/size.h"

#define MAX_OPTION            2048
#define DEFAULT_CLUSTER_BYTES 65536 /* also with extended L2, as qemu-img has it */

/* ---- preallocation ------------------------------------------------------------------------ */

#define FILL_BYTES (UINT64_C(1) << 20)

static const char *const prealloc_words[] = {
    [QCOW2_PREALLOC_OFF] = "off",
    [QCOW2_PREALLOC_METADATA] = "metadata",
    [QCOW2_PREALLOC_FALLOC] = "falloc",
    [QCOW2_PREALLOC_FULL] = "full",
};

bool image_prealloc(const char *word, const char *format, enum qcow2_prealloc *how)
{
    bool raw = !strcmp(format, "raw");

    for (size_t i = 0; i < ARRAY_LEN(prealloc_words); i++) {
        if (strcmp(prealloc_words[i], word) || (raw && i == QCOW2_PREALLOC_METADATA))
            continue;
        *how = (enum qcow2_prealloc)i;
        return true;
    }
    cli_fail("preallocation=%s is not supported for %s (off, %sfalloc or full)", word, format,
             raw ? "" : "metadata, ");
    return false;
}

static int co_fill_raw(struct blk_node *node, uint64_t from, enum qcow2_prealloc how)
{
    uint64_t end = node->size_bytes, n;
    uint8_t *zeros = aligned_alloc(4096, FILL_BYTES);
    int ret = zeros ? 0 : -ENOMEM;

    if (zeros)
        memset(zeros, 0, FILL_BYTES);
    if (!ret && how == QCOW2_PREALLOC_FALLOC && from < end) {
        ret = co_blk_write_zeroes(node, from, end - from, 0);
        from = end;
    }
    for (; from < end && !ret; from += n) {
        n = MIN_OF(end - from, FILL_BYTES);
        ret = co_blk_write(node, from, zeros, n, 0);
    }
    free(zeros);
    return ret;
}

int co_image_preallocate(struct blk_node *node, uint64_t from, enum qcow2_prealloc how, bool below)
{
    struct error err = ERROR_INIT;
    int ret;

    if (how == QCOW2_PREALLOC_OFF)
        return 0;
    if (!strcmp(node->drv->name, "qcow2"))
        return co_qcow2_preallocate(node, from, how, below, &err) ? cli_fail("%s", err.msg) : 0;
    ret = co_fill_raw(node, from, how);
    return ret ? cli_fail("allocating space for '%s': %s", node->filename, strerror(-ret)) : 0;
}

/* ---- options --------------------------------------------------------------------------------- */

struct option {
    const char *key;
    int (*set)(struct image_new *n, const char *value);
    bool raw_too;
};

static int bad_value(const char *key, const char *value, const char *want)
{
    return cli_fail("option %s: '%s' is not %s", key, value, want);
}

static int set_switch(const char *key, const char *value, bool *out)
{
    *out = !strcmp(value, "on") || !strcmp(value, "true");
    if (*out || !strcmp(value, "off") || !strcmp(value, "false"))
        return 0;
    return bad_value(key, value, "on or off");
}

static int set_size(struct image_new *n, const char *value)
{
    if (size_parse(value, &n->q.size_bytes))
        return bad_value("size", value, "a size (a number, with k, M, G or T)");
    n->has_size = true;
    return 0;
}

static int set_cluster_size(struct image_new *n, const char *value)
{
    uint64_t bytes;

    if (size_parse(value, &bytes) || bytes < 512 || bytes > 2u << 20 || (bytes & (bytes - 1)))
        return bad_value("cluster_size", value, "a power of two from 512 to 2M");
    n->q.cluster_bytes = (uint32_t)bytes;
    return 0;
}

static int set_extended_l2(struct image_new *n, const char *value)
{
    return set_switch("extended_l2", value, &n->q.extended_l2);
}

static int set_lazy(struct image_new *n, const char *value)
{
    return set_switch("lazy_refcounts", value, &n->q.lazy_refcounts);
}

static int set_compat(struct image_new *n, const char *value)
{
    n->q.compat_v2 = !strcmp(value, "0.10") || !strcmp(value, "v2");
    if (n->q.compat_v2 || !strcmp(value, "1.1") || !strcmp(value, "v3"))
        return 0;
    return bad_value("compat", value, "0.10 or 1.1");
}

static int set_compression(struct image_new *n, const char *value)
{
    n->q.zstd = !strcmp(value, "zstd");
    return n->q.zstd || !strcmp(value, "zlib")
               ? 0
               : bad_value("compression_type", value, "zlib or zstd");
}

static int set_refcount_bits(struct image_new *n, const char *value)
{
    uint64_t bits;

    if (size_parse(value, &bits) || !bits || bits > 64 || (bits & (bits - 1)))
        return bad_value("refcount_bits", value, "1, 2, 4, 8, 16, 32 or 64");
    n->q.refcount_bits = (uint32_t)bits;
    return 0;
}

static int set_preallocation(struct image_new *n, const char *value)
{
    return image_prealloc(value, n->format, &n->prealloc) ? 0 : CLI_FAILED;
}

static int set_text(char *out, size_t len, const char *key, const char *value)
{
    if (strlen(value) >= len)
        return cli_fail("option %s is too long", key);
    strcpy(out, value);
    return 0;
}

static int set_backing(struct image_new *n, const char *value)
{
    return set_text(n->backing, sizeof(n->backing), "backing_file", value);
}

static int set_backing_fmt(struct image_new *n, const char *value)
{
    return set_text(n->backing_fmt, sizeof(n->backing_fmt), "backing_fmt", value);
}

static int set_data_file(struct image_new *n, const char *value)
{
    if (!*value)
        return bad_value("data_file", value, "a file name");
    return set_text(n->data_file, sizeof(n->data_file), "data_file", value);
}

static int set_data_file_raw(struct image_new *n, const char *value)
{
    return set_switch("data_file_raw", value, &n->q.data_file_raw);
}

static int set_nocow(struct image_new *n, const char *value)
{
    bool on;

    (void)n;
    if (set_switch("nocow", value, &on))
        return CLI_FAILED;
    return on ? cli_fail("nocow=on is not supported: chattr +C on the directory does it") : 0;
}

/* A hint for the file system's sake alone: files grow in large steps anyway. */
static int set_extent_size_hint(struct image_new *n, const char *value)
{
    uint64_t bytes;

    (void)n;
    return size_parse(value, &bytes) ? bad_value("extent_size_hint", value, "a size") : 0;
}

static int set_encryption(struct image_new *n, const char *value)
{
    bool on;

    (void)n;
    if (set_switch("encryption", value, &on))
        return CLI_FAILED;
    return on ? cli_fail("encrypted images are not supported") : 0;
}

static const struct option options[] = {
    {"size", set_size, true},
    {"preallocation", set_preallocation, true},
    {"cluster_size", set_cluster_size, false},
    {"extended_l2", set_extended_l2, false},
    {"lazy_refcounts", set_lazy, false},
    {"compat", set_compat, false},
    {"compression_type", set_compression, false},
    {"refcount_bits", set_refcount_bits, false},
    {"backing_file", set_backing, false},
    {"backing_fmt", set_backing_fmt, false},
    {"data_file", set_data_file, false},
    {"data_file_raw", set_data_file_raw, false},
    {"nocow", set_nocow, true},
    {"extent_size_hint", set_extent_size_hint, true},
    {"encryption", set_encryption, false},
};

static int take_option(struct image_new *n, char *text)
{
    char *eq = strchr(text, '=');

    if (!eq)
        return cli_fail("option '%s' has no value", text);
    *eq = '\0';
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (!strcmp(options[i].key, text) && (options[i].raw_too || strcmp(n->format, "raw")))
            return options[i].set(n, eq + 1);
    if (!strncmp(text, "encrypt.", 8))
        return cli_fail("option '%s': encrypted images are not supported", text);
    return cli_fail("format %s has no option '%s'", n->format, text);
}

/* "a=1,b=x,,y": two commas are one in the value. */
static int take_options(struct image_new *n, const char *text)
{
    char item[MAX_OPTION];
    size_t len = 0;
    int ret = 0;

    if (strlen(text) >= sizeof(item))
        return cli_fail("-o is too long");
    for (; !ret; text++) {
        if (*text && (*text != ',' || text[1] == ',')) {
            text += *text == ',';
            item[len++] = *text;
            continue;
        }
        item[len] = '\0';
        if (len)
            ret = take_option(n, item);
        len = 0;
        if (!*text)
            break;
    }
    return ret;
}

static int check_together(const struct image_new *n)
{
    if (n->q.compat_v2 && (n->q.extended_l2 || n->q.zstd || n->q.lazy_refcounts ||
                           (n->q.refcount_bits && n->q.refcount_bits != 16)))
        return cli_fail("compat=0.10 has no extended_l2, lazy_refcounts, zstd, and only "
                        "16-bit refcounts");
    if (n->q.compat_v2 && *n->data_file)
        return cli_fail("compat=0.10 has no data_file");
    if (n->q.data_file_raw && !*n->data_file)
        return cli_fail("data_file_raw=on needs data_file=NAME");
    if (n->q.data_file_raw && *n->backing)
        return cli_fail("data_file_raw=on and a backing file do not go together");
    if (n->prealloc && *n->backing && !n->q.extended_l2)
        return cli_fail("above a backing file preallocation needs extended_l2=on");
    if (*n->backing && !strcmp(n->format, "raw"))
        return cli_fail("a raw image has no backing file");
    if (*n->backing_fmt && !*n->backing)
        return cli_fail("a backing format without a backing file");
    return 0;
}

int image_new_parse(struct image_new *n, const json_t *args, const char *format)
{
    const json_t *list = json_object_get(args, "options"), *item;
    size_t i;
    int ret = 0;

    *n = (struct image_new){.format = *format ? format : "raw"};
    n->q.cluster_bytes = DEFAULT_CLUSTER_BYTES;
    if (strcmp(n->format, "raw") && strcmp(n->format, "qcow2"))
        return cli_fail("no image can be made in format '%s': raw or qcow2", n->format);
    json_array_foreach (list, i, item) {
        ret = take_options(n, json_string_value(item));
        if (ret)
            return ret;
    }
    if (*cli_str(args, "backing"))
        ret = set_backing(n, cli_str(args, "backing"));
    if (!ret && *cli_str(args, "backing-format"))
        ret = set_backing_fmt(n, cli_str(args, "backing-format"));
    return ret ? ret : check_together(n);
}

/* ---- making ------------------------------------------------------------------------------- */

int co_image_learn_backing(const char *path, struct image_new *n)
{
    char *backing = malloc(PATH_MAX), format[16];
    struct image_open how = {.format = n->backing_fmt};
    struct error err = ERROR_INIT;
    struct chain_image *chain;
    struct stat st[2];
    int ret = CLI_FAILED;

    if (!backing ||
        chain_resolve_backing(path, n->backing, backing, PATH_MAX, format, sizeof(format), &err)) {
        ret = cli_fail("%s", backing ? err.msg : "out of memory");
        goto out;
    }
    if (!stat(path, &st[0]) && !stat(backing, &st[1]) && st[0].st_dev == st[1].st_dev &&
        st[0].st_ino == st[1].st_ino) {
        ret = cli_fail("'%s' would be its own backing file", path);
        goto out;
    }
    chain = co_image_open(backing, &how);
    if (!chain)
        goto out;
    if (!n->has_size)
        n->q.size_bytes = image_top(chain)->size_bytes;
    n->has_size = true;
    co_chain_close(chain);
    ret = 0;
out:
    free(backing);
    return ret;
}

static int co_fill(struct blk_node *file, const struct image_new *n, struct error *err)
{
    struct qcow2_create_opts q = n->q;
    int ret;

    if (!strcmp(n->format, "qcow2")) {
        q.backing = *n->backing ? n->backing : NULL;
        q.backing_fmt = *n->backing_fmt ? n->backing_fmt : NULL;
        q.data_file = *n->data_file ? n->data_file : NULL;
        return co_qcow2_create(file, &q, err);
    }
    ret = file->drv->co_resize(file, q.size_bytes, err);
    if (ret)
        return ret;
    if (n->prealloc)
        ret = co_fill_raw(file, 0, n->prealloc);
    return ret ? error_set(err, -ret, "allocating space: %s", strerror(-ret)) : 0;
}

/* Empty, or for a disk of @raw_bytes. *made: it was not there before. */
static int co_make_file(const char *path, uint64_t raw_bytes, bool *made)
{
    struct stat st;
    bool there = !stat(path, &st);
    struct file_opts opts = {.writable = true, .create = !there, .cache = FILE_CACHE_WRITEBACK};
    struct error err = ERROR_INIT;
    struct blk_node *file;
    int ret = co_file_open(path, &opts, &file, &err);

    *made = !ret && !there;
    if (ret)
        return cli_fail("%s", err.msg);
    if (!S_ISREG(there ? st.st_mode : S_IFREG))
        ret = file->size_bytes < raw_bytes ? error_set(&err, ENOSPC, "'%s' is too small", path) : 0;
    else if (!(ret = file->drv->co_resize(file, 0, &err)))
        ret = file->drv->co_resize(file, raw_bytes, &err);
    co_blk_node_unref(file);
    return ret ? cli_fail("%s", err.msg) : 0;
}

/* Its name is relative to the image, as it is when the image is opened. */
static int co_make_data_file(const char *path, const struct image_new *n, char *data, bool *made)
{
    struct error err = ERROR_INIT;
    struct stat st[2];

    if (chain_resolve_data_file(path, n->data_file, data, PATH_MAX, &err))
        return cli_fail("%s", err.msg);
    if (!strcmp(path, data) || (!stat(path, &st[0]) && !stat(data, &st[1]) &&
                                st[0].st_dev == st[1].st_dev && st[0].st_ino == st[1].st_ino))
        return cli_fail("'%s' would be its own data file", path);
    return co_make_file(data, n->q.size_bytes, made);
}

/* Clusters get their places through the new image itself. */
static int co_settle(const char *path, const struct image_new *n)
{
    struct image_open how = {.format = "qcow2", .writable = true, .only_top = true};
    enum qcow2_prealloc prealloc = n->prealloc;
    struct chain_image *image;
    int ret;

    if (n->q.data_file_raw && !prealloc) /* so the raw file can change without the image */
        prealloc = QCOW2_PREALLOC_METADATA;
    if (strcmp(n->format, "qcow2") || !prealloc)
        return 0;
    image = co_image_open(path, &how);
    if (!image)
        return CLI_FAILED;
    ret = co_image_preallocate(image_top(image), 0, prealloc, *n->backing);
    return co_image_finish(image) ? CLI_FAILED : ret;
}

static int co_make_image(const char *path, const struct image_new *n)
{
    struct stat st;
    bool there = !stat(path, &st);
    struct file_opts opts = {.writable = true, .create = !there, .cache = FILE_CACHE_WRITEBACK};
    struct error err = ERROR_INIT;
    struct blk_node *file;
    int ret = co_file_open(path, &opts, &file, &err);

    if (ret)
        return cli_fail("%s", err.msg);
    if (there && !S_ISBLK(st.st_mode))
        ret = file->drv->co_resize(file, 0, &err);
    if (!ret)
        ret = co_fill(file, n, &err);
    if (!ret && (ret = co_blk_flush(file)))
        error_set(&err, -ret, "flushing: %s", strerror(-ret));
    co_blk_node_unref(file);
    if (ret)
        cli_fail("making '%s': %s", path, err.msg);
    else
        ret = co_settle(path, n);
    if (ret && !there)
        unlink(path);
    return ret ? CLI_FAILED : 0;
}

int co_image_make(const char *path, const struct image_new *n)
{
    char *data = malloc(PATH_MAX);
    bool made = false;
    int ret = data ? 0 : cli_fail("out of memory");

    if (!ret && *n->data_file)
        ret = co_make_data_file(path, n, data, &made);
    if (!ret)
        ret = co_make_image(path, n);
    if (ret && made)
        unlink(data);
    free(data);
    return ret;
}

/* ---- create ------------------------------------------------------------------------------- */

static void say_what(const char *path, const struct image_new *n)
{
    const struct qcow2_create_opts *q = &n->q;

    printf("Formatting '");
    cli_put(path);
    printf("', fmt=%s", n->format);
    if (!strcmp(n->format, "qcow2"))
        printf(" cluster_size=%u extended_l2=%s", q->cluster_bytes, q->extended_l2 ? "on" : "off");
    if (!strcmp(n->format, "qcow2") && n->prealloc)
        printf(" preallocation=%s", prealloc_words[n->prealloc]);
    if (!strcmp(n->format, "qcow2"))
        printf(" compression_type=%s", q->zstd ? "zstd" : "zlib");
    printf(" size=%llu", (unsigned long long)q->size_bytes);
    if (*n->backing) {
        printf(" backing_file=");
        cli_put(n->backing);
        printf(" backing_fmt=");
        cli_put(n->backing_fmt);
    }
    if (*n->data_file) {
        printf(" data_file=");
        cli_put(n->data_file);
        fputs(q->data_file_raw ? " data_file_raw=on" : "", stdout);
    }
    if (!strcmp(n->format, "raw") && n->prealloc)
        printf(" preallocation=%s", prealloc_words[n->prealloc]);
    if (!strcmp(n->format, "qcow2"))
        printf("%s lazy_refcounts=%s refcount_bits=%u", q->compat_v2 ? " compat=0.10" : "",
               q->lazy_refcounts ? "on" : "off", q->refcount_bits ? q->refcount_bits : 16);
    putchar('\n');
}

int co_image_create(json_t *args)
{
    const char *path = cli_str(args, "filename"), *size = cli_str(args, "size");
    struct image_new *n = calloc(1, sizeof(*n));
    int ret;

    if (!n)
        return cli_fail("out of memory");
    ret = image_new_parse(n, args, cli_str(args, "format"));
    if (!ret && *size)
        ret = set_size(n, size);
    if (!ret && *n->backing && !*n->backing_fmt)
        ret = cli_fail("a backing file needs its format: -F raw or -F qcow2");
    if (!ret && *n->backing && !cli_bool(args, "unsafe"))
        ret = co_image_learn_backing(path, n);
    if (!ret && !n->has_size)
        ret = cli_fail("the size of the disk is missing");
    n->q.size_bytes = round_up_pow2(n->q.size_bytes, 512);
    if (!ret && !cli_bool(args, "quiet"))
        say_what(path, n);
    if (!ret)
        ret = co_image_make(path, n);
    free(n);
    return ret;
}
