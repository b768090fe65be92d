/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The recording file node. A request takes effect when it is submitted or when it is
 * acknowledged, by chance; the log has the order of effects. The file is longer only when a
 * write past its end is acknowledged.
 */
#include "tests/crash/record-node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/size.h"

/* In req->scratch. */
struct record_op {
    struct list_head link;
    size_t event; /* index in the log, SIZE_MAX: a read */
    bool late;    /* takes effect when it is acknowledged */
    bool lazy;    /* which may be after many others */
};

static struct record_op *op_of(struct blk_req *req)
{
    _Static_assert(sizeof(struct record_op) <= sizeof(req->scratch), "record_op fits");
    return (struct record_op *)&req->scratch;
}

static void out_of_memory(void)
{
    fputs("out of memory\n", stderr);
    exit(2);
}

static void reserve(struct record_node *r, uint64_t bytes)
{
    uint64_t capacity = MAX_OF(round_up_pow2(bytes, 65536), r->capacity + r->capacity / 4);

    if (bytes <= r->capacity)
        return;
    r->data = realloc(r->data, capacity);
    if (!r->data)
        out_of_memory();
    memset(r->data + r->capacity, 0, capacity - r->capacity);
    r->capacity = capacity;
}

void record_extend(struct record_node *r, uint64_t size_bytes)
{
    reserve(r, size_bytes);
    r->node.size_bytes = MAX_OF(r->node.size_bytes, size_bytes);
}

static void put_zeros(struct record_node *r, uint64_t from, uint64_t to)
{
    to = MIN_OF(to, r->capacity);
    if (from < to)
        memset(r->data + from, 0, to - from);
}

static void set_size(struct record_node *r, uint64_t size_bytes)
{
    put_zeros(r, size_bytes, r->node.size_bytes);
    r->node.size_bytes = MIN_OF(r->node.size_bytes, size_bytes);
    record_extend(r, size_bytes);
}

void record_apply(struct record_node *r, const struct record_event *ev, uint64_t from,
                  uint64_t bytes)
{
    switch (ev->kind) {
    case RECORD_WRITE:
        record_extend(r, from + bytes);
        memcpy(r->data + from, ev->data + (from - ev->offset_bytes), bytes);
        break;
    case RECORD_ZEROES:
        record_extend(r, from + bytes);
        put_zeros(r, from, from + bytes);
        break;
    case RECORD_PUNCH:
        put_zeros(r, from, from + bytes);
        break;
    case RECORD_SIZE:
        set_size(r, ev->offset_bytes);
        break;
    case RECORD_FLUSH:
    case RECORD_NOTHING:
        break;
    }
}

/* ---- the log ------------------------------------------------------------------------ */

static void ensure_room(struct record_log *l)
{
    if (l->nr < l->max)
        return;
    l->max = l->max ? l->max * 2 : 256;
    l->ev = realloc(l->ev, l->max * sizeof(*l->ev));
    if (!l->ev)
        out_of_memory();
}

static size_t add_event(struct record_node *r, enum record_kind kind, const struct blk_req *req)
{
    struct record_log *l = &r->log;
    struct record_event *ev;

    ensure_room(l);
    ev = &l->ev[l->nr];
    *ev = (struct record_event){
        .kind = kind,
        .fua = req->flags & BLK_FUA,
        .meta = req->flags & BLK_META,
        .offset_bytes = req->offset_bytes,
        .length_bytes = req->length_bytes,
        .start = record_tick(r),
        .end = RECORD_NEVER,
        .durable = RECORD_NEVER,
    };
    if (kind == RECORD_WRITE) {
        ev->data = malloc(req->length_bytes);
        if (!ev->data)
            out_of_memory();
        iov_to_buf(req->iov, req->niov, 0, ev->data, req->length_bytes);
    }
    return l->nr++;
}

void record_log_free(struct record_log *log)
{
    for (size_t i = 0; i < log->nr; i++)
        free(log->ev[i].data);
    free(log->ev);
    *log = (struct record_log){0};
}

struct record_log record_work_out(struct record_node *r)
{
    struct record_log log = r->log;

    for (size_t i = 0; i < log.nr; i++) {
        struct record_event *ev = &log.ev[i];

        if (ev->fua)
            ev->durable = ev->end;
        if (ev->kind == RECORD_FLUSH || ev->kind == RECORD_NOTHING || ev->end == RECORD_NEVER)
            continue;
        for (size_t j = i + 1; j < log.nr; j++)
            if (log.ev[j].kind == RECORD_FLUSH && log.ev[j].start > ev->end &&
                !(log.ev[j].lost & (ev->meta ? RECORD_LOSE_META : RECORD_LOSE_DATA)))
                ev->durable = MIN_OF(ev->durable, log.ev[j].end);
    }
    r->log = (struct record_log){0};
    r->recording = false;
    return log;
}

/* ---- requests ----------------------------------------------------------------------- */

static void copy_out(struct record_node *r, struct blk_req *req)
{
    uint64_t have = 0;

    if (req->offset_bytes < r->node.size_bytes)
        have = MIN_OF(req->length_bytes, r->node.size_bytes - req->offset_bytes);
    if (have)
        iov_from_buf(req->iov, req->niov, 0, r->data + req->offset_bytes, have);
    iov_zero(req->iov, req->niov, have, req->length_bytes - have);
}

/* To the end of the log, where its effect belongs. */
static struct record_event *move_event(struct record_node *r, size_t index)
{
    struct record_event ev = r->log.ev[index];

    r->log.ev[index] = (struct record_event){.kind = RECORD_NOTHING};
    ensure_room(&r->log);
    r->log.ev[r->log.nr] = ev;
    return &r->log.ev[r->log.nr++];
}

static void acknowledge_change(struct record_node *r, const struct record_op *op)
{
    struct record_event *ev = &r->log.ev[op->event];

    ev->end = record_tick(r);
    if (op->late) {
        ev = move_event(r, op->event);
        record_apply(r, ev, ev->offset_bytes, ev->length_bytes);
    }
    if (ev->kind == RECORD_WRITE || ev->kind == RECORD_ZEROES)
        record_extend(r, ev->offset_bytes + ev->length_bytes);
}

static void acknowledge(struct record_node *r, struct blk_req *req)
{
    struct record_op *op = op_of(req);

    if (op->event != SIZE_MAX)
        acknowledge_change(r, op);
    else if (op->late)
        copy_out(r, req);
    blk_complete(req, 0);
}

static void pump(struct deferred *d)
{
    struct record_node *r = container_of(d, struct record_node, pump);
    struct list_head chosen = LIST_HEAD_INIT(chosen);
    struct list_head *pos, *next;

    for (pos = r->waiting.next; pos != &r->waiting; pos = next) {
        struct blk_req *req = list_entry(pos, struct blk_req, scratch.link);

        next = pos->next;
        if (op_of(req)->lazy ? !rnd_one_in(&r->rnd, 16) : rnd_one_in(&r->rnd, 3))
            continue;
        list_del(pos);
        if (rnd_one_in(&r->rnd, 2))
            list_add_tail(&chosen, pos);
        else
            list_add(&chosen, pos);
    }
    while (!list_empty(&chosen)) {
        struct blk_req *req = list_entry(chosen.next, struct blk_req, scratch.link);

        list_del(&req->scratch.link);
        acknowledge(r, req);
    }
    if (!list_empty(&r->waiting))
        loop_defer(&r->pump, LOOP_END);
}

static void wait_for_pump(struct record_node *r, struct blk_req *req, size_t event, bool late)
{
    op_of(req)->event = event;
    op_of(req)->late = late;
    op_of(req)->lazy = req->verb != BLK_FLUSH && rnd_one_in(&r->rnd, 8);
    list_add_tail(&r->waiting, &op_of(req)->link);
    loop_defer(&r->pump, LOOP_END);
}

static void record_read(struct blk_node *node, struct blk_req *req)
{
    struct record_node *r = record_of(node);
    bool late = r->recording && rnd_one_in(&r->rnd, 2);

    if (!late)
        copy_out(r, req);
    if (r->recording)
        wait_for_pump(r, req, SIZE_MAX, late);
    else
        blk_complete(req, 0);
}

/* True: it has failed. It may have been done, and nobody is told. */
static bool fails(struct record_node *r, struct blk_req *req, enum record_kind kind)
{
    int error = r->recording && r->fail ? r->fail(req, r->fail_arg) : 0;

    if (!error)
        return false;
    if (kind < RECORD_SIZE && error == EIO && rnd_one_in(&r->rnd, 2)) {
        size_t index = add_event(r, kind, req);

        r->log.ev[index].end = record_tick(r);
        record_apply(r, &r->log.ev[index], req->offset_bytes, req->length_bytes);
    }
    blk_complete(req, -error);
    return true;
}

static void record_change(struct record_node *r, struct blk_req *req, enum record_kind kind)
{
    uint64_t size_bytes = r->node.size_bytes;
    bool late = r->recording && rnd_one_in(&r->rnd, 2);
    size_t index;

    if (fails(r, req, kind))
        return;
    index = add_event(r, kind, req);
    if (!late)
        record_apply(r, &r->log.ev[index], req->offset_bytes, req->length_bytes);
    if (r->recording) {
        r->node.size_bytes = size_bytes;
        wait_for_pump(r, req, index, late);
        return;
    }
    record_log_free(&r->log);
    blk_complete(req, 0);
}

static void record_write(struct blk_node *node, struct blk_req *req)
{
    record_change(record_of(node), req, RECORD_WRITE);
}

static void record_zeroes(struct blk_node *node, struct blk_req *req)
{
    record_change(record_of(node), req, RECORD_ZEROES);
}

static void record_discard(struct blk_node *node, struct blk_req *req)
{
    record_change(record_of(node), req, RECORD_PUNCH);
}

static void record_flush(struct blk_node *node, struct blk_req *req)
{
    struct record_node *r = record_of(node);
    size_t index;

    if (!r->recording) {
        blk_complete(req, 0);
        return;
    }
    if (fails(r, req, RECORD_FLUSH))
        return;
    index = add_event(r, RECORD_FLUSH, req);
    if (r->lose_flush)
        r->log.ev[index].lost = r->lose_flush(r, r->lose_arg);
    wait_for_pump(r, req, index, false);
}

static void record_status(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    req->extent = (struct blk_extent){req->offset_bytes, req->length_bytes, BLK_ST_DATA, 0, false};
    blk_complete(req, 0);
}

static int co_record_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct record_node *r = record_of(node);
    const struct blk_req req = {.verb = BLK_WRITE, .offset_bytes = size_bytes};
    int error = r->recording && r->fail ? r->fail(&req, r->fail_arg) : 0;
    size_t index;

    if (error)
        return error_set(err, error, "resize: %s", strerror(error));
    if (!r->recording) {
        set_size(r, size_bytes);
        return 0;
    }
    index = add_event(r, RECORD_SIZE, &req);
    record_apply(r, &r->log.ev[index], 0, 0);
    r->log.ev[index].end = record_tick(r);
    return 0;
}

static int co_record_reopen(struct blk_node *node, bool writable, struct error *err)
{
    (void)err;
    node->read_only = !writable;
    return 0;
}

static void record_close(struct blk_node *node)
{
    struct record_node *r = record_of(node);

    loop_undefer(&r->pump);
    record_log_free(&r->log);
    free(r->data);
}

static const struct blk_driver record_driver = {
    .name = "record",
    .instance_bytes = sizeof(struct record_node),
    .grows = true,
    .submit =
        {
            [BLK_READ] = record_read,
            [BLK_WRITE] = record_write,
            [BLK_WRITE_ZEROES] = record_zeroes,
            [BLK_DISCARD] = record_discard,
            [BLK_FLUSH] = record_flush,
            [BLK_STATUS] = record_status,
        },
    .co_close = record_close,
    .co_resize = co_record_resize,
    .co_reopen = co_record_reopen,
};

struct record_node *record_node_new(const uint8_t *data, uint64_t bytes)
{
    struct blk_node *node = blk_node_new(&record_driver, NULL);
    struct record_node *r;

    if (!node)
        out_of_memory();
    r = record_of(node);
    node->limits.align_bytes = 1;
    list_init(&r->waiting);
    r->pump.fn = pump;
    r->clock = &r->own_clock;
    record_extend(r, bytes);
    if (bytes)
        memcpy(r->data, data, bytes);
    return r;
}

void record_start(struct record_node *r, uint64_t seed)
{
    r->recording = true;
    r->rnd.state = seed;
}
