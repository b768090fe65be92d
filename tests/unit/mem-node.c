/* SPDX-License-Identifier: BSD-3-Clause */
/* A layer in memory with faults on demand: see mem-node.h. */
#include "tests/unit/mem-node.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "util/loop.h"
#include "util/size.h"

static uint32_t unit_of(const struct mem_node *m)
{
    return m->node.limits.subunit_bytes;
}

enum blk_state mem_node_state(const struct mem_node *m, uint64_t offset)
{
    return m->state[offset / unit_of(m)];
}

/* The end of the run of one state that starts at @offset, at most @end. */
static uint64_t run_end(const struct mem_node *m, uint64_t offset, uint64_t end)
{
    enum blk_state state = mem_node_state(m, offset);
    uint64_t at = round_down_pow2(offset, unit_of(m)) + unit_of(m);

    while (at < end && mem_node_state(m, at) == state)
        at += unit_of(m);
    return MIN_OF(at, end);
}

static void wake_requester(struct blk_req *req)
{
    co_enter(req->opaque);
}

static int co_read_backing(struct mem_node *m, struct blk_req *req, uint64_t at, uint64_t end)
{
    struct iovec part[64];
    struct blk_req *child = blk_child_get();
    int ret;

    child->verb = BLK_READ;
    child->flags = req->flags;
    child->offset_bytes = at;
    child->length_bytes = end - at;
    child->iov = part;
    child->niov = iov_slice(req->iov, req->niov, at - req->offset_bytes, end - at, part, 64);
    child->done = wake_requester;
    child->opaque = co_self();
    blk_submit_backing(&m->node, child);
    co_yield ();
    ret = child->result;
    req->result_flags |= child->result_flags;
    blk_child_put(child);
    return ret;
}

static int co_mem_read(struct mem_node *m, struct blk_req *req)
{
    uint64_t end = req->offset_bytes + req->length_bytes;
    int ret = 0;

    for (uint64_t at = req->offset_bytes, next; at < end && ret == 0; at = next) {
        uint64_t from = at - req->offset_bytes;

        next = run_end(m, at, end);
        if (mem_node_state(m, at) != BLK_ST_UNALLOCATED)
            iov_from_buf(req->iov, req->niov, from, m->data + at, next - at);
        else if (req->flags & BLK_LOCAL_ONLY || !m->node.backing.child)
            iov_zero(req->iov, req->niov, from, next - at);
        else
            ret = co_read_backing(m, req, at, next);
    }
    m->reads++;
    m->read_bytes += req->length_bytes;
    return ret;
}

/* A unit that becomes data by a part of it gets its rest from below first. */
static int co_fill_unit(struct mem_node *m, uint64_t unit_start)
{
    uint64_t len = MIN_OF(unit_of(m), m->node.size_bytes - unit_start);
    struct iovec iov = {m->data + unit_start, len};
    struct blk_req whole = {
        .iov = &iov, .niov = 1, .offset_bytes = unit_start, .length_bytes = len};

    if (!m->node.backing.child)
        return 0;
    return co_read_backing(m, &whole, unit_start, unit_start + len);
}

static int co_mem_write_locked(struct mem_node *m, struct blk_req *req)
{
    uint64_t end = req->offset_bytes + req->length_bytes;
    bool zeroes = req->verb == BLK_WRITE_ZEROES;

    for (uint64_t at = req->offset_bytes, next; at < end; at = next) {
        uint64_t unit_start = round_down_pow2(at, unit_of(m));
        bool whole;
        int ret = 0;

        next = MIN_OF(unit_start + unit_of(m), end);
        whole = at == unit_start && (next - at == unit_of(m) || next == m->node.size_bytes);
        if (mem_node_state(m, at) == BLK_ST_UNALLOCATED && !whole)
            ret = co_fill_unit(m, unit_start);
        if (ret)
            return ret;
        if (mem_node_state(m, at) != BLK_ST_UNALLOCATED && req->flags & BLK_IF_UNALLOCATED) {
            m->overwritten_bytes += next - at;
            continue;
        }
        if (zeroes)
            memset(m->data + at, 0, next - at);
        else
            iov_to_buf(req->iov, req->niov, at - req->offset_bytes, m->data + at, next - at);
        m->state[at / unit_of(m)] = zeroes && whole ? BLK_ST_ZERO : BLK_ST_DATA;
        m->written_bytes += next - at;
    }
    if (zeroes)
        m->zeroes++;
    else
        m->writes++;
    return 0;
}

static int co_mem_write(struct mem_node *m, struct blk_req *req)
{
    int ret;

    co_mutex_lock(&m->write_lock);
    ret = co_mem_write_locked(m, req);
    co_mutex_unlock(&m->write_lock);
    return ret;
}

static int take_fault(struct mem_node *m, int *error)
{
    int ret = *error;

    if (ret && m->faults_left && --m->faults_left == 0)
        *error = 0;
    return ret;
}

static void co_mem_request(void *arg)
{
    struct blk_req *req = arg;
    struct mem_node *m = to_mem(req->scratch.ptr[0]);
    bool is_read = req->verb == BLK_READ;
    int ret;

    m->running++;
    m->most_running = MAX_OF(m->most_running, m->running);
    if (m->delay_ns)
        co_sleep(m->delay_ns);
    while (is_read ? m->hold_reads : m->hold_writes)
        co_queue_wait(&m->held);
    ret = take_fault(m, is_read ? &m->read_error : &m->write_error);
    if (is_read && m->down)
        ret = -EHOSTDOWN;
    if (ret == 0)
        ret = is_read ? co_mem_read(m, req) : co_mem_write(m, req);
    m->running--;
    blk_complete(req, ret);
}

static void mem_data_verb(struct blk_node *node, struct blk_req *req)
{
    req->scratch.ptr[0] = node;
    co_spawn(co_mem_request, req);
}

static void mem_flush(struct blk_node *node, struct blk_req *req)
{
    struct mem_node *m = to_mem(node);

    m->flushes++;
    blk_complete(req, take_fault(m, &m->flush_error));
}

static void mem_status(struct blk_node *node, struct blk_req *req)
{
    struct mem_node *m = to_mem(node);
    uint64_t end = run_end(m, req->offset_bytes, req->offset_bytes + req->length_bytes);

    m->statuses++;
    req->extent = (struct blk_extent){
        .offset_bytes = req->offset_bytes,
        .length_bytes = end - req->offset_bytes,
        .state = mem_node_state(m, req->offset_bytes),
    };
    blk_complete(req, m->down ? -EHOSTDOWN : take_fault(m, &m->status_error));
}

static void mem_close(struct blk_node *node)
{
    free(to_mem(node)->data);
    free(to_mem(node)->state);
}

static const struct blk_driver mem_driver = {
    .name = "mem",
    .instance_bytes = sizeof(struct mem_node),
    .is_format = true,
    .submit =
        {
            [BLK_READ] = mem_data_verb,
            [BLK_WRITE] = mem_data_verb,
            [BLK_WRITE_ZEROES] = mem_data_verb,
            [BLK_FLUSH] = mem_flush,
            [BLK_STATUS] = mem_status,
        },
    .co_close = mem_close,
};

struct mem_node *mem_node_new(uint64_t size_bytes, uint32_t unit_bytes)
{
    struct mem_node *m = to_mem(blk_node_new(&mem_driver, NULL));

    m->node.size_bytes = size_bytes;
    m->node.limits.align_bytes = 512;
    m->node.limits.granularity_bytes = m->node.limits.subunit_bytes = unit_bytes;
    m->nr_units = (size_bytes + unit_bytes - 1) / unit_bytes;
    m->data = calloc(m->nr_units, unit_bytes); /* untouched pages cost nothing */
    m->state = malloc(m->nr_units);
    memset(m->state, BLK_ST_UNALLOCATED, m->nr_units);
    co_queue_init(&m->held);
    co_mutex_init(&m->write_lock);
    return m;
}

void mem_node_fill(struct mem_node *m, uint64_t offset, uint64_t bytes, enum blk_state state,
                   uint8_t fill)
{
    for (uint64_t at = offset; at < offset + bytes; at += unit_of(m))
        m->state[at / unit_of(m)] = (uint8_t)state;
    if (state == BLK_ST_DATA || state == BLK_ST_COMPRESSED)
        memset(m->data + offset, fill, bytes);
}

void mem_node_release(struct mem_node *m)
{
    m->hold_reads = m->hold_writes = false;
    co_queue_wake_all(&m->held);
}

static void on_tick(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    (void)ev;
    (void)t;
    (void)revents;
}

void mem_node_turn(void)
{
    struct ev_timer tick;

    ev_now_update(loop_ev());
    ev_timer_init(&tick, on_tick, 0.002, 0);
    ev_timer_start(loop_ev(), &tick);
    loop_turn(true);
    ev_timer_stop(loop_ev(), &tick);
}

struct runner {
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static void co_runner(void *arg)
{
    struct runner *r = arg;

    r->fn(r->arg);
    r->done = true;
}

void mem_node_run(void (*fn)(void *arg), void *arg)
{
    struct runner r = {fn, arg, false};

    co_spawn(co_runner, &r);
    while (!r.done)
        mem_node_turn();
}
