/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Live changes of chains: QEMU's words (blockdev-snapshot-sync, transaction, block-commit,
 * block_resize, change-backing-file), and the shorter ones that people use by the tool.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "admin/chain-info.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "admin/live.h"
#include "admin/settings.h"
#include "util/size.h"

#define MAX_ACTIONS 256

static json_t *co_info_and_release(struct chain *c)
{
    json_t *info;

    c->claimed = NULL;
    info = co_chain_info(c);
    chain_put(c);
    return info;
}

static int check_absolute(const char *what, const char *path, struct error *err)
{
    if (*path == '/' && strlen(path) < PATH_MAX && path[strlen(path) - 1] != '/')
        return 0;
    return error_set(err, EINVAL, "%s: '%.200s' is no absolute path of a file", what, path);
}

static int check_node_name(const char *name, struct error *err)
{
    if (!name || (chain_name_ok(name) && strlen(name) < 32))
        return 0;
    return error_set(err, EINVAL, "Invalid node-name: '%.80s'", name);
}

/* QEMU's way to name a disk: by its own name, or by the node at its top. */
static struct chain *find_disk(struct daemon *d, const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device"), *node = arg_string(args, "node-name");
    struct error ignored = ERROR_INIT;
    struct chain *c = NULL;

    if (device)
        c = chain_lookup_device(d, device, &ignored);
    else if (node)
        c = chain_lookup_device(d, node, &ignored);
    if (!c)
        error_set(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", device ? device : "",
                  node ? node : "");
    else if (node && c->nr_layers && strcmp(chain_top(c)->node->name, node) &&
             strcmp(c->rec->name, node))
        error_set(err, EINVAL, "node '%s' is not the active layer of chain '%s'", node,
                  c->rec->name);
    else
        return c;
    return NULL;
}

/* ---- snapshots ---------------------------------------------------------------------------- */

static const char *const snapshot_formats[] = {"qcow2", NULL};
static const char *const image_modes[] = {"existing", "absolute-paths", NULL};

static const struct cmd_arg snapshot_sync_args[] = {
    {.name = "device", .type = ARG_STRING, .optional = true},
    {.name = "node-name", .type = ARG_STRING, .optional = true},
    {.name = "snapshot-file", .type = ARG_STRING},
    {.name = "snapshot-node-name", .type = ARG_STRING, .optional = true},
    {.name = "format", .type = ARG_STRING, .optional = true, .choices = snapshot_formats},
    {.name = "mode", .type = ARG_STRING, .optional = true, .choices = image_modes},
    {.name = NULL},
};

/* Claims the chain. */
static int order_from_args(struct daemon *d, const json_t *args, struct snapshot_order *o,
                           struct error *err)
{
    const char *mode = arg_string(args, "mode");

    o->file = arg_string(args, "snapshot-file");
    o->node_name = arg_string(args, "snapshot-node-name");
    if (mode && !strcmp(mode, "existing"))
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "mode 'existing': the new file is always made by us");
    if (check_absolute("snapshot-file", o->file, err) || check_node_name(o->node_name, err))
        return -err->errnum;
    o->c = find_disk(d, args, err);
    if (!o->c || chain_claim(o->c, "a snapshot is being made", err)) {
        o->c = NULL;
        return -err->errnum;
    }
    return 0;
}

static json_t *run_snapshot_sync(struct daemon *d, const json_t *args, struct error *err)
{
    struct snapshot_order o = {0};
    int ret = order_from_args(d, args, &o, err);

    if (ret)
        return NULL;
    ret = co_chains_snapshot(d, &o, 1, err);
    chain_release(o.c);
    return ret ? NULL : json_object();
}

static const struct cmd_arg chain_snapshot_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "into", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

static json_t *run_chain_snapshot(struct daemon *d, const json_t *args, struct error *err)
{
    struct snapshot_order o = {.file = arg_string(args, "into")};

    if (o.file && check_absolute("snapshot file", o.file, err))
        return NULL;
    o.c = chain_lookup(d, arg_string(args, "name"), err);
    if (!o.c || chain_claim(o.c, "a snapshot is being made", err))
        return NULL;
    if (co_chains_snapshot(d, &o, 1, err)) {
        chain_release(o.c);
        return NULL;
    }
    return co_info_and_release(o.c);
}

/* ---- transaction -------------------------------------------------------------------------- */

static const struct cmd_arg transaction_args[] = {
    {.name = "actions", .type = ARG_OBJECTS},
    {.name = "properties", .type = ARG_OBJECT, .optional = true},
    {.name = NULL},
};

static const struct cmd_arg action_args[] = {
    {.name = "type", .type = ARG_STRING},
    {.name = "data", .type = ARG_OBJECT},
    {.name = NULL},
};

static int order_from_action(struct daemon *d, const json_t *action, struct snapshot_order *o,
                             struct error *err)
{
    const char *type;

    if (args_check(action_args, action, err))
        return -err->errnum;
    type = arg_string(action, "type");
    if (strcmp(type, "blockdev-snapshot-sync"))
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "'%s' in a transaction is not supported by this version yet", type);
    action = json_object_get(action, "data");
    return args_check(snapshot_sync_args, action, err) ? -err->errnum
                                                       : order_from_args(d, action, o, err);
}

/* The only action there is needs no more than the default mode: none of them runs on its own. */
static int check_properties(const json_t *properties, struct error *err)
{
    const char *key, *mode = arg_string(properties, "completion-mode");
    json_t *value;

    json_object_foreach ((json_t *)properties, key, value) {
        if (strcmp(key, "completion-mode"))
            return error_set(err, EINVAL, "Parameter 'properties.%s' is unexpected", key);
    }
    if (properties && mode && strcmp(mode, "individual") && strcmp(mode, "grouped"))
        return error_set(err, EINVAL,
                         "Parameter 'completion-mode' does not accept value '%s', only individual, "
                         "grouped",
                         mode);
    return 0;
}

static json_t *run_transaction(struct daemon *d, const json_t *args, struct error *err)
{
    const json_t *actions = json_object_get(args, "actions"), *action;
    size_t n = json_array_size(actions), i;
    struct snapshot_order *orders;
    int ret = check_properties(json_object_get(args, "properties"), err);

    if (ret)
        return NULL;
    if (n > MAX_ACTIONS) {
        error_set(err, E2BIG, "more than %d actions in a transaction", MAX_ACTIONS);
        return NULL;
    }
    orders = calloc(n ? n : 1, sizeof(*orders));
    if (!orders) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    json_array_foreach (actions, i, action) {
        ret = order_from_action(d, action, &orders[i], err);
        if (ret)
            break;
    }
    if (!ret && n)
        ret = co_chains_snapshot(d, orders, (unsigned)n, err);
    for (i = 0; i < n; i++) {
        if (orders[i].c)
            chain_release(orders[i].c);
    }
    free(orders);
    return ret ? NULL : json_object();
}

/* ---- commit ------------------------------------------------------------------------------- */

static const struct cmd_arg block_commit_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "job-id", .type = ARG_STRING, .optional = true},
    {.name = "base-node", .type = ARG_STRING, .optional = true},
    {.name = "base", .type = ARG_STRING, .optional = true},
    {.name = "top-node", .type = ARG_STRING, .optional = true},
    {.name = "top", .type = ARG_STRING, .optional = true},
    {.name = "backing-file", .type = ARG_STRING, .optional = true},
    {.name = "speed", .type = ARG_SIZE, .optional = true},
    {.name = "on-error", .type = ARG_STRING, .optional = true, .choices = job_on_error_names},
    {.name = "auto-finalize", .type = ARG_BOOL, .optional = true},
    {.name = "auto-dismiss", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

/* By node name or, the older way, by file name; @otherwise if neither is given. */
static int layer_from_args(const struct chain *c, const json_t *args, const char *key,
                           const char *node_key, unsigned otherwise, struct error *err)
{
    const char *text = arg_string(args, key), *node = arg_string(args, node_key);

    if (text && node) {
        error_set(err, EINVAL, "'%s' and '%s' are mutually exclusive", node_key, key);
        return -1;
    }
    if (!text && !node)
        return (int)otherwise;
    return chain_find_layer(c, text ? text : node, err);
}

static int co_commit(struct chain *c, const json_t *args, unsigned default_base,
                     struct commit_order *o, struct error *err)
{
    int top, base, ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_COMMIT, err);
    if (ret)
        return ret;
    top = layer_from_args(c, args, "top", "top-node", c->nr_layers - 1, err);
    if (top < 0)
        return -err->errnum;
    if (default_base) /* the parent of top */
        default_base = top ? (unsigned)top - 1 : 0;
    base = layer_from_args(c, args, "base", "base-node", default_base, err);
    if (base < 0)
        return -err->errnum;
    if (top == base)
        return error_set(err, EINVAL,
                         c->nr_layers == 1 ? "'%s' has no layer below it to commit into"
                                           : "cannot commit an image into itself ('%s')",
                         c->layers[top].filename);
    if (base > top)
        return error_set(err, ENOENT, "Can't find '%s' in the backing chain",
                         c->layers[base].filename);
    if (o->backing_file && (unsigned)top == c->nr_layers - 1)
        return error_set(err, EINVAL, "'backing-file' specified, but 'top' is the active layer");
    o->top = (unsigned)top;
    o->base = (unsigned)base;
    return co_chain_commit(c, o, err);
}

static json_t *run_block_commit(struct daemon *d, const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device");
    struct error ignored = ERROR_INIT;
    struct chain *c = chain_lookup_device(d, device, &ignored);
    struct commit_order o = {
        .job_id = arg_string(args, "job-id"),
        .backing_file = arg_string(args, "backing-file"),
        .speed_bytes = arg_size(args, "speed", 0),
        .on_error = job_on_error_from(arg_string(args, "on-error"), JOB_ERR_REPORT),
        .auto_finalize = arg_bool(args, "auto-finalize", true),
        .auto_dismiss = arg_bool(args, "auto-dismiss", true),
    };
    int ret;

    if (!c) {
        error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT, "Device '%s' not found", device);
        return NULL;
    }
    if (chain_claim(c, "a commit is being started", err))
        return NULL;
    ret = co_commit(c, args, 0, &o, err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static const struct cmd_arg chain_commit_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "top", .type = ARG_STRING, .optional = true},
    {.name = "base", .type = ARG_STRING, .optional = true},
    {.name = "speed", .type = ARG_SIZE, .optional = true},
    {.name = "on-error", .type = ARG_STRING, .optional = true, .choices = job_on_error_names},
    {.name = NULL},
};

static json_t *run_chain_commit(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);
    struct commit_order o = {
        .speed_bytes = arg_size(args, "speed", 0),
        .on_error = job_on_error_from(arg_string(args, "on-error"), JOB_ERR_REPORT),
        .auto_finalize = true,
        .auto_dismiss = true,
        .auto_complete = true,
    };
    json_t *info;

    if (!c || chain_claim(c, "a commit is being started", err))
        return NULL;
    if (co_commit(c, args, 1, &o, err)) {
        chain_release(c);
        return NULL;
    }
    info = json_pack("{s:s}", "job", c->rec->name);
    chain_release(c);
    return info;
}

/* ---- resize, backing file ----------------------------------------------------------------- */

static const struct cmd_arg resize_args[] = {
    {.name = "device", .type = ARG_STRING, .optional = true},
    {.name = "node-name", .type = ARG_STRING, .optional = true},
    {.name = "size", .type = ARG_SIZE},
    {.name = "shrink", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static json_t *run_resize(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c = find_disk(d, args, err);
    int ret;

    if (!c || chain_claim(c, "it is being resized", err))
        return NULL;
    ret = co_chain_resize(c, arg_size(args, "size", 0), arg_bool(args, "shrink", false), err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static const struct cmd_arg change_backing_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "image-node-name", .type = ARG_STRING},
    {.name = "backing-file", .type = ARG_STRING},
    {.name = NULL},
};

static int layer_of_node(const struct chain *c, const char *node_name, struct error *err)
{
    for (unsigned i = 0; i < c->nr_layers; i++) {
        if (!strcmp(c->layers[i].node->name, node_name))
            return (int)i;
    }
    error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", node_name);
    return -1;
}

static json_t *run_change_backing(struct daemon *d, const json_t *args, struct error *err)
{
    struct error ignored = ERROR_INIT;
    const char *device = arg_string(args, "device");
    struct chain *c = chain_lookup_device(d, device, &ignored);
    int i, ret = -ENOENT;

    if (!c) {
        error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT, "Device '%s' not found", device);
        return NULL;
    }
    if (chain_claim(c, "a backing file is being renamed", err))
        return NULL;
    i = layer_of_node(c, arg_string(args, "image-node-name"), err);
    if (i >= 0)
        ret = co_chain_rename_backing(c, (unsigned)i, arg_string(args, "backing-file"), err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static const struct cmd_arg drop_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "layer", .type = ARG_STRING},
    {.name = NULL},
};

static json_t *run_drop_layer(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);

    if (!c || chain_claim(c, "a layer is being dropped", err))
        return NULL;
    if (co_chain_drop_layer(c, arg_string(args, "layer"), err)) {
        chain_release(c);
        return NULL;
    }
    return co_info_and_release(c);
}

static const char *const backing_formats[] = {"qcow2", "raw", NULL};

static const struct cmd_arg switch_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "file", .type = ARG_STRING},
    {.name = "layer", .type = ARG_STRING, .optional = true},
    {.name = "format", .type = ARG_STRING, .optional = true, .choices = backing_formats},
    {.name = NULL},
};

static int co_switch_backing(struct chain *c, const json_t *args, struct error *err)
{
    const char *layer = arg_string(args, "layer");
    int i, ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_SWITCH_BACKING, err);
    if (ret)
        return ret;
    i = layer ? chain_find_layer(c, layer, err) : (int)c->nr_layers - 1;
    return i < 0 ? -err->errnum
                 : co_chain_switch_backing(c, (unsigned)i, arg_string(args, "file"),
                                           arg_string(args, "format"), err);
}

static json_t *run_switch_backing(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c;

    if (check_absolute("file", arg_string(args, "file"), err))
        return NULL;
    c = chain_lookup(d, arg_string(args, "name"), err);
    if (!c || chain_claim(c, "a backing is being switched", err))
        return NULL;
    if (co_switch_backing(c, args, err)) {
        chain_release(c);
        return NULL;
    }
    return co_info_and_release(c);
}

/* ---- settings ----------------------------------------------------------------------------- */

static const struct cmd_arg chain_set_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "settings", .type = ARG_STRINGS},
    {.name = NULL},
};

static json_t *run_chain_set(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);

    if (!c || chain_claim(c, "its settings are being changed", err))
        return NULL;
    if (co_chain_settings_change(c, json_object_get(args, "settings"), err)) {
        chain_release(c);
        return NULL;
    }
    return co_info_and_release(c);
}

const struct command live_commands[] = {
    {"chain-snapshot", "new top layer over a disk in use", chain_snapshot_args, run_chain_snapshot},
    {"chain-commit", "merges layers of a disk in use into the one below", chain_commit_args,
     run_chain_commit},
    {"blockdev-snapshot-sync", "new top layer in a given file", snapshot_sync_args,
     run_snapshot_sync},
    {"transaction", "snapshots of several disks at one instant, all or none", transaction_args,
     run_transaction},
    {"chain-drop-layer", "takes a layer out of a chain in use that nothing above needs", drop_args,
     run_drop_layer},
    {"chain-switch-backing", "puts a layer in use over another backing that reads the same",
     switch_args, run_switch_backing},
    {"chain-set", "changes settings of a chain in use, and keeps them in its image", chain_set_args,
     run_chain_set},
    {"block-commit", "starts merging layers into one below", block_commit_args, run_block_commit},
    {"block_resize", "gives a disk in use another size", resize_args, run_resize},
    {"change-backing-file", "writes another name of its backing file into an image",
     change_backing_args, run_change_backing},
    {NULL, NULL, NULL, NULL},
};
