/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From guest offsets to runs of equal mapping, and BLK_STATUS from those.
 * Invariant: a run of data lies inside the file, aligned as its entries say; anything else is
 * reported as corrupt and never read or written.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

#define CORRUPT_LOG_MAX 20
/* Work of one BLK_STATUS: a run costs as much as skipping RUN_COST missing tables. */
#define STATUS_BUDGET   65536u
#define STATUS_RUN_COST 64u

static qcow2_corrupt_fn *corrupt_sink;

void qcow2_set_corrupt_sink(qcow2_corrupt_fn *sink)
{
    corrupt_sink = sink;
}

static void __attribute__((format(printf, 4, 0)))
report(struct qcow2 *q, bool fatal, const char *what, const char *fmt, va_list ap)
{
    bool first = fatal ? !q->corrupt : !q->corrupt && !q->told_harmless;
    char text[256];

    if (q->stats.corrupt++ >= CORRUPT_LOG_MAX && !first)
        return;
    vsnprintf(text, sizeof(text), fmt, ap);
    log_err("%s: %s: %s", qcow2_name(q), what, text);
    if (!q->opened || !first)
        return;
    q->told_harmless = true;
    if (fatal)
        qcow2_mark_corrupt(q);
    if (corrupt_sink)
        corrupt_sink(&q->node, text, fatal);
}

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report(q, !q->node.read_only, "image is corrupt", fmt, ap);
    va_end(ap);
    return -EIO;
}

int qcow2_damaged(struct qcow2 *q, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report(q, false, "data is damaged", fmt, ap);
    va_end(ap);
    return -EIO;
}

bool qcow2_hits_metadata(const struct qcow2 *q, uint64_t host, uint64_t bytes)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g);
    struct {
        uint64_t start, bytes;
    } tables[] = {
        {0, cluster},
        {q->h.l1_offset, (uint64_t)q->h.l1_entries * 8},
        {q->h.rt_offset, q->h.rt_clusters * cluster},
        {q->rt_new_offset, q->rt_moved ? q->rt_new_clusters * cluster : 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        if (host < tables[i].start + tables[i].bytes && tables[i].start < host + bytes)
            return true;
    return false;
}

uint64_t qcow2_l2_slice_offset(struct qcow2 *q, uint64_t off, int *ret)
{
    uint64_t index = off >> (q->g.cluster_bits + q->g.l2_bits);
    uint64_t table, in_table;

    *ret = 0;
    table = q->l1[index] & QCOW2_OFFSET_MASK;
    if (!table)
        return 0;
    if ((table & (qcow2_cluster_bytes(&q->g) - 1)) || table >= qcow2_file(q)->size_bytes) {
        *ret = qcow2_corrupt(q, "L1 entry %" PRIu64 " points to %#" PRIx64, index, table);
        return 0;
    }
    in_table = (off >> q->g.slice_span_bits) &
               ((UINT64_C(1) << (q->g.cluster_bits + q->g.l2_bits - q->g.slice_span_bits)) - 1);
    return table + in_table * q->g.slice_bytes;
}

uint8_t *qcow2_slice_entry(const struct qcow2 *q, const struct qslice *s, uint64_t off)
{
    uint32_t mask = q->g.slice_bytes / q->g.entry_bytes - 1;

    return s->data + ((off >> q->g.cluster_bits) & mask) * q->g.entry_bytes;
}

bool qcow2_get_entry(struct qcow2 *q, const struct qslice *s, uint64_t off, struct qcow2_entry *e)
{
    const uint8_t *raw = qcow2_slice_entry(q, s, off);

    if (!qcow2_entry_decode(&q->g, raw, e)) {
        qcow2_corrupt(q, "bad L2 entry %#" PRIx64 " for offset %" PRIu64, get_be64(raw), off);
        return false;
    }
    if (q->g.external && e->host &&
        e->host != (QCOW2_EXTERNAL | round_down_pow2(off, qcow2_cluster_bytes(&q->g)))) {
        qcow2_corrupt(q, "L2 entry %#" PRIx64 " for offset %" PRIu64 " in the data file",
                      get_be64(raw), off);
        return false;
    }
    return true;
}

/* Data of a cluster that reaches past the end of the file reads zeros there; a cluster that
 * starts past the end is damaged, but for a data file, which grows as it is written. */
static void clip_to_file(struct qcow2 *q, const struct qcow2_entry *e, struct qrun *run)
{
    uint64_t host = run->host, file_bytes = qcow2_host_node(q, &host)->size_bytes;

    if (host + run->bytes <= file_bytes)
        return;
    if (!q->g.external && e->host >= file_bytes) {
        qcow2_damaged(q, "L2 entry points past the end of the file (%#" PRIx64 ")", e->host);
        run->kind = QRUN_BAD;
    } else if (host < file_bytes) {
        run->bytes = file_bytes - host;
    } else {
        run->past_end = true;
    }
}

/* The run of equal subclusters at @off, inside its cluster. */
static void cluster_run(struct qcow2 *q, const struct qslice *s, uint64_t off, struct qrun *run)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), in_cluster = off & (cluster - 1);
    struct qcow2_entry e;
    unsigned sub = (unsigned)(in_cluster >> q->g.sub_bits);
    uint32_t like, differ;

    *run = (struct qrun){.bytes = cluster - in_cluster};
    if (!qcow2_get_entry(q, s, off, &e)) {
        run->kind = QRUN_BAD;
        return;
    }
    if (e.compressed) {
        run->kind = QRUN_COMPRESSED;
        run->host = e.descriptor;
        return;
    }
    if (e.alloc >> sub & 1) {
        run->kind = QRUN_DATA;
        run->host = e.host + in_cluster;
        run->copied = e.copied;
        like = e.alloc;
    } else {
        run->kind = e.zero >> sub & 1 ? QRUN_ZERO : QRUN_UNALLOCATED;
        run->anchored = run->kind == QRUN_ZERO && e.copied;
        like = run->kind == QRUN_ZERO ? e.zero : ~(e.alloc | e.zero);
    }
    differ = (~like & qcow2_sub_mask(0, q->g.subs - 1)) >> sub;
    if (differ)
        run->bytes =
            ((uint64_t)(sub + (unsigned)__builtin_ctz(differ)) << q->g.sub_bits) - in_cluster;
    if (run->kind == QRUN_DATA)
        clip_to_file(q, &e, run);
}

static bool continues(const struct qrun *run, const struct qrun *next)
{
    if (next->kind != run->kind)
        return false;
    if (run->kind == QRUN_DATA)
        return next->host == run->host + run->bytes && next->copied == run->copied &&
               next->past_end == run->past_end;
    return (run->kind == QRUN_ZERO && run->anchored == next->anchored) ||
           run->kind == QRUN_UNALLOCATED;
}

static int map_in_slice(struct qcow2 *q, const struct qslice *s, uint64_t off, uint64_t max,
                        struct qrun *run)
{
    uint64_t end = MIN_OF(off + max, qcow2_slice_end(q, off));
    struct qrun next;

    cluster_run(q, s, off, run);
    while (off + run->bytes < end && run->kind != QRUN_BAD) {
        cluster_run(q, s, off + run->bytes, &next);
        if (!continues(run, &next))
            break;
        run->bytes += next.bytes;
    }
    run->bytes = MIN_OF(run->bytes, end - off);
    return run->kind == QRUN_BAD ? -EIO : 0;
}

/* No L2 table: nothing is allocated up to the end of its range. */
static void map_no_table(struct qcow2 *q, uint64_t off, uint64_t max, struct qrun *run)
{
    uint64_t span = UINT64_C(1) << (q->g.cluster_bits + q->g.l2_bits);

    *run = (struct qrun){.kind = QRUN_UNALLOCATED, .no_table = true};
    run->bytes = MIN_OF(max, span - (off & (span - 1)));
}

int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t max, struct qrun *run)
{
    struct qslice *s = qcache_find(&q->l2, off >> q->g.slice_span_bits);
    uint64_t where;
    int ret;

    if (s) {
        q->stats.hits++;
        return map_in_slice(q, s, off, max, run);
    }
    where = qcow2_l2_slice_offset(q, off, &ret);
    if (ret)
        return ret;
    if (where)
        return -EAGAIN;
    map_no_table(q, off, max, run);
    return 0;
}

int co_qcow2_map(struct qcow2 *q, uint64_t off, uint64_t max, struct qrun *run)
{
    struct qslice *s;
    uint64_t where;
    int ret;

    where = qcow2_l2_slice_offset(q, off, &ret);
    if (ret)
        return ret;
    if (!where) {
        map_no_table(q, off, max, run);
        return 0;
    }
    ret = co_qcache_get(q, &q->l2, off >> q->g.slice_span_bits, where, &s);
    if (ret)
        return ret;
    ret = map_in_slice(q, s, off, max, run);
    qcache_put(s);
    return ret;
}

int co_qcow2_locate(struct blk_node *node, uint64_t off, uint64_t bytes, struct blk_place *place)
{
    static const enum blk_place_kind kinds[] = {
        [QRUN_UNALLOCATED] = BLK_PLACE_BELOW, [QRUN_ZERO] = BLK_PLACE_ZERO,
        [QRUN_DATA] = BLK_PLACE_HOST,         [QRUN_COMPRESSED] = BLK_PLACE_ASK,
        [QRUN_BAD] = BLK_PLACE_ASK,
    };
    struct qcow2 *q = qcow2_of(node);
    struct qrun run = {.kind = QRUN_BAD};
    int ret = co_qcow2_map(q, off, bytes, &run);

    if (ret && (run.kind != QRUN_BAD || !run.bytes))
        return ret;
    *place = (struct blk_place){.kind = kinds[run.kind], .length_bytes = run.bytes};
    if (run.past_end) {
        place->kind = BLK_PLACE_ZERO;
    } else if (run.kind == QRUN_DATA) {
        place->host_offset_bytes = run.host;
        place->host = qcow2_host_node(q, &place->host_offset_bytes);
    }
    return 0;
}

static enum blk_state state_of(enum qrun_kind kind)
{
    static const enum blk_state states[] = {
        [QRUN_UNALLOCATED] = BLK_ST_UNALLOCATED,
        [QRUN_ZERO] = BLK_ST_ZERO,
        [QRUN_DATA] = BLK_ST_DATA,
        [QRUN_COMPRESSED] = BLK_ST_COMPRESSED,
    };

    return states[kind];
}

/* Bounded work: the walk ends early where the mapping is fragmented over many tables. */
static int status_walk(struct qcow2 *q, struct blk_req *req,
                       int (*map)(struct qcow2 *, uint64_t, uint64_t, struct qrun *))
{
    uint64_t pos = req->offset_bytes, end = pos + req->length_bytes;
    unsigned budget = STATUS_BUDGET;
    struct qrun run;
    int ret;

    while (pos < end && budget) {
        ret = map(q, pos, end - pos, &run);
        if (ret == -EAGAIN || (ret && pos == req->offset_bytes))
            return ret;
        if (ret)
            break;
        if (pos == req->offset_bytes) {
            req->extent.state = state_of(run.kind);
            req->extent.anchored = run.anchored;
        } else if (req->extent.state != state_of(run.kind) ||
                   req->extent.anchored != run.anchored) {
            break;
        }
        pos += run.bytes;
        budget -= MIN_OF(budget, run.no_table ? 1 : STATUS_RUN_COST);
    }
    req->extent.offset_bytes = req->offset_bytes;
    req->extent.length_bytes = pos - req->offset_bytes;
    return 0;
}

static void status_co(void *arg)
{
    struct blk_req *req = arg;
    struct qcow2 *q = qcow2_of(req->node);
    unsigned epoch = qcow2_io_begin(q);
    int ret = status_walk(q, req, co_qcow2_map);

    qcow2_io_end(q, epoch);
    blk_complete(req, ret);
}

void qcow2_submit_status(struct blk_node *node, struct blk_req *req)
{
    int ret = status_walk(qcow2_of(node), req, qcow2_map);

    if (ret == -EAGAIN)
        co_spawn(status_co, req);
    else
        blk_complete(req, ret);
}
