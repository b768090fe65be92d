/* SPDX-License-Identifier: BSD-3-Clause */
/* convert, commit and rebase: what moves a disk's content between images. */
#include "admin/image.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "lun-backends/qcow2-offline.h"
#include "util/size.h"

#define DEFAULT_PARALLEL 8
#define DEFAULT_SPARSE   4096
#define REBASE_BYTES     (UINT64_C(1) << 20)

/* ---- convert ------------------------------------------------------------------------------ */

/* How many layers of @chain lie above the file that @to has as its backing; 0: it is not in it. */
static unsigned layers_above(const struct chain_image *chain, const struct chain_image *to)
{
    const struct file_identity *id;

    if (to->nr_layers < 2)
        return 0;
    id = &to->layers[to->nr_layers - 2].identity;
    for (unsigned i = 0; i < chain->nr_layers; i++)
        if (chain->layers[i].identity.dev == id->dev &&
            chain->layers[i].identity.inode == id->inode)
            return chain->nr_layers - 1 - i;
    return 0;
}

/* Everything that one convert works on. */
struct conversion {
    const json_t *args;
    const char *target;
    unsigned nr_from;
    struct chain_image **from;
    struct chain_image *to;
    uint64_t total_bytes; /* of all inputs, one behind the other */
    struct qcow2_snapshot_name snapshot;
    char snapshot_text[2][128];
    struct image_progress progress;
};

/* "snapshot.id=ID,snapshot.name=NAME", or what is an ID or else a name. */
static int take_snapshot(struct conversion *v, const char *text)
{
    static const char *const keys[] = {"snapshot.id=", "snapshot.name="};
    const char *what = text;

    if (strncmp(text, "snapshot.", 9)) {
        v->snapshot.any = text;
        return 0;
    }
    while (*what) {
        size_t len = strcspn(what, ","), i = strncmp(what, keys[0], strlen(keys[0])) != 0;
        size_t skip = strlen(keys[i]);

        if (strncmp(what, keys[i], skip) || len - skip >= sizeof(v->snapshot_text[i]))
            return cli_fail("-l: '%s' is not snapshot.id=ID,snapshot.name=NAME or a snapshot's "
                            "ID or name",
                            text);
        memcpy(v->snapshot_text[i], what + skip, len - skip);
        *(i ? &v->snapshot.name : &v->snapshot.id) = v->snapshot_text[i];
        what += len + (what[len] == ',');
    }
    return 0;
}

static int co_open_inputs(struct conversion *v)
{
    const json_t *list = json_object_get(v->args, "filenames");
    struct image_open how = {.format = cli_str(v->args, "format"),
                             .cache = cli_str(v->args, "cache"),
                             .share = cli_bool(v->args, "force-share"),
                             .snapshot = *cli_str(v->args, "snapshot") ? &v->snapshot : NULL};
    size_t n = json_array_size(list) - 1;

    v->from = calloc(n, sizeof(struct chain_image *));
    if (!v->from)
        return cli_fail("out of memory");
    for (; v->nr_from < n; v->nr_from++) {
        struct chain_image *from =
            co_image_open(json_string_value(json_array_get(list, v->nr_from)), &how);

        if (!from)
            return CLI_FAILED;
        v->from[v->nr_from] = from;
        v->total_bytes += image_top(from)->size_bytes;
    }
    return 0;
}

static int check_words(const struct conversion *v)
{
    const json_t *args = v->args;

    if (cli_bool(args, "bitmaps"))
        return cli_fail("--bitmaps is not supported: persistent bitmaps are not copied");
    if (cli_bool(args, "target-is-zero") && !cli_bool(args, "existing"))
        return cli_fail("--target-is-zero goes with -n");
    if (v->nr_from > 1 && *cli_str(args, "backing"))
        return cli_fail("-B and several images do not go together");
    return 0;
}

/* Compressed clusters are written whole, so each input has to begin with one. */
static int check_packing(const struct conversion *v, const struct blk_node *to)
{
    if (strcmp(to->drv->name, "qcow2"))
        return cli_fail("-c: raw images have no compressed clusters");
    if (to->data.child)
        return cli_fail("-c: an image with an external data file has no compressed clusters");
    for (unsigned i = 0; i + 1 < v->nr_from; i++)
        if (image_top(v->from[i])->size_bytes & (to->limits.granularity_bytes - 1))
            return cli_fail("-c: the size of '%s' is no multiple of the cluster size; put the "
                            "images together first, then compress",
                            image_top(v->from[i])->filename);
    return 0;
}

static int co_copy_input(struct conversion *v, struct chain_image *from, struct image_copy copy)
{
    struct error err = ERROR_INIT;

    copy.from = image_top(from);
    copy.bytes = copy.from->size_bytes;
    copy.layers = cli_bool(v->args, "existing") ? 0 : layers_above(from, v->to);
    if (from->nr_layers == copy.layers)
        copy.layers = 0;
    return co_image_copy(&copy, &err) ? cli_fail("%s", err.msg) : 0;
}

static int co_convert_into(struct conversion *v)
{
    const json_t *args = v->args;
    bool zeros =
        cli_bool(args, "existing") ? cli_bool(args, "target-is-zero") : v->to->nr_layers == 1;
    struct image_copy copy = {
        .to = image_top(v->to),
        .to_reads_zero = zeros,
        .sparse_bytes = DEFAULT_SPARSE,
        .parallel = DEFAULT_PARALLEL,
        .salvage = cli_bool(args, "salvage"),
        .progress = &v->progress,
    };
    int ret = image_rate(args, &copy.rate);

    if (json_object_get(args, "sparse"))
        copy.sparse_bytes = (uint32_t)MIN_OF((uint64_t)cli_int(args, "sparse"), UINT64_C(1) << 20);
    if (json_object_get(args, "parallel"))
        copy.parallel = (unsigned)cli_int(args, "parallel");
    if (cli_bool(args, "compress")) {
        ret = ret ? ret : check_packing(v, copy.to);
        copy.packed_bytes = copy.to->limits.granularity_bytes;
    }
    if (!ret && copy.to->size_bytes < v->total_bytes)
        ret = cli_fail("'%s' is smaller than what is to be written to it", copy.to->filename);
    image_progress_start(&v->progress, args, v->total_bytes);
    for (unsigned i = 0; i < v->nr_from && !ret; i++) {
        ret = co_copy_input(v, v->from[i], copy);
        copy.to_offset += image_top(v->from[i])->size_bytes;
    }
    if (!ret && copy.packed_bytes && co_qcow2_end_compressed(copy.to))
        ret = cli_fail("'%s' can't be made longer", copy.to->filename);
    if (!ret)
        image_progress_end(&v->progress);
    return ret;
}

static int co_make_target(const char *path, const json_t *args, uint64_t size_bytes)
{
    struct image_new *n = calloc(1, sizeof(*n));
    int ret;

    if (!n)
        return cli_fail("out of memory");
    ret = image_new_parse(n, args, cli_str(args, "target-format"));
    if (!ret && cli_bool(args, "compress") && strcmp(n->format, "qcow2"))
        ret = cli_fail("-c: raw images have no compressed clusters");
    if (!ret && cli_bool(args, "compress") && (*n->data_file || n->prealloc))
        ret = cli_fail("-c goes with neither data_file nor preallocation");
    if (!ret && n->has_size && n->q.size_bytes < size_bytes)
        ret = cli_fail("size=%llu is smaller than the source", (unsigned long long)n->q.size_bytes);
    if (!n->has_size)
        n->q.size_bytes = size_bytes;
    n->q.size_bytes = round_up_pow2(n->q.size_bytes, 512);
    n->has_size = true;
    if (!ret && *n->backing && !*n->backing_fmt)
        ret = cli_fail("a backing file needs its format: -F raw or -F qcow2");
    if (!ret && *n->backing)
        ret = co_image_learn_backing(path, n);
    if (!ret)
        ret = co_image_make(path, n);
    free(n);
    return ret;
}

static int co_convert(struct conversion *v)
{
    const char *format = cli_str(v->args, "target-format");
    struct image_open into = {.format = *format ? format : "raw",
                              .cache = cli_str(v->args, "target-cache"),
                              .writable = true};
    int ret = take_snapshot(v, cli_str(v->args, "snapshot"));

    if (!ret)
        ret = co_open_inputs(v);
    if (!ret)
        ret = check_words(v);
    if (!ret && !cli_bool(v->args, "existing"))
        ret = co_make_target(v->target, v->args, v->total_bytes);
    if (ret)
        return ret;
    v->to = co_image_open(v->target, &into);
    if (!v->to)
        return CLI_FAILED;
    ret = co_convert_into(v);
    return co_image_finish(v->to) ? CLI_FAILED : ret;
}

/* As qemu-img bounds them. */
static bool numbers_ok(const json_t *args)
{
    if (json_object_get(args, "parallel") &&
        (cli_int(args, "parallel") < 1 || cli_int(args, "parallel") > 16))
        cli_fail("-m: 1 to 16 pieces may be under way at once");
    else if (json_object_get(args, "sparse") &&
             (cli_int(args, "sparse") % 512 || cli_int(args, "sparse") > 16 << 20))
        cli_fail("-S: a multiple of 512 bytes, up to 16M");
    else
        return true;
    return false;
}

int co_image_convert(json_t *args)
{
    const json_t *names = json_object_get(args, "filenames");
    struct conversion *v;
    int ret;

    if (json_array_size(names) < 2) {
        cli_fail("OUTPUT is missing");
        return CLI_USAGE;
    }
    if (!image_cache_modes(args) || !numbers_ok(args))
        return CLI_FAILED;
    v = calloc(1, sizeof(*v));
    if (!v)
        return cli_fail("out of memory");
    v->args = args;
    v->target = json_string_value(json_array_get(names, json_array_size(names) - 1));
    ret = co_convert(v);
    while (v->nr_from)
        co_chain_close(v->from[--v->nr_from]);
    free(v->from);
    free(v);
    return ret;
}

/* ---- commit ------------------------------------------------------------------------------- */

/* What a commit writes: the layers above the base, and the base with all below it, writable. */
struct commit {
    const json_t *args;
    unsigned nr_above; /* [0] = the lowest of them */
    struct chain_image **above;
    struct chain_image *base;
    bool drop;
    struct image_progress progress;
};

/* Index in @chain of the layer to write into; -1 (printed): none. */
static int find_base(const struct chain_image *chain, const char *base)
{
    char *path;
    int found = -1;

    if (chain->nr_layers < 2) {
        cli_fail("'%s' has no backing file", chain->layers[0].filename);
        return -1;
    }
    if (!*base)
        return (int)chain->nr_layers - 2;
    path = realpath(base, NULL);
    for (int i = 0; i <= (int)chain->nr_layers - 2 && found < 0; i++) {
        char *layer = realpath(chain->layers[i].filename, NULL);

        if (!strcmp(chain->layers[i].filename, base) || (path && layer && !strcmp(layer, path)))
            found = i;
        free(layer);
    }
    free(path);
    if (found < 0)
        cli_fail("'%s' is not below '%s'", base, chain->layers[chain->nr_layers - 1].filename);
    return found;
}

/* All that was open read-only is closed first: our own locks would be in the way. */
static int co_reopen(struct commit *c, const struct chain_image *names, unsigned base)
{
    const char *cache = cli_str(c->args, "target-cache");
    struct image_open how = {
        .format = names->layers[base].format, .cache = cache, .writable = true};

    c->base = co_image_open(names->layers[base].filename, &how);
    if (!c->base)
        return CLI_FAILED;
    c->above = calloc(names->nr_layers - base - 1, sizeof(*c->above));
    if (!c->above)
        return cli_fail("out of memory");
    for (unsigned i = base + 1; i < names->nr_layers; i++) {
        struct blk_node *below =
            c->nr_above ? image_top(c->above[c->nr_above - 1]) : image_top(c->base);

        how = (struct image_open){.format = names->layers[i].format,
                                  .cache = cache,
                                  .only_top = true,
                                  .writable = i == names->nr_layers - 1 && !c->drop};
        c->above[c->nr_above] = co_image_open(names->layers[i].filename, &how);
        if (!c->above[c->nr_above])
            return CLI_FAILED;
        blk_set_backing(image_top(c->above[c->nr_above++]), below);
    }
    return 0;
}

static int co_write_down(struct commit *c)
{
    struct blk_node *top = image_top(c->above[c->nr_above - 1]), *base = image_top(c->base);
    struct image_copy copy = {
        .from = top,
        .to = base,
        .bytes = top->size_bytes,
        .layers = c->nr_above,
        .parallel = DEFAULT_PARALLEL,
        .progress = &c->progress,
    };
    struct error err = ERROR_INIT;
    int ret = image_rate(c->args, &copy.rate);

    if (ret)
        return ret;
    if (base->size_bytes < top->size_bytes)
        ret = base->drv->co_resize(base, top->size_bytes, &err);
    if (!ret) {
        image_progress_start(&c->progress, c->args, copy.bytes);
        ret = co_image_copy(&copy, &err);
    }
    if (!ret)
        image_progress_end(&c->progress);
    if (!ret && (ret = co_blk_flush(base)))
        error_set(&err, -ret, "flushing '%s': %s", base->filename, strerror(-ret));
    if (!ret && !c->drop)
        ret = co_qcow2_make_empty(top, &err);
    return ret ? cli_fail("%s", err.msg) : 0;
}

static struct chain_image *copy_names(const struct chain_image *chain)
{
    struct chain_image *names = calloc(1, sizeof(*names));

    if (!names || !(names->layers = calloc(chain->nr_layers, sizeof(*names->layers)))) {
        free(names);
        return NULL;
    }
    for (; names->nr_layers < chain->nr_layers; names->nr_layers++) {
        struct chain_layer *l = &names->layers[names->nr_layers];

        l->filename = strdup(chain->layers[names->nr_layers].filename);
        memcpy(l->format, chain->layers[names->nr_layers].format, sizeof(l->format));
    }
    return names;
}

/* Top first, so that what is still in memory finds all below it open. */
static int co_commit_close(struct commit *c)
{
    int ret = 0;

    while (c->nr_above)
        ret |= co_image_finish(c->above[--c->nr_above]);
    if (c->base)
        ret |= co_image_finish(c->base);
    free(c->above);
    return ret;
}

int co_image_commit(json_t *args)
{
    struct image_open how = {.format = cli_str(args, "format")};
    struct commit c = {.args = args};
    struct chain_image *chain, *names;
    int base, ret;

    chain = image_cache_modes(args) ? co_image_open(cli_str(args, "filename"), &how) : NULL;
    if (!chain)
        return CLI_FAILED;
    base = find_base(chain, cli_str(args, "base"));
    names = base < 0 ? NULL : copy_names(chain);
    co_chain_close(chain);
    if (!names)
        return base < 0 ? CLI_FAILED : cli_fail("out of memory");
    c.drop = cli_bool(args, "drop") || base != (int)names->nr_layers - 2;
    ret = co_reopen(&c, names, (unsigned)base);
    if (!ret)
        ret = co_write_down(&c);
    if (co_commit_close(&c))
        ret = CLI_FAILED;
    co_chain_close(names);
    if (!ret && !cli_bool(args, "quiet"))
        puts("Image committed.");
    return ret ? CLI_FAILED : CLI_OK;
}

/* ---- rebase ------------------------------------------------------------------------------- */

struct rebase {
    struct blk_node *top, *old, *new; /* old, new: NULL for none */
    uint8_t *buf[2];
    struct image_progress progress;
    struct error err;
};

static int rebase_failed(struct rebase *r, int ret, const char *doing, uint64_t offset)
{
    return error_set(&r->err, -ret, "%s at offset %llu: %s", doing, (unsigned long long)offset,
                     strerror(-ret));
}

/* A piece that the overlay does not hold: kept in it, block by block, where the new backing reads
 * other than the old one. */
static int co_keep_old(struct rebase *r, uint64_t offset, uint64_t bytes)
{
    uint64_t block = MAX_OF(r->top->limits.subunit_bytes, 512u), n;
    int ret = co_image_read(r->old, offset, r->buf[0], bytes);

    if (!ret)
        ret = co_image_read(r->new, offset, r->buf[1], bytes);
    if (ret)
        return rebase_failed(r, ret, "reading what is below", offset);
    for (uint64_t at = 0; at < bytes && !ret; at += n) {
        n = MIN_OF(block - ((offset + at) & (block - 1)), bytes - at);
        if (!memcmp(r->buf[0] + at, r->buf[1] + at, n))
            continue;
        if (buf_is_zero(r->buf[0] + at, n))
            ret = co_blk_write_zeroes(r->top, offset + at, n, 0);
        else
            ret = co_blk_write(r->top, offset + at, r->buf[0] + at, n, 0);
    }
    return ret ? rebase_failed(r, ret, "writing", offset) : 0;
}

static int co_rebase_content(struct rebase *r)
{
    uint64_t size = r->top->size_bytes, offset = 0, n;
    struct blk_extent ext;
    int ret = 0;

    for (; offset < size && !ret; offset += n) {
        ret = co_blk_status(r->top, offset, size - offset, &ext);
        if (ret)
            return rebase_failed(r, ret, "asking the mapping", offset);
        n = ext.length_bytes;
        if (ext.state == BLK_ST_UNALLOCATED) {
            n = MIN_OF(n, REBASE_BYTES - (offset & (REBASE_BYTES - 1)));
            ret = co_keep_old(r, offset, n);
        }
        image_progress_add(&r->progress, n);
    }
    if (!ret && (ret = co_blk_flush(r->top)))
        rebase_failed(r, ret, "flushing", size);
    return ret;
}

/* Without a backing, "reads zeros anyway" must not be a reason to write nothing: the new backing
 * may have data there. So there is one, of zeros. */
static int co_rebase_safe(struct chain_image *chain, struct chain_image *below, const json_t *args)
{
    struct rebase r = {.top = image_top(chain), .err = ERROR_INIT};
    struct blk_node *zeros = NULL;
    int ret;

    r.old = r.top->backing.child;
    r.new = below ? image_top(below) : NULL;
    if (!r.old) {
        zeros = zero_node_new(r.top->size_bytes);
        if (!zeros)
            return cli_fail("out of memory");
        blk_set_backing(r.top, zeros);
    }
    r.buf[0] = aligned_alloc(4096, REBASE_BYTES);
    r.buf[1] = aligned_alloc(4096, REBASE_BYTES);
    image_progress_start(&r.progress, args, r.top->size_bytes);
    ret = r.buf[0] && r.buf[1] ? co_rebase_content(&r) : error_set(&r.err, ENOMEM, "out of memory");
    if (!ret)
        image_progress_end(&r.progress);
    free(r.buf[0]);
    free(r.buf[1]);
    if (zeros) {
        blk_set_backing(r.top, NULL);
        co_blk_node_unref(zeros);
    }
    return ret ? cli_fail("rebasing '%s': %s", r.top->filename, r.err.msg) : 0;
}

/* The chain of the new backing; NULL with *ret 0 where there is none. */
static struct chain_image *co_open_new_backing(const char *path, const json_t *args, int *ret)
{
    const char *backing = cli_str(args, "backing");
    struct image_open how = {.format = cli_str(args, "backing-format"),
                             .share = cli_bool(args, "force-share"),
                             .cache = cli_str(args, "cache")};
    char *file, format[16] = "";
    struct error err = ERROR_INIT;
    struct chain_image *chain = NULL;

    *ret = 0;
    if (!*backing)
        return NULL;
    file = malloc(PATH_MAX);
    if (!file || chain_resolve_backing(path, backing, file, PATH_MAX, format, sizeof(format), &err))
        cli_fail("%s", file ? err.msg : "out of memory");
    else
        chain = co_image_open(file, &how);
    free(file);
    *ret = chain ? 0 : CLI_FAILED;
    return chain;
}

static int co_rename_backing(struct blk_node *top, const json_t *args)
{
    const char *backing = cli_str(args, "backing"), *format = cli_str(args, "backing-format");
    struct error err = ERROR_INIT;

    if (!top->drv->co_change_backing)
        return cli_fail("'%s': its format keeps no backing file", top->filename);
    if (top->drv->co_change_backing(top, *backing ? backing : NULL, *format ? format : NULL, &err))
        return cli_fail("'%s': %s", top->filename, err.msg);
    return 0;
}

int co_image_rebase(json_t *args)
{
    const char *path = cli_str(args, "filename"), *backing = cli_str(args, "backing");
    bool unsafe = cli_bool(args, "unsafe");
    struct image_open how = {.format = cli_str(args, "format"),
                             .writable = true,
                             .only_top = unsafe,
                             .share = cli_bool(args, "force-share"),
                             .cache = cli_str(args, "target-cache")};
    struct chain_image *chain, *below;
    int ret = 0;

    if (!json_object_get(args, "backing"))
        return cli_fail("-b BACKING is missing (-b \"\" for none)");
    if (!image_cache_modes(args))
        return CLI_FAILED;
    if (*backing && !*cli_str(args, "backing-format"))
        return cli_fail("a backing file needs its format: -F raw or -F qcow2");
    below = unsafe ? NULL : co_open_new_backing(path, args, &ret);
    chain = ret ? NULL : co_image_open(path, &how); /* fails if it is in @below: locked there */
    if (!chain) {
        co_chain_close(below);
        return CLI_FAILED;
    }
    if (!image_top(chain)->drv->co_change_backing)
        ret = cli_fail("'%s': its format keeps no backing file", path);
    else if (!unsafe)
        ret = co_rebase_safe(chain, below, args);
    if (!ret)
        ret = co_rename_backing(image_top(chain), args);
    if (co_image_finish(chain))
        ret = CLI_FAILED;
    co_chain_close(below);
    return ret;
}
