/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The error-injecting filter. Every request is passed on as one of our own, so that the file's
 * size (formats ask for it) is right in the moment the request above completes, and so that the
 * node knows what is in flight: a format's background work is not part of a drain, and may still
 * be on its way here when the filter has been taken away.
 */
#define LOG_AREA "inject"
#include "lun-backends/inject.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/coroutine.h"
#include "util/log.h"
#include "util/size.h"

struct inject {
    struct blk_node node;
    struct inject_rule rules[INJECT_MAX_RULES];
    unsigned nr_rules;
    uint64_t hits;
    unsigned in_flight;
    struct co_queue idle; /* co_close, until nothing is */
};

/* A request on its way through a rule that delays. */
struct delayed {
    struct blk_req *req;
    struct inject_rule rule;
};

static struct inject *to_inject(struct blk_node *node)
{
    return container_of(node, struct inject, node);
}

/* ---- rules --------------------------------------------------------------------------- */

static bool fits(const struct inject_rule *r, const struct blk_req *req)
{
    bool is_meta = req->flags & BLK_META;

    if (!(r->verbs >> req->verb & 1))
        return false;
    if (req->verb == BLK_FLUSH)
        return true;
    if (r->part != INJECT_ANY && is_meta != (r->part == INJECT_METADATA))
        return false;
    return req->offset_bytes < r->end_bytes &&
           req->offset_bytes + req->length_bytes > r->start_bytes;
}

static void drop_rule(struct inject *in, unsigned i)
{
    in->nr_rules--;
    memmove(&in->rules[i], &in->rules[i + 1], (in->nr_rules - i) * sizeof(in->rules[0]));
}

/* The first rule that is hit, as a copy. */
static bool take_hit(struct inject *in, const struct blk_req *req, struct inject_rule *hit)
{
    for (unsigned i = 0; i < in->nr_rules; i++) {
        struct inject_rule *r = &in->rules[i];

        if (!fits(r, req))
            continue;
        if (r->skip) {
            r->skip--;
            continue;
        }
        *hit = *r;
        in->hits++;
        if (r->once)
            drop_rule(in, i);
        return true;
    }
    return false;
}

int inject_add_rule(struct blk_node *node, const struct inject_rule *rule, struct error *err)
{
    struct inject *in = to_inject(node);

    if (in->nr_rules == INJECT_MAX_RULES)
        return error_set(err, ENOBUFS, "'%s' has %u rules, that is all it takes", node->name,
                         INJECT_MAX_RULES);
    in->rules[in->nr_rules++] = *rule;
    return 0;
}

uint64_t inject_hits(const struct blk_node *node)
{
    return container_of(node, const struct inject, node)->hits;
}

/* ---- requests ------------------------------------------------------------------------ */

static void leave(struct inject *in, struct blk_req *req, int result)
{
    in->node.size_bytes = in->node.file.child->size_bytes;
    in->in_flight--;
    if (!in->in_flight)
        co_queue_wake_all(&in->idle);
    blk_complete(req, result);
}

static void passed(struct blk_req *child)
{
    struct blk_req *req = child->opaque;
    struct inject *in = req->scratch.ptr[0];
    int result = child->result;

    req->result_flags |= child->result_flags;
    req->extent = child->extent;
    blk_child_put(child);
    leave(in, req, result);
}

static void pass(struct inject *in, struct blk_req *req)
{
    blk_submit_copy(in->node.file.child, req, passed);
}

static void co_delayed(void *arg)
{
    struct delayed d = *(struct delayed *)arg;
    struct inject *in = d.req->scratch.ptr[0];

    free(arg);
    co_sleep(d.rule.delay_ns);
    if (d.rule.error)
        leave(in, d.req, -d.rule.error);
    else
        pass(in, d.req);
}

static void hit(struct inject *in, struct blk_req *req, const struct inject_rule *rule)
{
    struct delayed *d = rule->delay_ns ? malloc(sizeof(*d)) : NULL;

    if (rule->delay_ns && !d) {
        leave(in, req, -ENOMEM);
    } else if (d) {
        *d = (struct delayed){req, *rule};
        co_spawn(co_delayed, d);
    } else if (rule->error) {
        leave(in, req, -rule->error);
    } else {
        pass(in, req);
    }
}

static void inject_submit(struct blk_node *node, struct blk_req *req)
{
    struct inject *in = to_inject(node);
    struct inject_rule rule;

    in->in_flight++;
    req->scratch.ptr[0] = in;
    if (take_hit(in, req, &rule))
        hit(in, req, &rule);
    else
        pass(in, req);
}

/* ---- the node ------------------------------------------------------------------------ */

static void inject_close(struct blk_node *node)
{
    struct inject *in = to_inject(node);

    while (in->in_flight)
        co_queue_wait(&in->idle);
}

static int inject_inactivate(struct blk_node *node)
{
    struct blk_node *child = node->file.child;

    return child->drv->co_inactivate ? child->drv->co_inactivate(child) : co_blk_flush(child);
}

static int inject_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct blk_node *child = node->file.child;
    int ret;

    if (!child->drv->co_resize)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "'%s' can't be resized",
                               child->name);
    ret = child->drv->co_resize(child, size_bytes, err);
    node->size_bytes = child->size_bytes;
    return ret;
}

static int inject_reopen(struct blk_node *node, bool writable, struct error *err)
{
    int ret = co_blk_reopen(node->file.child, writable, err);

    if (!ret)
        node->read_only = !writable;
    return ret;
}

static const struct blk_driver inject_driver = {
    .name = "inject-error",
    .instance_bytes = sizeof(struct inject),
    .is_filter = true,
    .grows = true,
    .submit =
        {
            [BLK_READ] = inject_submit,
            [BLK_WRITE] = inject_submit,
            [BLK_WRITE_ZEROES] = inject_submit,
            [BLK_DISCARD] = inject_submit,
            [BLK_FLUSH] = inject_submit,
            [BLK_STATUS] = inject_submit,
        },
    .co_close = inject_close,
    .co_inactivate = inject_inactivate,
    .co_resize = inject_resize,
    .co_reopen = inject_reopen,
};

struct blk_node *inject_node_new(struct blk_node *child)
{
    struct blk_node *node = blk_node_new(&inject_driver, NULL);

    if (!node)
        return NULL;
    co_queue_init(&to_inject(node)->idle);
    node->size_bytes = child->size_bytes;
    node->limits = child->limits;
    node->read_only = child->read_only;
    blk_set_file(node, child);
    return node;
}

struct blk_node *inject_node_below(const struct blk_node *parent)
{
    struct blk_node *file = parent->file.child;

    return file && file->drv == &inject_driver ? file : NULL;
}

/*
 * The flush in the drain ends what a format writes in the background: a file that grew behind
 * the filter's back would look too short to the format.
 */
int co_inject_insert(struct blk_node *parent, struct blk_node **inject, struct error *err)
{
    int ret = 0;

    *inject = inject_node_below(parent);
    if (*inject)
        return 0;
    if (!parent->file.child)
        return error_set(err, EINVAL, "'%s' has no file below it", parent->name);
    co_blk_drain_begin(parent);
    if (!parent->read_only)
        ret = co_blk_flush(parent);
    if (ret) {
        error_set(err, -ret, "flushing '%s': %s", parent->name, strerror(-ret));
    } else if (!(*inject = inject_node_new(parent->file.child))) {
        ret = error_set(err, ENOMEM, "no memory for a filter below '%s'", parent->name);
    } else {
        blk_set_file(parent, *inject);
        blk_node_unref(*inject); /* the edge has its own */
        log_warn("%s: '%s' fails requests on purpose from now on", (*inject)->name, parent->name);
    }
    blk_drain_end(parent);
    return ret;
}

void co_inject_remove(struct blk_node *parent)
{
    if (!inject_node_below(parent))
        return;
    co_blk_drain_begin(parent);
    blk_set_file(parent, inject_node_below(parent)->file.child);
    blk_drain_end(parent);
}
