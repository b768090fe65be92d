/* SPDX-License-Identifier: BSD-3-Clause */
/* The request contract: who sees done() when, what the core refuses, drains, the backing's end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/block.h"
#include "lun-backends/formats.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/workers.h"

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(2);
    blk_init();
}

static void settle(void)
{
    for (int i = 0; i < 20; i++)
        loop_turn(false);
}

/* ---- a node that answers at once, or keeps requests until told --------------------- */

struct toy {
    struct blk_node node;
    bool keep;
    struct list_head kept;
    unsigned nr_submitted;
    char fill;
    uint64_t unallocated_from, unallocated_to; /* STATUS and READ: the backing's */
    bool *closed;
};

static struct toy *to_toy(struct blk_node *node)
{
    return (struct toy *)node;
}

static void toy_submit(struct blk_node *node, struct blk_req *req)
{
    struct toy *t = to_toy(node);

    t->nr_submitted++;
    if (t->keep) {
        list_add_tail(&t->kept, &req->scratch.link);
        return;
    }
    if (req->verb == BLK_READ && req->offset_bytes >= t->unallocated_from &&
        req->offset_bytes < t->unallocated_to) {
        blk_submit_backing(node, req);
        return;
    }
    for (int i = 0; req->verb == BLK_READ && i < req->niov; i++)
        memset(req->iov[i].iov_base, t->fill, req->iov[i].iov_len);
    blk_complete(req, 0);
}

static void toy_status(struct blk_node *node, struct blk_req *req)
{
    struct toy *t = to_toy(node);
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes;
    bool mine = pos < t->unallocated_from || pos >= t->unallocated_to;

    t->nr_submitted++;
    if (!mine && end > t->unallocated_to)
        end = t->unallocated_to;
    if (pos < t->unallocated_from && end > t->unallocated_from)
        end = t->unallocated_from;
    req->extent =
        (struct blk_extent){pos, end - pos, mine ? BLK_ST_DATA : BLK_ST_UNALLOCATED, 0, false};
    blk_complete(req, 0);
}

static void toy_close(struct blk_node *node)
{
    if (to_toy(node)->closed)
        *to_toy(node)->closed = true;
}

static const struct blk_driver toy_driver = {
    .name = "toy",
    .instance_bytes = sizeof(struct toy),
    .is_format = true,
    .submit = {[BLK_READ] = toy_submit, [BLK_WRITE] = toy_submit, [BLK_STATUS] = toy_status},
    .co_close = toy_close,
};

static void pass_submit(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

static const struct blk_driver pass_driver = {
    .name = "pass",
    .instance_bytes = sizeof(struct blk_node),
    .is_filter = true,
    .submit = {[BLK_READ] = pass_submit, [BLK_WRITE] = pass_submit, [BLK_STATUS] = pass_submit},
};

static struct toy *toy_new(uint64_t size, char fill)
{
    struct toy *t = to_toy(blk_node_new(&toy_driver, NULL));

    t->node.size_bytes = size;
    t->node.limits.align_bytes = 512;
    t->fill = fill;
    list_init(&t->kept);
    return t;
}

static struct blk_node *pass_new(struct blk_node *child)
{
    struct blk_node *n = blk_node_new(&pass_driver, NULL);

    n->size_bytes = child->size_bytes;
    blk_set_file(n, child);
    return n;
}

static void toy_release(struct toy *t)
{
    while (!list_empty(&t->kept)) {
        struct list_head *l = t->kept.next;

        list_del(l);
        blk_complete(container_of(l, struct blk_req, scratch.link), 0);
    }
}

/* ---- a request that remembers its end ------------------------------------------------ */

struct seen {
    struct blk_req req;
    struct iovec iov;
    char buf[4096];
    int nr_done;
};

static void seen_done(struct blk_req *req)
{
    ((struct seen *)req)->nr_done++;
}

static void prepare(struct seen *s, enum blk_verb verb, uint64_t offset, uint64_t bytes)
{
    memset(s, 0, sizeof(*s));
    s->req.verb = verb;
    s->req.offset_bytes = offset;
    s->req.length_bytes = bytes;
    s->iov = (struct iovec){s->buf, bytes};
    s->req.iov = &s->iov;
    s->req.niov = 1;
    s->req.done = seen_done;
}

static int run(struct blk_node *node, struct seen *s, enum blk_verb verb, uint64_t offset,
               uint64_t bytes)
{
    prepare(s, verb, offset, bytes);
    blk_submit(node, &s->req);
    settle();
    CHECK_EQ(s->nr_done, 1);
    return s->req.result;
}

/* ---- the contract --------------------------------------------------------------------- */

TEST(request, done_comes_after_submit_returned)
{
    struct toy *t = toy_new(4096, 'x');
    struct seen s;

    prepare(&s, BLK_READ, 0, 512);
    blk_submit(&t->node, &s.req);
    CHECK_EQ(s.nr_done, 0);
    settle();
    CHECK_EQ(s.nr_done, 1);
    CHECK_EQ(s.req.result, 0);
    CHECK_EQ(s.buf[511], 'x');
    blk_node_unref(&t->node);
}

TEST(request, bounds_alignment_and_verbs_are_checked)
{
    struct toy *t = toy_new(4096, 'x');
    struct seen s;

    CHECK_EQ(run(&t->node, &s, BLK_READ, 4096, 512), -EINVAL);
    CHECK_EQ(run(&t->node, &s, BLK_READ, 3584, 1024), -EINVAL);
    CHECK_EQ(run(&t->node, &s, BLK_READ, UINT64_MAX - 511, 512), -EINVAL);
    CHECK_EQ(run(&t->node, &s, BLK_READ, 1, 512), -EINVAL);
    CHECK_EQ(run(&t->node, &s, BLK_READ, 0, 100), -EINVAL);
    CHECK_EQ(run(&t->node, &s, BLK_DISCARD, 0, 512), -ENOTSUP);
    CHECK_EQ(run(&t->node, &s, (enum blk_verb)99, 0, 512), -EINVAL);
    CHECK_EQ(t->nr_submitted, 0);
    CHECK_EQ(run(&t->node, &s, BLK_READ, 3584, 512), 0);
    blk_node_unref(&t->node);
}

TEST(request, empty_ones_succeed_without_the_driver)
{
    struct toy *t = toy_new(4096, 'x');
    struct seen s;

    CHECK_EQ(run(&t->node, &s, BLK_READ, 4096, 0), 0);
    CHECK_EQ(t->nr_submitted, 0);
    blk_node_unref(&t->node);
}

TEST(request, read_only_nodes_and_heads_refuse_changes)
{
    struct toy *t = toy_new(4096, 'x');
    struct blk_head head;
    struct seen s;

    blk_head_init(&head, "reader", &t->node, false);
    prepare(&s, BLK_WRITE, 0, 512);
    blk_head_submit(&head, &s.req);
    CHECK_EQ(s.nr_done, 0);
    settle();
    CHECK_EQ(s.nr_done, 1);
    CHECK_EQ(s.req.result, -EROFS);
    CHECK_EQ(head.in_flight, 0);
    t->node.read_only = true;
    CHECK_EQ(run(&t->node, &s, BLK_WRITE, 0, 512), -EROFS);
    co_spawn((void (*)(void *))co_blk_head_fini, &head);
    blk_node_unref(&t->node);
}

TEST(request, filter_chain_of_any_depth_is_passed)
{
    struct toy *t = toy_new(4096, 'd');
    struct blk_node *n = &t->node;
    struct seen s;

    for (int i = 0; i < 5000; i++) {
        struct blk_node *up = pass_new(n);

        blk_node_unref(n);
        n = up;
    }
    prepare(&s, BLK_READ, 0, 512);
    blk_submit(n, &s.req);
    while (!s.nr_done)
        loop_turn(false);
    CHECK_EQ(s.req.result, 0);
    CHECK_EQ(s.buf[0], 'd');
    blk_node_unref(n);
    CHECK(!blk_closing());
}

TEST(request, child_requests_come_clean)
{
    struct blk_req *r = blk_child_get(), *again;

    r->result_flags = 5;
    blk_child_put(r);
    again = blk_child_get();
    CHECK(again == r);
    CHECK_EQ(again->result_flags, 0);
    blk_child_put(again);
}

/* ---- backing --------------------------------------------------------------------------- */

TEST(backing, read_is_clipped_at_its_end)
{
    struct toy *base = toy_new(1024, 'b'), *top = toy_new(4096, 't');
    struct seen s;

    top->unallocated_to = 4096;
    blk_set_backing(&top->node, &base->node);
    CHECK_EQ(run(&top->node, &s, BLK_READ, 512, 1024), 0);
    CHECK(s.buf[0] == 'b' && s.buf[511] == 'b' && s.buf[512] == 0 && s.buf[1023] == 0);
    CHECK_EQ(s.req.result_flags, BLK_R_FROM_BACKING);
    CHECK_EQ(run(&top->node, &s, BLK_READ, 0, 1024), 0);
    CHECK(s.buf[0] == 'b' && s.buf[1023] == 'b');
    s.buf[0] = 1;
    CHECK_EQ(run(&top->node, &s, BLK_READ, 1024, 512), 0);
    CHECK(s.buf[0] == 0);
    CHECK_EQ(s.req.result_flags, 0);
    blk_node_unref(&base->node);
    blk_node_unref(&top->node);
}

TEST(backing, coarser_alignment_below_is_bounced)
{
    struct toy *base = toy_new(8192, 'b'), *top = toy_new(16384, 't');
    struct seen s;

    base->node.limits.align_bytes = 4096;
    top->unallocated_to = 16384;
    blk_set_backing(&top->node, &base->node);
    CHECK_EQ(run(&top->node, &s, BLK_READ, 7680, 1024), 0);
    CHECK(s.buf[0] == 'b' && s.buf[511] == 'b' && s.buf[512] == 0 && s.buf[1023] == 0);
    blk_node_unref(&base->node);
    blk_node_unref(&top->node);
}

TEST(backing, none_or_local_only_reads_zeros)
{
    struct toy *base = toy_new(4096, 'b'), *top = toy_new(4096, 't');
    struct seen s;

    top->unallocated_to = 4096;
    CHECK_EQ(run(&top->node, &s, BLK_READ, 0, 512), 0);
    CHECK(s.buf[0] == 0 && !s.req.result_flags);
    blk_set_backing(&top->node, &base->node);
    prepare(&s, BLK_READ, 0, 512);
    s.req.flags = BLK_LOCAL_ONLY;
    blk_submit(&top->node, &s.req);
    settle();
    CHECK(s.buf[0] == 0 && !s.req.result_flags);
    blk_node_unref(&base->node);
    blk_node_unref(&top->node);
}

/* ---- drains ------------------------------------------------------------------------------ */

struct drain {
    struct blk_node *node;
    bool begun;
};

static void co_begin(void *arg)
{
    struct drain *d = arg;

    co_blk_drain_begin(d->node);
    d->begun = true;
}

static void co_fini(void *arg)
{
    co_blk_head_fini(arg);
}

TEST(drain, waits_for_requests_and_holds_new_ones)
{
    struct toy *t = toy_new(4096, 'x');
    struct blk_node *filter = pass_new(&t->node);
    struct drain d = {.node = &t->node};
    struct blk_head above, direct;
    struct seen a, b, later;

    blk_head_init(&above, "above", filter, true);
    blk_head_init(&direct, "direct", &t->node, true);
    t->keep = true;
    prepare(&a, BLK_READ, 0, 512);
    prepare(&b, BLK_WRITE, 0, 512);
    prepare(&later, BLK_READ, 0, 512);
    blk_head_submit(&above, &a.req);
    blk_head_submit(&direct, &b.req);
    co_spawn(co_begin, &d);
    settle();
    CHECK(!d.begun);
    blk_head_submit(&above, &later.req);
    settle();
    CHECK_EQ(t->nr_submitted, 2);
    toy_release(t);
    settle();
    CHECK(d.begun);
    CHECK_EQ(a.nr_done + b.nr_done, 2);
    CHECK_EQ(later.nr_done, 0);
    t->keep = false;
    blk_drain_end(&t->node);
    settle();
    CHECK_EQ(later.nr_done, 1);
    co_spawn(co_fini, &above);
    co_spawn(co_fini, &direct);
    blk_node_unref(filter);
    blk_node_unref(&t->node);
    CHECK(!blk_closing());
}

TEST(drain, ends_although_the_graph_has_changed)
{
    struct toy *base = toy_new(4096, 'b'), *top = toy_new(4096, 't');
    struct drain d = {.node = &base->node};
    struct blk_head head;
    bool closed = false;
    struct seen s;

    base->closed = &closed;
    blk_set_backing(&top->node, &base->node);
    blk_node_unref(&base->node);
    blk_head_init(&head, "head", &top->node, true);
    co_spawn(co_begin, &d);
    CHECK(d.begun);
    blk_set_backing(&top->node, NULL);
    CHECK(!closed); /* the drain holds it */
    prepare(&s, BLK_READ, 0, 512);
    blk_head_submit(&head, &s.req);
    settle();
    CHECK_EQ(s.nr_done, 0);
    blk_drain_end(d.node);
    settle();
    CHECK_EQ(s.nr_done, 1);
    CHECK(closed);
    co_spawn(co_fini, &head);
    blk_node_unref(&top->node);
}

TEST(drain, nests)
{
    struct toy *t = toy_new(4096, 'x');
    struct drain one = {.node = &t->node}, two = {.node = &t->node};
    struct blk_head head;
    struct seen s;

    blk_head_init(&head, "head", &t->node, true);
    co_spawn(co_begin, &one);
    co_spawn(co_begin, &two);
    prepare(&s, BLK_READ, 0, 512);
    blk_head_submit(&head, &s.req);
    blk_drain_end(&t->node);
    settle();
    CHECK_EQ(s.nr_done, 0);
    blk_drain_end(&t->node);
    settle();
    CHECK_EQ(s.nr_done, 1);
    co_spawn(co_fini, &head);
    blk_node_unref(&t->node);
}

TEST(drain, a_head_made_meanwhile_starts_drained)
{
    struct toy *t = toy_new(4096, 'x');
    struct blk_node *filter = pass_new(&t->node);
    struct drain d = {.node = &t->node};
    struct blk_head head;
    struct seen s;

    co_spawn(co_begin, &d);
    blk_head_init(&head, "late", filter, true);
    prepare(&s, BLK_READ, 0, 512);
    blk_head_submit(&head, &s.req);
    settle();
    CHECK_EQ(s.nr_done, 0);
    blk_drain_end(&t->node);
    settle();
    CHECK_EQ(s.nr_done, 1);
    co_spawn(co_fini, &head);
    blk_node_unref(filter);
    blk_node_unref(&t->node);
}

static void co_enter_head(void *arg)
{
    struct drain *d = arg;

    co_blk_head_enter((struct blk_head *)d->node);
    d->begun = true;
}

TEST(drain, entered_heads_count_as_busy)
{
    struct toy *t = toy_new(4096, 'x');
    struct drain d = {.node = &t->node};
    struct blk_head head;
    struct drain e = {.node = (struct blk_node *)&head};

    blk_head_init(&head, "head", &t->node, true);
    co_spawn(co_enter_head, &e);
    CHECK(e.begun);
    co_spawn(co_begin, &d);
    settle();
    CHECK(!d.begun);
    e.begun = false;
    co_spawn(co_enter_head, &e);
    blk_head_exit(&head);
    settle();
    CHECK(d.begun && !e.begun);
    blk_drain_end(&t->node);
    settle();
    CHECK(e.begun);
    blk_head_exit(&head);
    co_spawn(co_fini, &head);
    blk_node_unref(&t->node);
}

/* ---- graph --------------------------------------------------------------------------------- */

static int nr_events;

static void on_event(struct blk_head *head, enum blk_event ev)
{
    (void)head;
    nr_events += ev == BLK_EV_SOURCE_UP;
}

TEST(graph, notify_reaches_each_head_once)
{
    struct toy *base = toy_new(4096, 'b'), *top = toy_new(4096, 't');
    struct blk_node *filter = pass_new(&top->node);
    struct blk_head heads[3];

    blk_set_backing(&top->node, &base->node);
    blk_head_init(&heads[0], "0", filter, true);
    blk_head_init(&heads[1], "1", &top->node, false);
    blk_head_init(&heads[2], "2", &base->node, false);
    for (int i = 0; i < 3; i++)
        heads[i].on_event = on_event;
    nr_events = 0;
    blk_node_notify(&base->node, BLK_EV_SOURCE_UP);
    CHECK_EQ(nr_events, 3);
    blk_node_notify(filter, BLK_EV_SOURCE_UP);
    CHECK_EQ(nr_events, 4);
    for (int i = 0; i < 3; i++)
        co_spawn(co_fini, &heads[i]);
    blk_node_unref(filter);
    blk_node_unref(&top->node);
    blk_node_unref(&base->node);
}

TEST(graph, replace_puts_a_filter_between)
{
    struct toy *t = toy_new(4096, 'x'), *over = toy_new(4096, 'o');
    struct blk_head head;
    struct blk_node *filter;

    blk_head_init(&head, "head", &t->node, true);
    blk_set_backing(&over->node, &t->node);
    filter = pass_new(&t->node);
    blk_replace_node(&t->node, filter);
    CHECK(blk_head_node(&head) == filter);
    CHECK(over->node.backing.child == filter);
    CHECK(filter->file.child == &t->node);
    CHECK_STR(blk_user_of(&t->node, NULL), filter->name);
    CHECK(!blk_user_of(&t->node, filter));
    CHECK_STR(blk_user_of(filter, NULL), "head");
    blk_replace_node(filter, &t->node);
    CHECK(blk_head_node(&head) == &t->node);
    co_spawn(co_fini, &head);
    blk_node_unref(filter);
    blk_node_unref(&over->node);
    blk_node_unref(&t->node);
}

TEST(graph, names_are_unique)
{
    struct blk_node *a = blk_node_new(&pass_driver, "mine"), *b;

    CHECK(blk_node_find("mine") == a);
    CHECK(!blk_node_new(&pass_driver, "mine"));
    blk_node_unref(a);
    CHECK(!blk_node_find("mine"));
    b = blk_node_new(&pass_driver, "mine");
    CHECK(b);
    blk_node_unref(b);
}

/* ---- status ---------------------------------------------------------------------------------- */

struct walk {
    struct blk_node *node;
    uint64_t offset, bytes;
    unsigned deepest;
    struct blk_extent ext[8];
    unsigned max;
    int n;
    bool done;
};

static void co_walk(void *arg)
{
    struct walk *w = arg;

    w->n = co_blk_status_walk(w->node, w->offset, w->bytes, w->deepest, w->ext, w->max);
    w->done = true;
}

static void walk(struct walk *w)
{
    w->done = false;
    co_spawn(co_walk, w);
    while (!w->done)
        loop_turn(false);
}

static void check_extent(const struct blk_extent *e, uint64_t offset, uint64_t bytes,
                         enum blk_state state, unsigned depth)
{
    CHECK_EQ(e->offset_bytes, offset);
    CHECK_EQ(e->length_bytes, bytes);
    CHECK_EQ(e->state, state);
    CHECK_EQ(e->depth, depth);
}

/* base 1024 | mid 4096, unallocated 0..2048 | top 8192, unallocated 512..8192, under a filter */
TEST(status_walk, composes_layers_and_ends)
{
    struct toy *base = toy_new(1024, 'b'), *mid = toy_new(4096, 'm'), *top = toy_new(8192, 't');
    struct blk_node *filter;
    struct walk w = {.bytes = 8192, .max = 8};

    mid->unallocated_to = 2048;
    top->unallocated_from = 512;
    top->unallocated_to = 8192;
    base->unallocated_to = 512;
    blk_set_backing(&mid->node, &base->node);
    blk_set_backing(&top->node, &mid->node);
    filter = pass_new(&top->node);
    w.node = filter;
    walk(&w);
    CHECK_EQ(w.n, 5);
    check_extent(&w.ext[0], 0, 512, BLK_ST_DATA, 0);
    check_extent(&w.ext[1], 512, 512, BLK_ST_DATA, 2);
    check_extent(&w.ext[2], 1024, 1024, BLK_ST_ZERO, 1);
    check_extent(&w.ext[3], 2048, 2048, BLK_ST_DATA, 1);
    check_extent(&w.ext[4], 4096, 4096, BLK_ST_ZERO, 0);
    w.max = 2;
    w.offset = 600;
    w.bytes = 1000;
    walk(&w);
    CHECK_EQ(w.n, 2);
    check_extent(&w.ext[0], 600, 424, BLK_ST_DATA, 2);
    check_extent(&w.ext[1], 1024, 576, BLK_ST_ZERO, 1);
    w.deepest = 1;
    walk(&w);
    CHECK_EQ(w.n, 1);
    check_extent(&w.ext[0], 600, 1000, BLK_ST_UNALLOCATED, 0xffff);
    w.node = &base->node;
    w.offset = 0;
    w.bytes = 1024;
    walk(&w);
    check_extent(&w.ext[0], 0, 512, BLK_ST_UNALLOCATED, 0xffff);
    w.bytes = 2048;
    walk(&w);
    CHECK_EQ(w.n, -EINVAL);
    blk_node_unref(filter);
    blk_node_unref(&top->node);
    blk_node_unref(&mid->node);
    blk_node_unref(&base->node);
    CHECK(!blk_closing());
}

TEST(zero_node, reads_zeros_and_says_so)
{
    struct blk_node *z = zero_node_new(1ull << 40);
    struct seen s;

    s.buf[0] = 1;
    CHECK_EQ(run(z, &s, BLK_READ, 1ull << 39, 512), 0);
    CHECK_EQ(s.buf[0], 0);
    CHECK_EQ(run(z, &s, BLK_STATUS, 0, 1ull << 40), 0);
    CHECK_EQ(s.req.extent.state, BLK_ST_ZERO);
    CHECK_EQ(run(z, &s, BLK_WRITE, 0, 512), -EROFS);
    blk_node_unref(z);
}

TEST(views, delta_reads_only_its_own)
{
    struct toy *base = toy_new(4096, 'b'), *top = toy_new(4096, 't');
    struct blk_node *delta;
    struct seen s;

    top->unallocated_to = 512;
    blk_set_backing(&top->node, &base->node);
    delta = delta_view_new(&top->node);
    CHECK_EQ(run(delta, &s, BLK_READ, 0, 512), 0);
    CHECK_EQ(s.buf[0], 0);
    CHECK_EQ(run(delta, &s, BLK_READ, 512, 512), 0);
    CHECK_EQ(s.buf[0], 't');
    CHECK_EQ(run(delta, &s, BLK_STATUS, 0, 4096), 0);
    CHECK_EQ(s.req.extent.state, BLK_ST_UNALLOCATED);
    CHECK_EQ(s.req.extent.length_bytes, 512);
    CHECK_EQ(run(delta, &s, BLK_WRITE, 0, 512), -EROFS);
    blk_node_unref(delta);
    blk_node_unref(&top->node);
    blk_node_unref(&base->node);
}
