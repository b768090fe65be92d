/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mirrors and backups: QEMU's words, and the shorter ones that people use by the tool. Where QEMU's
 * blockdev-* take the name of a node that was made before, ours take the file, which is there;
 * drive-* make it.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "admin/commands.h"
#include "admin/json-util.h"
#include "admin/live.h"
#include "lun-backends/replica.h"

static const char *const sync_names[] = {
    [COPY_FULL] = "full", [COPY_TOP] = "top", [COPY_NONE] = "none", NULL};
static const char *const formats[] = {"qcow2", "raw", NULL};
static const char *const modes[] = {"existing", "absolute-paths", NULL};
static const char *const copy_modes[] = {"background", "write-blocking", NULL};

#define QEMU_ARGS                                                                     \
    {.name = "device", .type = ARG_STRING},                                           \
        {.name = "job-id", .type = ARG_STRING, .optional = true},                     \
        {.name = "target", .type = ARG_STRING},                                       \
        {.name = "format", .type = ARG_STRING, .optional = true, .choices = formats}, \
        {.name = "sync", .type = ARG_STRING, .choices = sync_names},                  \
        {.name = "speed", .type = ARG_SIZE, .optional = true},                        \
        {.name = "on-source-error",                                                   \
         .type = ARG_STRING,                                                          \
         .optional = true,                                                            \
         .choices = job_on_error_names},                                              \
        {.name = "on-target-error",                                                   \
         .type = ARG_STRING,                                                          \
         .optional = true,                                                            \
         .choices = job_on_error_names},                                              \
        {.name = "auto-finalize", .type = ARG_BOOL, .optional = true},                \
    {                                                                                 \
        .name = "auto-dismiss", .type = ARG_BOOL, .optional = true                    \
    }
#define MIRROR_ARGS                                                                      \
    {.name = "granularity", .type = ARG_SIZE, .optional = true},                         \
        {.name = "buf-size", .type = ARG_SIZE, .optional = true},                        \
    {                                                                                    \
        .name = "copy-mode", .type = ARG_STRING, .optional = true, .choices = copy_modes \
    }
#define DRIVE_ARGS                                                             \
    {                                                                          \
        .name = "mode", .type = ARG_STRING, .optional = true, .choices = modes \
    }

static const struct cmd_arg blockdev_mirror_args[] = {QEMU_ARGS, MIRROR_ARGS, {.name = NULL}};
static const struct cmd_arg drive_mirror_args[] = {
    QEMU_ARGS,
    MIRROR_ARGS,
    DRIVE_ARGS,
    {.name = "node-name", .type = ARG_STRING, .optional = true},
    {.name = "unmap", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};
static const struct cmd_arg blockdev_backup_args[] = {QEMU_ARGS, {.name = NULL}};
static const struct cmd_arg drive_backup_args[] = {QEMU_ARGS, DRIVE_ARGS, {.name = NULL}};

static enum copy_sync sync_from(const char *name)
{
    for (int i = 0; name && sync_names[i]; i++) {
        if (!strcmp(sync_names[i], name))
            return (enum copy_sync)i;
    }
    return COPY_FULL;
}

static int check_target(const struct copy_order *o, struct error *err)
{
    const char *path = o->target.file;

    if (*path != '/' || strlen(path) >= PATH_MAX || path[strlen(path) - 1] == '/')
        return error_set(err, EINVAL, "target: '%.200s' is no absolute path of a file", path);
    if (o->target.node_name &&
        (!chain_name_ok(o->target.node_name) || strlen(o->target.node_name) >= 32))
        return error_set(err, EINVAL, "Invalid node-name: '%.80s'", o->target.node_name);
    return 0;
}

static int take_granularity(struct copy_order *o, const json_t *args, struct error *err)
{
    uint64_t bytes = arg_size(args, "granularity", 0);

    if (bytes && (bytes < REPLICA_MIN_GRANULARITY || bytes > REPLICA_MAX_GRANULARITY))
        return error_set(err, EINVAL,
                         "Parameter 'granularity' expects a value in range [512B, 64MB]");
    if (bytes & (bytes - 1))
        return error_set(err, EINVAL, "Parameter 'granularity' expects a power of 2");
    o->granularity_bytes = (uint32_t)bytes;
    return 0;
}

/* By the chain's name or the node at its top, as QEMU finds a root node. */
static struct chain *find_root(struct daemon *d, const char *device, struct error *err)
{
    struct error ignored = ERROR_INIT;
    struct chain *c = chain_lookup_device(d, device, &ignored);

    if (!c) {
        error_set(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", device, device);
        return NULL;
    }
    if (c->nr_layers && strcmp(c->rec->name, device) && strcmp(chain_top(c)->node->name, device)) {
        error_set(err, EINVAL, "Need a root block node: '%s' is a layer of chain '%s'", device,
                  c->rec->name);
        return NULL;
    }
    return c;
}

static json_t *co_copy(struct chain *c, const struct copy_order *o, struct error *err)
{
    int ret;

    if (chain_claim(c, o->backup ? "a backup is being started" : "a mirror is being started", err))
        return NULL;
    ret = co_chain_copy(c, o, err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static json_t *co_qemu_copy(struct daemon *d, const json_t *args, bool backup, bool drive,
                            struct error *err)
{
    const char *mode = arg_string(args, "mode"), *copy_mode = arg_string(args, "copy-mode");
    struct copy_order o = {
        .backup = backup,
        .sync = sync_from(arg_string(args, "sync")),
        .target = {.file = arg_string(args, "target"),
                   .format = arg_string(args, "format"),
                   .existing = !drive || (mode && !strcmp(mode, "existing")),
                   .node_name = arg_string(args, "node-name")},
        .job_id = arg_string(args, "job-id"),
        .speed_bytes = arg_size(args, "speed", 0),
        .buf_bytes = arg_size(args, "buf-size", 0),
        .on_source_error = job_on_error_from(arg_string(args, "on-source-error"), JOB_ERR_REPORT),
        .on_target_error = job_on_error_from(arg_string(args, "on-target-error"), JOB_ERR_REPORT),
        .keep_zeros = !arg_bool(args, "unmap", true),
        .write_blocking = copy_mode && !strcmp(copy_mode, "write-blocking"),
        .auto_finalize = arg_bool(args, "auto-finalize", true),
        .auto_dismiss = arg_bool(args, "auto-dismiss", true),
    };
    struct chain *c = find_root(d, arg_string(args, "device"), err);

    if (!c || check_target(&o, err) || take_granularity(&o, args, err))
        return NULL;
    return co_copy(c, &o, err);
}

static json_t *run_blockdev_mirror(struct daemon *d, const json_t *args, struct error *err)
{
    return co_qemu_copy(d, args, false, false, err);
}

static json_t *run_drive_mirror(struct daemon *d, const json_t *args, struct error *err)
{
    return co_qemu_copy(d, args, false, true, err);
}

static json_t *run_blockdev_backup(struct daemon *d, const json_t *args, struct error *err)
{
    return co_qemu_copy(d, args, true, false, err);
}

static json_t *run_drive_backup(struct daemon *d, const json_t *args, struct error *err)
{
    return co_qemu_copy(d, args, true, true, err);
}

/* ---- as people say it --------------------------------------------------------------------- */

#define CHAIN_ARGS                                                                              \
    {.name = "name", .type = ARG_STRING}, {.name = "to", .type = ARG_STRING},                   \
        {.name = "format", .type = ARG_STRING, .optional = true, .choices = formats},           \
        {.name = "sync", .type = ARG_STRING, .optional = true, .choices = sync_names},          \
        {.name = "existing", .type = ARG_BOOL, .optional = true},                               \
        {.name = "speed", .type = ARG_SIZE, .optional = true},                                  \
    {                                                                                           \
        .name = "on-error", .type = ARG_STRING, .optional = true, .choices = job_on_error_names \
    }

static const struct cmd_arg chain_mirror_args[] = {
    CHAIN_ARGS,
    {.name = "write-blocking", .type = ARG_BOOL, .optional = true},
    {.name = "switch", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};
static const struct cmd_arg chain_backup_args[] = {CHAIN_ARGS, {.name = NULL}};

static json_t *co_chain_words(struct daemon *d, const json_t *args, bool backup, struct error *err)
{
    enum job_on_error on_error = job_on_error_from(arg_string(args, "on-error"), JOB_ERR_REPORT);
    struct copy_order o = {
        .backup = backup,
        .sync = sync_from(arg_string(args, "sync")),
        .target = {.file = arg_string(args, "to"),
                   .format = arg_string(args, "format"),
                   .existing = arg_bool(args, "existing", false)},
        .speed_bytes = arg_size(args, "speed", 0),
        .on_source_error = on_error,
        .on_target_error = on_error,
        .write_blocking = arg_bool(args, "write-blocking", false),
        .auto_complete = arg_bool(args, "switch", false),
        .auto_finalize = true,
        .auto_dismiss = true,
    };
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);
    json_t *done;

    if (!c || check_target(&o, err))
        return NULL;
    done = co_copy(c, &o, err);
    if (done)
        json_put(done, "job", json_string(arg_string(args, "name")));
    return done;
}

static json_t *run_chain_mirror(struct daemon *d, const json_t *args, struct error *err)
{
    return co_chain_words(d, args, false, err);
}

static json_t *run_chain_backup(struct daemon *d, const json_t *args, struct error *err)
{
    return co_chain_words(d, args, true, err);
}

const struct command copy_commands[] = {
    {"chain-mirror", "copies a disk in use into a file that follows it", chain_mirror_args,
     run_chain_mirror},
    {"chain-backup", "copies a disk in use as it is now", chain_backup_args, run_chain_backup},
    {"drive-mirror", "starts copying a disk into a file that follows it", drive_mirror_args,
     run_drive_mirror},
    {"blockdev-mirror", "the same into a file that is there", blockdev_mirror_args,
     run_blockdev_mirror},
    {"drive-backup", "starts copying a disk as it is now into a file", drive_backup_args,
     run_drive_backup},
    {"blockdev-backup", "the same into a file that is there", blockdev_backup_args,
     run_blockdev_backup},
    {NULL, NULL, NULL, NULL},
};
