/* SPDX-License-Identifier: BSD-3-Clause */
/* block-stream, query-block, query-named-block-nodes: QEMU's words about nodes. */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/chain-info.h"
#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "admin/live.h"
#include "admin/pull.h"
#include "admin/settings.h"
#include "lun-backends/file.h"
#include "lun-backends/merged.h"
#include "lun-backends/qcow2.h"
#include "lun-backends/throttle.h"
#include "util/log.h"

/* ---- block-stream ------------------------------------------------------------------------ */

static const struct cmd_arg stream_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "job-id", .type = ARG_STRING, .optional = true},
    {.name = "base", .type = ARG_STRING, .optional = true},
    {.name = "base-node", .type = ARG_STRING, .optional = true},
    {.name = "bottom", .type = ARG_STRING, .optional = true},
    {.name = "backing-file", .type = ARG_STRING, .optional = true},
    {.name = "speed", .type = ARG_SIZE, .optional = true},
    {.name = "on-error", .type = ARG_STRING, .optional = true, .choices = job_on_error_names},
    {.name = "auto-finalize", .type = ARG_BOOL, .optional = true},
    {.name = "auto-dismiss", .type = ARG_BOOL, .optional = true},
    {.name = "throttle-group", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

/* The layer of @key; -1: not given. -2 with @err. */
static int layer_arg(const struct chain *c, const json_t *args, const char *key, struct error *err)
{
    const char *text = arg_string(args, key);
    int i = text ? chain_find_layer(c, text, err) : -1;

    return text && i < 0 ? -2 : i;
}

/* What stays below: base, base-node, or the layer below bottom. -1: nothing does. */
static int base_from_args(const struct chain *c, const json_t *args, int *base, struct error *err)
{
    int by_name = layer_arg(c, args, "base", err), by_node = layer_arg(c, args, "base-node", err);
    int bottom = layer_arg(c, args, "bottom", err);

    if (by_name == -2 || by_node == -2 || bottom == -2)
        return -err->errnum;
    if ((by_name >= 0) + (by_node >= 0) + (bottom >= 0) > 1)
        return error_set(err, EINVAL, "'base', 'base-node' and 'bottom' are mutually exclusive");
    *base = by_name >= 0 ? by_name : by_node;
    if (bottom >= 0)
        *base = bottom - 1;
    return 0;
}

static int co_begin_local_stream(struct chain *c, const json_t *args,
                                 const struct stream_opts *opts, struct error *err)
{
    const char *device = arg_string(args, "device");
    struct stream_order o = {
        .top = c->nr_layers - 1,
        .backing_file = arg_string(args, "backing-file"),
        .opts = *opts,
    };
    int top = 0;

    if (chain_check_served(c, err) || chain_check_op(c, CHAIN_OP_STREAM, err) ||
        base_from_args(c, args, &o.base, err))
        return -err->errnum;
    if (strcmp(device, c->rec->name))
        top = chain_find_layer(c, device, err);
    if (top < 0)
        return -err->errnum;
    if (strcmp(device, c->rec->name))
        o.top = (unsigned)top;
    if (o.backing_file && o.base < 0)
        return error_set(err, EINVAL, "'backing-file' specified, but nothing stays below '%s'",
                         device);
    return co_chain_stream(c, &o, err);
}

static int co_begin_pull_stream(struct chain *c, const json_t *args, struct stream_opts *opts,
                                struct error *err)
{
    static const char *const local_only[] = {"base-node", "bottom", "backing-file"};
    const char *base = arg_string(args, "base");

    for (size_t i = 0; i < sizeof(local_only) / sizeof(local_only[0]); i++) {
        if (json_object_get(args, local_only[i]))
            return error_set(err, EINVAL,
                             "chain '%s' streams from %s: there, '%s' means nothing. A base is "
                             "named by its layer at the source or its file here, with 'base'",
                             c->rec->name, c->rec->source_url, local_only[i]);
    }
    if (chain_check_op(c, CHAIN_OP_PULL_STREAM, err) || (base && co_pull_set_base(c, base, err)) ||
        co_chain_start_stream(c, opts, err))
        return -err->errnum;
    co_chain_prefetch_said(c, true);
    c->rec->stream = true;
    c->rec->stream_paused = false;
    c->rec->speed_bytes = opts->speed_bytes;
    if (record_set(&c->rec->stream_on_error, job_on_error_names[opts->on_error]))
        log_err("chain %s: out of memory: its stream's on-error is kept for now only",
                c->rec->name);
    co_state_save_or_log(c->d->state); /* it runs all the same */
    return 0;
}

/* The stream of before may have been in another one. */
int chain_set_stream_group(struct chain *c, const char *group, struct error *err)
{
    if (group && (!throttle_group_exists(group) || strlen(group) > CHAIN_NAME_MAX))
        return error_set(err, ENOENT,
                         "there is no throttle group '%s': a disk has to be in it (throttle set)",
                         group);
    return record_set(&c->rec->stream_group, group) ? error_set(err, ENOMEM, "out of memory") : 0;
}

static int co_begin_stream(struct chain *c, const json_t *args, struct error *err)
{
    struct stream_opts opts = {
        .job_id = arg_string(args, "job-id"),
        .speed_bytes = arg_size(args, "speed", 0),
        .on_error = job_on_error_from(arg_string(args, "on-error"), JOB_ERR_REPORT),
        .auto_finalize = arg_bool(args, "auto-finalize", true),
        .auto_dismiss = arg_bool(args, "auto-dismiss", true),
    };

    if (!chain_job(c) && /* else refused with its name soon */
        chain_set_stream_group(c, arg_string(args, "throttle-group"), err))
        return -err->errnum;
    return c->remote ? co_begin_pull_stream(c, args, &opts, err)
                     : co_begin_local_stream(c, args, &opts, err);
}

static json_t *run_stream(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c = chain_lookup_device(d, arg_string(args, "device"), err);
    int ret;

    if (!c || chain_claim(c, "a stream is being started", err))
        return NULL;
    ret = co_begin_stream(c, args, err);
    chain_release(c);
    return ret ? NULL : json_object();
}

/* ---- nodes --------------------------------------------------------------------------------- */

struct node_list {
    struct blk_node **nodes;
    size_t nr, max;
};

static bool count_node(struct blk_node *node, void *arg)
{
    struct node_list *l = arg;

    (void)node;
    l->max++;
    return true;
}

/* A node without references is being closed: it is nobody's any more. */
static bool take_node(struct blk_node *node, void *arg)
{
    struct node_list *l = arg;

    if (node->refs && l->nr < l->max)
        l->nodes[l->nr++] = blk_node_ref(node);
    return true;
}

static const char *node_filename(const struct blk_node *node)
{
    if (node->filename)
        return node->filename;
    return node->file.child ? node_filename(node->file.child) : "";
}

static bool is_direct(const struct blk_node *node)
{
    while (node->file.child)
        node = node->file.child;
    return !strcmp(node->drv->name, "file") && file_node_is_direct(node);
}

/* QMP's ImageInfoSpecificQCow2. */
static json_t *format_specific(const struct qcow2_info *info)
{
    json_t *data =
        json_pack("{s:s, s:b, s:i, s:s, s:b, s:b}", "compat", info->version < 3 ? "0.10" : "1.1",
                  "lazy-refcounts", info->lazy_refcounts, "refcount-bits", (int)info->refcount_bits,
                  "compression-type", info->zstd ? "zstd" : "zlib", "corrupt", info->corrupt,
                  "extended-l2", info->extended_l2);

    if (info->data_file) {
        json_put(data, "data-file", json_text(info->data_file));
        json_put(data, "data-file-raw", json_boolean(info->data_file_raw));
    }
    return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

/* QMP's ImageInfo. */
static json_t *co_image_info(struct blk_node *node)
{
    json_t *j =
        json_pack("{s:o, s:s, s:I, s:b}", "filename", json_text(node_filename(node)), "format",
                  node->drv->name, "virtual-size", (json_int_t)node->size_bytes, "dirty-flag", 0);
    int64_t allocated = co_layer_allocated(node);
    struct qcow2_info info;

    if (allocated >= 0)
        json_put(j, "actual-size", json_integer((json_int_t)allocated));
    if (node->limits.granularity_bytes)
        json_put(j, "cluster-size", json_integer(node->limits.granularity_bytes));
    if (strcmp(node->drv->name, "qcow2"))
        return j;
    qcow2_get_info(node, &info);
    if (info.backing) {
        json_put(j, "backing-filename", json_text(info.backing));
        if (info.backing_fmt)
            json_put(j, "backing-filename-format", json_text(info.backing_fmt));
    }
    json_put(j, "format-specific", format_specific(&info));
    return j;
}

static int backing_depth(const struct blk_node *node)
{
    int depth = 0;

    for (; node->backing.child; node = node->backing.child)
        depth++;
    return depth;
}

/* Of the metadata cache: what was found in it and what had to be read. */
static void put_cache_stats(json_t *cache, const struct blk_node *node)
{
    struct qcow2_stats st;

    qcow2_get_stats(node, &st);
    json_put(cache, "hits", json_integer((json_int_t)st.hits));
    json_put(cache, "misses", json_integer((json_int_t)st.misses));
    json_put(cache, "bytes", json_integer((json_int_t)st.cached_bytes));
    json_put(cache, "max-bytes", json_integer((json_int_t)st.cache_bytes));
}

/* Ours: the merged mapping of the sealed layers from this node down. */
static void put_merged_stats(json_t *j, const struct blk_node *node)
{
    struct merged_stats st;

    if (merged_get_stats(node, &st))
        json_put(j, "merged-map",
                 json_pack("{s:i, s:I, s:I, s:I, s:I}", "layers", (int)st.layers, "hits",
                           (json_int_t)st.hits, "misses", (json_int_t)st.misses, "bytes",
                           (json_int_t)st.bytes, "max-bytes", (json_int_t)st.max_bytes));
}

/* QMP's BlockDeviceInfo; the members about throttling say that there is none. */
static json_t *co_device_info(struct blk_node *node)
{
    json_t *j = json_pack("{s:o, s:s, s:b, s:s, s:i, s:b, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, "
                          "s:{s:b, s:b, s:b}}",
                          "file", json_text(node_filename(node)), "node-name", node->name, "ro",
                          node->read_only, "drv", node->drv->name, "backing_file_depth",
                          backing_depth(node), "encrypted", 0, "detect_zeroes", "off", "bps", 0,
                          "bps_rd", 0, "bps_wr", 0, "iops", 0, "iops_rd", 0, "iops_wr", 0,
                          "write_threshold", (json_int_t)node->write_threshold_bytes, "cache",
                          "writeback", 1, "direct", is_direct(node), "no-flush", 0);

    if (node->backing.child)
        json_put(j, "backing_file", json_text(node_filename(node->backing.child)));
    if (!strcmp(node->drv->name, "qcow2"))
        put_cache_stats(json_object_get(j, "cache"), node);
    put_merged_stats(j, node);
    json_put(j, "image", co_image_info(node));
    return j;
}

static json_t *run_query_nodes(struct daemon *d, const json_t *args, struct error *err)
{
    struct node_list l = {0};
    json_t *list = json_array();

    (void)d;
    (void)args;
    blk_for_each_node(count_node, &l);
    l.nodes = calloc(l.max ? l.max : 1, sizeof(*l.nodes));
    if (!l.nodes) {
        json_decref(list);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    blk_for_each_node(take_node, &l);
    for (size_t i = 0; i < l.nr; i++) {
        json_array_append_new(list, co_device_info(l.nodes[i]));
        blk_node_unref(l.nodes[i]);
    }
    free(l.nodes);
    return list;
}

static json_t *run_query_block(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();
    struct blk_node *node;
    struct chain *c;
    unsigned pos = 0;

    (void)args;
    (void)err;
    for (;; pos++) { /* the list may change while the disk is asked: count from its start */
        unsigned i = 0;
        bool found = false;
        json_t *j;

        list_for_each_entry (c, &d->chains, link) {
            if (i++ == pos) {
                found = true;
                break;
            }
        }
        if (!found)
            return list;
        j = json_pack("{s:s, s:s, s:b, s:b, s:s}", "device", c->rec->name, "type", "unknown",
                      "removable", 0, "locked", 0, "qdev", c->rec->target);
        json_array_append_new(list, j);
        if (!c->nr_layers)
            continue;
        node = blk_node_ref(chain_top(c)->node);
        json_put(j, "inserted", co_device_info(node));
        blk_node_unref(node);
    }
}

/* ---- write thresholds ------------------------------------------------------------------------ */

static const struct cmd_arg threshold_args[] = {
    {.name = "node-name", .type = ARG_STRING},
    {.name = "write-threshold", .type = ARG_SIZE},
    {.name = NULL},
};

/* A chain's name stands for the file of its top image: how far that is written is what grows. */
static json_t *run_set_threshold(struct daemon *d, const json_t *args, struct error *err)
{
    const char *name = arg_string(args, "node-name");
    struct chain *c = chain_find(d, name);
    struct blk_node *node = c && c->nr_layers ? chain_top(c)->node->file.child : NULL;

    if (!node)
        node = blk_node_find(name);
    if (!node) {
        error_set(err, ENOENT, "Device '%s' not found", name); /* GenericError, as QEMU */
        return NULL;
    }
    node->write_threshold_bytes = arg_size(args, "write-threshold", 0);
    return json_object();
}

static const struct cmd_arg nodes_args[] = {
    {.name = "flat", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

const struct command block_commands[] = {
    {"block-stream", "copies into an overlay what only its backing has", stream_args, run_stream},
    {"block-set-write-threshold",
     "an event, once, when a node is written behind an offset; 0: none", threshold_args,
     run_set_threshold},
    {"query-block", "the disks, each with its top node", NULL, run_query_block},
    {"query-named-block-nodes", "all nodes of the graph", nodes_args, run_query_nodes},
    {NULL, NULL, NULL, NULL},
};
