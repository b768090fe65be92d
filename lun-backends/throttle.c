/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Throttle groups. Invariant: while anybody waits in a direction, that direction's timer runs,
 * and who comes later waits behind; each time the limits let a request go, it is that of the next
 * member that has one.
 */
#define LOG_AREA "throttle"
#include "lun-backends/throttle.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

struct group {
    struct list_head link; /* all groups */
    char *name;
    struct throttle_state state;
    struct list_head members;
    struct direction {
        struct ev_timer timer;
        struct group *group;
        unsigned nr_waiting;
    } dir[2]; /* by is_write */
};

struct throttle_member {
    struct list_head link; /* in the group, whose turn is next first */
    struct blk_gate gate;
    struct blk_head *head;
    struct group *group;
    struct list_head waiting[2];
};

static struct list_head all_groups = LIST_HEAD_INIT(all_groups);

static bool is_counted(const struct blk_req *req)
{
    return req->verb == BLK_READ || req->verb == BLK_WRITE || req->verb == BLK_WRITE_ZEROES ||
           req->verb == BLK_DISCARD;
}

static void arm(struct direction *d, uint64_t wait_ns)
{
    ev_timer_stop(loop_ev(), &d->timer);
    ev_timer_set(&d->timer, (double)wait_ns / 1e9, 0);
    ev_now_update(loop_ev());
    ev_timer_start(loop_ev(), &d->timer);
}

/* The member whose turn it is goes to the end of the line. */
static struct blk_req *take_next(struct group *g, bool is_write, struct blk_head **head)
{
    struct throttle_member *m;

    list_for_each_entry (m, &g->members, link) {
        struct blk_req *req;

        if (list_empty(&m->waiting[is_write]))
            continue;
        req = list_first_entry(&m->waiting[is_write], struct blk_req, link);
        list_del(&req->link);
        list_del(&m->link);
        list_add_tail(&g->members, &m->link);
        g->dir[is_write].nr_waiting--;
        *head = m->head;
        return req;
    }
    return NULL;
}

static void run_direction(struct direction *d)
{
    struct group *g = d->group;
    bool is_write = d == &g->dir[1];

    while (d->nr_waiting) {
        uint64_t wait_ns = throttle_wait_ns(&g->state, is_write, now_ns());
        struct blk_head *head = NULL;
        struct blk_req *req;

        if (wait_ns) {
            arm(d, wait_ns);
            return;
        }
        req = take_next(g, is_write, &head);
        throttle_account(&g->state, is_write, req->length_bytes);
        blk_head_submit_through(head, req);
    }
}

static void on_timer(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    (void)ev;
    (void)revents;
    run_direction(t->data);
}

static bool gate_pass(struct blk_gate *gate, struct blk_req *req)
{
    struct throttle_member *m = container_of(gate, struct throttle_member, gate);
    struct group *g = m->group;
    bool is_write = req->verb != BLK_READ;
    struct direction *d = &g->dir[is_write];
    uint64_t wait_ns;

    if (!is_counted(req))
        return true;
    wait_ns = d->nr_waiting ? 0 : throttle_wait_ns(&g->state, is_write, now_ns());
    if (!d->nr_waiting && !wait_ns) {
        throttle_account(&g->state, is_write, req->length_bytes);
        return true;
    }
    list_add_tail(&m->waiting[is_write], &req->link);
    if (!d->nr_waiting++)
        arm(d, wait_ns);
    return false;
}

/* ---- groups and members ---------------------------------------------------------------- */

static struct group *find_group(const char *name)
{
    struct group *g;

    list_for_each_entry (g, &all_groups, link) {
        if (!strcmp(g->name, name))
            return g;
    }
    return NULL;
}

static struct group *new_group(const char *name)
{
    struct group *g = calloc(1, sizeof(*g));

    if (g)
        g->name = strdup(name);
    if (!g || !g->name) {
        free(g);
        return NULL;
    }
    list_init(&g->members);
    for (unsigned i = 0; i < ARRAY_LEN(g->dir); i++) {
        ev_timer_init(&g->dir[i].timer, on_timer, 0, 0);
        g->dir[i].timer.data = &g->dir[i];
        g->dir[i].group = g;
    }
    list_add_tail(&all_groups, &g->link);
    return g;
}

static void drop_group(struct group *g)
{
    for (unsigned i = 0; i < ARRAY_LEN(g->dir); i++)
        ev_timer_stop(loop_ev(), &g->dir[i].timer);
    list_del(&g->link);
    free(g->name);
    free(g);
}

struct throttle_member *throttle_join(struct blk_head *head, const char *name,
                                      const struct throttle_config *cfg)
{
    struct throttle_member *m = calloc(1, sizeof(*m));
    struct group *g = m ? find_group(name) : NULL;

    if (m && !g)
        g = new_group(name);
    if (!g) {
        free(m);
        return NULL;
    }
    m->gate.pass = gate_pass;
    m->head = head;
    m->group = g;
    list_init(&m->waiting[0]);
    list_init(&m->waiting[1]);
    list_add_tail(&g->members, &m->link);
    if (cfg)
        throttle_configure(&g->state, cfg, now_ns());
    for (unsigned i = 0; i < ARRAY_LEN(g->dir); i++)
        run_direction(&g->dir[i]);
    head->gate = &m->gate;
    return m;
}

void throttle_leave(struct throttle_member *m)
{
    struct group *g;

    if (!m)
        return;
    g = m->group;
    m->head->gate = NULL;
    list_del(&m->link);
    for (unsigned i = 0; i < ARRAY_LEN(m->waiting); i++) {
        while (!list_empty(&m->waiting[i])) {
            struct blk_req *req = list_first_entry(&m->waiting[i], struct blk_req, link);

            list_del(&req->link);
            g->dir[i].nr_waiting--;
            blk_head_submit_through(m->head, req);
        }
    }
    if (list_empty(&g->members))
        drop_group(g);
    free(m);
}

bool throttle_group_exists(const char *name)
{
    return find_group(name) != NULL;
}

const char *throttle_group_name(const struct throttle_member *m)
{
    return m->group->name;
}

const struct throttle_config *throttle_group_config(const struct throttle_member *m)
{
    return &m->group->state.config;
}
