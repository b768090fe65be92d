/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blockdev-insert-filter, blockdev-remove-filter: filter nodes put into a chain in use and taken
 * out again, with the graph drained. They are of this process: after a restart they are gone.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <string.h>

#include "admin/commands.h"
#include "admin/live.h"
#include "lun-backends/formats.h"
#include "lun-backends/inject.h"
#include "target/lun.h"
#include "util/log.h"
#include "util/size.h"

/* ---- over the disk: copy-on-read ----------------------------------------------------------- */

static int co_insert_cor(struct chain *c, struct blk_node *node, struct error *err)
{
    struct blk_node *top = chain_top(c)->node, *filter;

    if (node != top || !chain_top(c)->writable)
        return error_set(err, EINVAL, "copy-on-read goes over the writable top of a chain");
    if (c->filter)
        return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY, "chain '%s' has a %s filter already",
                               c->rec->name, c->filter->drv->name);
    if (!top->backing.child)
        return error_set(err, EINVAL, "chain '%s' has nothing below its top to keep", c->rec->name);
    co_blk_drain_begin(top);
    filter = copy_on_read_new(top);
    if (filter) {
        copy_on_read_enable(filter, true);
        blk_head_set_root(lun_head(target_find_lun(c->target, 0)), filter);
        c->filter = filter;
    }
    blk_drain_end(top);
    return filter ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int co_remove_cor(struct chain *c, struct blk_node *node, struct error *err)
{
    struct blk_node *top = chain_top(c)->node, *filter = c->filter;

    if (node != top || !filter)
        return error_set(err, ENOENT, "there is no copy-on-read filter over '%s'", node->name);
    co_blk_drain_begin(top);
    c->filter = NULL;
    blk_replace_node(filter, top);
    blk_drain_end(top);
    co_blk_node_unref(filter);
    return 0;
}

/* ---- below an image: errors on purpose ------------------------------------------------------ */

static int co_insert_inject(struct chain *c, struct blk_node *node, struct error *err)
{
    struct blk_node *filter;

    if (inject_node_below(node))
        return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                               "'%s' of chain '%s' has an inject-error filter already", node->name,
                               c->rec->name);
    return co_inject_insert(node, &filter, err);
}

static int co_remove_inject(struct chain *c, struct blk_node *node, struct error *err)
{
    (void)c;
    if (!inject_node_below(node))
        return error_set(err, ENOENT, "there is no inject-error filter below '%s'", node->name);
    co_inject_remove(node);
    return 0;
}

/* ---- the commands --------------------------------------------------------------------------- */

static const char *const filter_names[] = {"copy-on-read", "inject-error", NULL};
static const struct {
    enum chain_op removal;
    int (*co_insert)(struct chain *c, struct blk_node *node, struct error *err);
    int (*co_remove)(struct chain *c, struct blk_node *node, struct error *err);
} filters[] = {
    {CHAIN_OP_REMOVE_COPY_ON_READ, co_insert_cor, co_remove_cor},
    {CHAIN_OP_REMOVE_INJECT, co_insert_inject, co_remove_inject},
};

static const struct cmd_arg filter_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "driver", .type = ARG_STRING, .choices = filter_names},
    {.name = NULL},
};

/* A chain's name means its top layer. */
static struct blk_node *layer_node(const struct chain *c, const char *device)
{
    for (unsigned i = 0; i < c->nr_layers; i++) {
        if (!strcmp(c->layers[i].node->name, device))
            return c->layers[i].node;
    }
    return chain_top(c)->node;
}

static json_t *co_run(struct daemon *d, const json_t *args, bool insert, struct error *err)
{
    const char *device = arg_string(args, "device"), *driver = arg_string(args, "driver");
    struct chain *c = chain_lookup_device(d, device, err);
    struct blk_node *node;
    unsigned i = 0;
    int ret;

    if (!c || chain_claim(c, "a filter is put in or taken out", err))
        return NULL;
    while (strcmp(filter_names[i], driver))
        i++;
    ret = chain_check_served(c, err);
    if (!ret)
        ret = chain_check_op(c, insert ? CHAIN_OP_INSERT_FILTER : filters[i].removal, err);
    if (!ret) {
        node = blk_node_ref(layer_node(c, device));
        ret = insert ? filters[i].co_insert(c, node, err) : filters[i].co_remove(c, node, err);
        co_blk_node_unref(node);
    }
    if (!ret)
        log_notice("chain %s: filter %s %s", c->rec->name, driver, insert ? "put in" : "taken out");
    chain_release(c);
    return ret ? NULL : json_object();
}

static json_t *run_insert(struct daemon *d, const json_t *args, struct error *err)
{
    return co_run(d, args, true, err);
}

static json_t *run_remove(struct daemon *d, const json_t *args, struct error *err)
{
    return co_run(d, args, false, err);
}

const struct command filter_commands[] = {
    {"blockdev-insert-filter", "puts a filter node into a chain in use", filter_args, run_insert},
    {"blockdev-remove-filter", "takes a filter node out of a chain in use", filter_args,
     run_remove},
    {NULL, NULL, NULL, NULL},
};
