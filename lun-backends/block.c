/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Nodes and edges: allocation, references, closing.
 *
 * Each linked edge holds one reference on its child. A node whose last reference went is closed
 * in a coroutine, off the list of all nodes, and its edges are dropped after that; a chain of any
 * depth is closed without recursion.
 */
#define LOG_AREA "block"
#include "lun-backends/block.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/block-int.h"
#include "lun-backends/merged.h"
#include "util/coroutine.h"
#include "util/log.h"

static struct list_head all_nodes = LIST_HEAD_INIT(all_nodes);
static unsigned nr_closing;
static uint64_t next_number;

void block_edge_init(struct blk_edge *edge)
{
    edge->child = NULL;
    list_init(&edge->link);
}

void block_edge_link(struct blk_edge *edge, struct blk_node *child)
{
    edge->child = blk_node_ref(child);
    list_add_tail(&child->parents, &edge->link);
}

struct blk_node *block_edge_unlink(struct blk_edge *edge)
{
    struct blk_node *child = edge->child;

    list_del(&edge->link);
    edge->child = NULL;
    return child;
}

static char *make_name(void)
{
    char buf[32];

    do {
        snprintf(buf, sizeof(buf), "#block%03llu", (unsigned long long)next_number++);
    } while (blk_node_find(buf));
    return strdup(buf);
}

struct blk_node *blk_node_new(const struct blk_driver *drv, const char *name)
{
    struct blk_node *node;

    assert(drv->instance_bytes >= sizeof(*node));
    if (name && blk_node_find(name)) {
        log_err("a block node named '%s' exists already", name);
        return NULL;
    }
    node = calloc(1, drv->instance_bytes);
    if (!node)
        return NULL;
    node->name = name ? strdup(name) : make_name();
    if (!node->name) {
        free(node);
        return NULL;
    }
    node->drv = drv;
    node->refs = 1;
    node->limits.align_bytes = 1;
    list_init(&node->parents);
    list_init(&node->walk_link);
    block_edge_init(&node->file);
    block_edge_init(&node->backing);
    block_edge_init(&node->data);
    node->file.parent_node = node->backing.parent_node = node->data.parent_node = node;
    list_add_tail(&all_nodes, &node->all_link);
    return node;
}

struct blk_node *blk_node_ref(struct blk_node *node)
{
    assert(node->refs);
    node->refs++;
    return node;
}

/* True if that was the last reference: the node is on @dying then. */
static bool put_ref(struct blk_node *node, struct list_head *dying)
{
    assert(node->refs);
    if (--node->refs)
        return false;
    assert(list_empty(&node->parents));
    list_del(&node->all_link);
    list_add_tail(dying, &node->all_link);
    nr_closing++;
    return true;
}

static void drop_edge(struct blk_edge *edge, struct list_head *dying)
{
    if (edge->child)
        put_ref(block_edge_unlink(edge), dying);
}

static void co_close_all(struct list_head *dying)
{
    while (!list_empty(dying)) {
        struct blk_node *node = list_first_entry(dying, struct blk_node, all_link);

        list_del(&node->all_link);
        merged_forget(node);
        node->refs = 1; /* co_close may take references, and give them back */
        if (node->drv->co_close)
            node->drv->co_close(node);
        assert(node->refs == 1);
        drop_edge(&node->backing, dying);
        drop_edge(&node->data, dying);
        drop_edge(&node->file, dying);
        free(node->name);
        free(node->filename);
        free(node);
        nr_closing--;
    }
}

void co_blk_node_unref(struct blk_node *node)
{
    struct list_head dying = LIST_HEAD_INIT(dying);

    if (node && put_ref(node, &dying))
        co_close_all(&dying);
}

static void co_close_one(void *arg)
{
    struct blk_node *node = arg;
    struct list_head dying = LIST_HEAD_INIT(dying);

    list_add(&dying, &node->all_link);
    co_close_all(&dying);
}

void blk_node_unref(struct blk_node *node)
{
    struct list_head dying = LIST_HEAD_INIT(dying);

    if (!node || !put_ref(node, &dying))
        return;
    list_del(&node->all_link);
    co_spawn(co_close_one, node);
}

bool blk_closing(void)
{
    return nr_closing > 0;
}

static void set_edge(struct blk_edge *edge, struct blk_node *child)
{
    struct blk_node *old = edge->child ? block_edge_unlink(edge) : NULL;

    if (edge->parent_node)
        merged_forget(edge->parent_node);
    if (child)
        block_edge_link(edge, child);
    blk_node_unref(old);
}

void blk_set_file(struct blk_node *parent, struct blk_node *child)
{
    set_edge(&parent->file, child);
}

void blk_set_backing(struct blk_node *parent, struct blk_node *child)
{
    set_edge(&parent->backing, child);
}

void blk_set_data(struct blk_node *parent, struct blk_node *child)
{
    set_edge(&parent->data, child);
}

void blk_replace_node(struct blk_node *from, struct blk_node *to)
{
    struct blk_edge *edge, *tmp;

    blk_node_ref(from);
    list_for_each_entry_safe (edge, tmp, &from->parents, link) {
        if (edge->parent_node != to)
            set_edge(edge, to);
    }
    blk_node_unref(from);
}

struct blk_node *blk_node_find(const char *name)
{
    struct blk_node *node;

    list_for_each_entry (node, &all_nodes, all_link) {
        if (!strcmp(node->name, name))
            return node;
    }
    return NULL;
}

void blk_for_each_node(bool (*fn)(struct blk_node *, void *), void *arg)
{
    struct blk_node *node, *tmp;

    list_for_each_entry_safe (node, tmp, &all_nodes, all_link) {
        if (!fn(node, arg))
            return;
    }
}

int co_blk_reopen(struct blk_node *node, bool writable, struct error *err)
{
    const char *name = node->filename ? node->filename : node->name;
    int ret = 0;

    if (node->read_only == !writable)
        return 0;
    merged_forget(node);
    if (!node->drv->co_reopen)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s (%s) can't be opened anew",
                               name, node->drv->name);
    if (!writable)
        ret = node->drv->co_inactivate ? node->drv->co_inactivate(node) : co_blk_flush(node);
    if (ret)
        return error_set(err, -ret, "can't flush %s: %s", name, strerror(-ret));
    return node->drv->co_reopen(node, writable, err);
}

const char *blk_user_of(struct blk_node *node, const struct blk_node *except)
{
    struct blk_edge *edge;

    list_for_each_entry (edge, &node->parents, link) {
        if (edge->parent_head)
            return edge->parent_head->name;
        if (edge->parent_node != except)
            return edge->parent_node->name;
    }
    return NULL;
}

int blk_init(void)
{
    request_init();
    head_init();
    return 0;
}

void blk_fini(void)
{
    struct blk_node *node;

    list_for_each_entry (node, &all_nodes, all_link)
        log_warn("block node '%s' (%s) was still in use at exit", node->name, node->drv->name);
    request_fini();
}
