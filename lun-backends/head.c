/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Heads: where users enter the graph, and how a graph edit gets it quiet.
 *
 * A drain remembers the heads it stopped, not the path to them: it lets go of exactly those,
 * whatever the graph looks like by then. A head made below a drain starts drained.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/block-int.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"

static struct list_head all_sets = LIST_HEAD_INIT(all_sets);
static struct list_head all_watches = LIST_HEAD_INIT(all_watches);
static unsigned walk_gen;

/* ---- what is above a node ---------------------------------------------------------- */

static void set_add(struct head_set *set, struct blk_head *head)
{
    struct blk_head **heads = realloc(set->heads, (set->nr + 1) * sizeof(*heads));

    if (!heads) {
        log_err("no memory for the %u heads above '%s'", set->nr + 1, set->node->name);
        abort();
    }
    heads[set->nr++] = head;
    set->heads = heads;
}

static void walk_push(struct list_head *todo, struct blk_node *node)
{
    if (node->walk_gen == walk_gen)
        return;
    node->walk_gen = walk_gen;
    list_add_tail(todo, &node->walk_link);
}

/* Breadth first, marking nodes and heads with this walk's number; no recursion. */
static void set_fill(struct head_set *set)
{
    struct list_head todo = LIST_HEAD_INIT(todo);

    walk_gen++;
    walk_push(&todo, set->node);
    while (!list_empty(&todo)) {
        struct blk_node *node = list_first_entry(&todo, struct blk_node, walk_link);
        struct blk_edge *edge;

        list_del(&node->walk_link);
        list_for_each_entry (edge, &node->parents, link) {
            struct blk_head *head = edge->parent_head;

            if (!head) {
                walk_push(&todo, edge->parent_node);
            } else if (head->walk_gen != walk_gen) {
                head->walk_gen = walk_gen;
                set_add(set, head);
            }
        }
    }
}

struct head_set *head_set_new(struct blk_node *node)
{
    struct head_set *set = calloc(1, sizeof(*set));

    if (!set) {
        log_err("no memory to look at what is above '%s'", node->name);
        abort();
    }
    set->node = blk_node_ref(node);
    set_fill(set);
    list_add(&all_sets, &set->link);
    return set;
}

void head_set_free(struct head_set *set)
{
    list_del(&set->link);
    blk_node_unref(set->node);
    free(set->heads);
    free(set);
}

static bool is_below(struct blk_node *node, struct blk_head *head)
{
    struct head_set *set = head_set_new(node);
    bool found = false;

    for (unsigned i = 0; i < set->nr; i++)
        found |= set->heads[i] == head;
    head_set_free(set);
    return found;
}

void blk_node_notify(struct blk_node *node, enum blk_event ev)
{
    struct head_set *set = head_set_new(node);

    for (unsigned i = 0; i < set->nr; i++) {
        struct blk_head *head = set->heads[i];

        if (head && head->on_event)
            head->on_event(head, ev);
    }
    head_set_free(set);
}

/* ---- waiting ----------------------------------------------------------------------- */

struct head_waiter {
    struct list_head link;
    struct coroutine *co;
};

static void co_head_wait(struct blk_head *head)
{
    struct head_waiter w = {.co = co_self()};

    list_add_tail(&head->drain_waiters, &w.link);
    co_yield ();
}

static void head_wake(struct blk_head *head)
{
    while (!list_empty(&head->drain_waiters)) {
        struct head_waiter *w = list_first_entry(&head->drain_waiters, struct head_waiter, link);

        list_del(&w->link);
        co_wake(w->co);
    }
}

/* ---- heads ------------------------------------------------------------------------- */

void blk_head_init(struct blk_head *head, const char *name, struct blk_node *root, bool writable)
{
    struct head_set *set, *tmp;

    memset(head, 0, sizeof(*head));
    head->name = strdup(name);
    if (!head->name) {
        log_err("no memory for the name of '%s'", name);
        abort();
    }
    head->writable = writable;
    list_init(&head->queued);
    list_init(&head->drain_waiters);
    block_edge_init(&head->root);
    head->root.parent_head = head;
    block_edge_link(&head->root, root);
    list_for_each_entry_safe (set, tmp, &all_sets, link) {
        if (set->draining && is_below(set->node, head)) {
            set_add(set, head);
            head->drain_count++;
        }
    }
}

void co_blk_head_fini(struct blk_head *head)
{
    struct head_set *set;

    while (head->in_flight || !list_empty(&head->queued))
        co_head_wait(head);
    list_for_each_entry (set, &all_sets, link) {
        for (unsigned i = 0; i < set->nr; i++) {
            if (set->heads[i] == head)
                set->heads[i] = NULL;
        }
    }
    head_wake(head);
    free(head->name);
    head->name = NULL;
    co_blk_node_unref(block_edge_unlink(&head->root));
}

void blk_head_set_root(struct blk_head *head, struct blk_node *root)
{
    struct blk_node *old;

    assert(head->drain_count && !head->in_flight);
    old = block_edge_unlink(&head->root);
    block_edge_link(&head->root, root);
    blk_node_unref(old);
}

/* ---- watching ---------------------------------------------------------------------- */

void blk_watch_start(struct blk_watch *w)
{
    list_add_tail(&all_watches, &w->link);
}

void blk_watch_stop(struct blk_watch *w)
{
    list_del(&w->link);
}

static bool head_is_above(const struct blk_head *head, const struct blk_node *node)
{
    const struct blk_node *n = head->root.child;

    while (n && n != node)
        n = n->drv->is_filter ? n->file.child : n->backing.child;
    return n;
}

static void tell_begun(struct blk_head *head, struct blk_req *req)
{
    struct blk_watch *w;

    req->begun_ns = now_ns();
    list_for_each_entry (w, &all_watches, link) {
        if (head_is_above(head, w->below))
            w->begun(w, req);
    }
}

void head_tell_ended(struct blk_head *head, struct blk_req *req)
{
    uint64_t begun_ns = req->begun_ns;
    struct blk_watch *w;

    req->begun_ns = 0;
    list_for_each_entry (w, &all_watches, link) {
        if (head_is_above(head, w->below))
            w->ended(w, req, begun_ns);
    }
}

/* ---- requests ---------------------------------------------------------------------- */

void blk_head_submit_through(struct blk_head *head, struct blk_req *req)
{
    req->begun_ns = 0;
    if (head->drain_count) {
        list_add_tail(&head->queued, &req->link);
        return;
    }
    head->in_flight++;
    if (head->guest && !list_empty(&all_watches))
        tell_begun(head, req);
    if (!head->writable && verb_changes_data(req->verb))
        request_reject(head->root.child, req, head, -EROFS);
    else
        request_submit(head->root.child, req, head);
}

void blk_head_submit(struct blk_head *head, struct blk_req *req)
{
    if (!head->gate || head->gate->pass(head->gate, req))
        blk_head_submit_through(head, req);
}

void co_blk_head_enter(struct blk_head *head)
{
    while (head->drain_count)
        co_head_wait(head);
    head->in_flight++;
}

void blk_head_exit(struct blk_head *head)
{
    assert(head->in_flight);
    if (!--head->in_flight)
        head_wake(head);
}

/* ---- drain ------------------------------------------------------------------------- */

static struct blk_head *still_busy(const struct head_set *set)
{
    for (unsigned i = 0; i < set->nr; i++) {
        if (set->heads[i] && set->heads[i]->in_flight)
            return set->heads[i];
    }
    return NULL;
}

void co_blk_drain_begin(struct blk_node *node)
{
    struct head_set *set = head_set_new(node);
    struct blk_head *busy;

    set->draining = true;
    for (unsigned i = 0; i < set->nr; i++)
        set->heads[i]->drain_count++;
    while ((busy = still_busy(set)))
        co_head_wait(busy);
}

static void head_resume(struct blk_head *head)
{
    while (!head->drain_count && !list_empty(&head->queued)) {
        struct blk_req *req = list_first_entry(&head->queued, struct blk_req, link);

        list_del(&req->link);
        blk_head_submit_through(head, req);
    }
    head_wake(head);
}

void blk_drain_end(struct blk_node *node)
{
    struct head_set *set, *found = NULL;

    list_for_each_entry (set, &all_sets, link) {
        if (set->draining && set->node == node) {
            found = set;
            break;
        }
    }
    assert(found);
    found->draining = false;
    for (unsigned i = 0; i < found->nr; i++) {
        struct blk_head *head = found->heads[i];

        if (head && !--head->drain_count)
            head_resume(head);
    }
    head_set_free(found);
}

void head_init(void)
{
    assert(list_empty(&all_sets));
}
