/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of a whole open image that no request makes: freeing what a crash leaked, emptying an
 * overlay. Nothing else uses the node meanwhile. Invariant: what the node has in memory and what
 * is on disk are the same before the disk is changed below it.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-check-int.h"
#include "util/size.h"

/* The same cache, of the same size, without what is in it. */
static int empty_cache(struct qcow2 *q, struct qcache *c)
{
    uint64_t bytes = (uint64_t)c->max * c->slice_bytes;

    qcache_free(c);
    *c = (struct qcache){0};
    return qcache_init(c, q->g.slice_bytes, bytes);
}

/* The allocator as it is after opening. */
static int co_reopen_allocator(struct qcow2 *q, struct error *err)
{
    free(q->rt);
    free(q->rt_dirty);
    q->rt = q->rt_dirty = NULL;
    q->scan_cluster = 0;
    if (empty_cache(q, &q->rc))
        return error_set(err, ENOMEM, "out of memory");
    return co_qcow2_alloc_open(q, err);
}

int co_qcow2_fix_leaks(struct blk_node *node, uint64_t *freed_clusters, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret;

    *freed_clusters = 0;
    if (node->read_only)
        return error_set(err, EROFS, "%s is open read-only", qcow2_name(q));
    ret = co_qcow2_settle(q);
    if (ret)
        return error_set(err, -ret, "can't flush %s", qcow2_name(q));
    ret = co_qcheck_free_leaks(qcow2_file(q), freed_clusters, err);
    if (!ret && *freed_clusters)
        ret = co_reopen_allocator(q, err);
    return ret ? error_prefix(err, "%s", qcow2_name(q)) : 0;
}

/* ---- emptying ------------------------------------------------------------------------------ */

/* Pins the slices from @off to @end, in which every entry makes sense; *@nr of them, also if it
 * fails. */
static int co_pin_slices(struct qcow2 *q, uint64_t off, uint64_t end, struct qslice **s,
                         unsigned *nr)
{
    struct qcow2_entry e;
    int ret = 0;

    for (*nr = 0; off < end && !ret;) {
        uint64_t slice_end = MIN_OF(qcow2_slice_end(q, off), end);
        uint64_t where = qcow2_l2_slice_offset(q, off, &ret);

        if (!where)
            return ret;
        ret = co_qcache_get(q, &q->l2, off >> q->g.slice_span_bits, where, &s[*nr]);
        for (*nr += !ret; off < slice_end && !ret; off += qcow2_cluster_bytes(&q->g))
            ret = qcow2_get_entry(q, s[*nr - 1], off, &e) ? 0 : -EIO;
    }
    return ret;
}

/* Puts all that the L1 entry refers to, also behind the end of the disk, on the list of what the
 * next cycle frees: when all of it could be read, or nothing. */
static int co_free_table(struct qcow2 *q, uint64_t index)
{
    uint32_t span_bits = q->g.cluster_bits + q->g.l2_bits;
    uint64_t off = index << span_bits, end = off + (UINT64_C(1) << span_bits);
    struct qslice **s = calloc(UINT64_C(1) << (span_bits - q->g.slice_span_bits), sizeof(*s));
    struct qcow2_entry e;
    unsigned nr = 0;
    int ret = s ? co_pin_slices(q, off, end, s, &nr) : -ENOMEM;

    for (; off < end && !ret; off += qcow2_cluster_bytes(&q->g))
        if (qcow2_get_entry(q, s[(off - (index << span_bits)) >> q->g.slice_span_bits], off, &e))
            qcow2_free_entry_later(q, &e);
    while (nr)
        qcache_put(s[--nr]);
    free(s);
    if (!ret)
        qcow2_drop_table(q, index);
    return ret;
}

int co_qcow2_make_empty(struct blk_node *node, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    int ret;

    if (node->read_only)
        return error_set(err, EROFS, "%s is open read-only", qcow2_name(q));
    if (qcow2_data_is_raw(q))
        return error_set(err, ENOTSUP, "%s: its data file is the disk itself", qcow2_name(q));
    ret = co_qcow2_settle(q);
    for (uint64_t i = 0; i < q->h.l1_entries && !ret; i++) {
        if (q->l1[i] & QCOW2_OFFSET_MASK)
            ret = co_free_table(q, i);
    }
    if (!ret)
        ret = co_qcow2_settle(q);
    return ret ? error_set(err, -ret, "emptying %s: %s", qcow2_name(q), strerror(-ret)) : 0;
}

/* ---- where things are ------------------------------------------------------------------------ */

static bool same_place(const struct qcow2_place *place, bool has_host, uint64_t host)
{
    return has_host == place->has_host &&
           (!has_host || host == place->host_bytes + place->length_bytes);
}

/* A run of unallocated or zero subclusters, cut where the host clusters behind it are no longer
 * contiguous; whole runs have none. */
static int co_place_hosts(struct qcow2 *q, uint64_t off, uint64_t bytes, struct qcow2_place *place)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g),
             end = MIN_OF(off + bytes, qcow2_slice_end(q, off));
    struct qcow2_entry e;
    struct qslice *s;
    uint64_t where;
    int ret;

    where = qcow2_l2_slice_offset(q, off, &ret);
    if (!where)
        return ret ? ret : -EIO;
    ret = co_qcache_get(q, &q->l2, off >> q->g.slice_span_bits, where, &s);
    if (ret)
        return ret;
    for (uint64_t pos = off; pos < end;) {
        uint64_t in_cluster = pos & (cluster - 1), host;

        if (!qcow2_get_entry(q, s, pos, &e)) {
            ret = -EIO;
            break;
        }
        host = e.host ? (e.host & ~QCOW2_EXTERNAL) + in_cluster : 0;
        if (pos == off) {
            place->has_host = e.host != 0;
            place->host_bytes = host;
            place->length_bytes = 0;
        } else if (!same_place(place, e.host != 0, host)) {
            break;
        }
        place->length_bytes += MIN_OF(cluster - in_cluster, end - pos);
        pos = off + place->length_bytes;
    }
    qcache_put(s);
    return ret;
}

int co_qcow2_place(struct blk_node *node, uint64_t off, uint64_t max, struct qcow2_place *place)
{
    static const enum blk_state states[] = {
        [QRUN_UNALLOCATED] = BLK_ST_UNALLOCATED,
        [QRUN_ZERO] = BLK_ST_ZERO,
        [QRUN_DATA] = BLK_ST_DATA,
        [QRUN_COMPRESSED] = BLK_ST_COMPRESSED,
    };
    struct qcow2 *q = qcow2_of(node);
    struct qrun run;
    int ret = co_qcow2_map(q, off, max, &run);

    if (ret)
        return ret;
    *place = (struct qcow2_place){
        .state = states[run.kind],
        .has_host = run.kind == QRUN_DATA,
        .host_bytes = run.kind == QRUN_DATA ? run.host & ~QCOW2_EXTERNAL : 0,
        .length_bytes = run.bytes,
    };
    if (run.no_table || run.kind == QRUN_DATA || run.kind == QRUN_COMPRESSED)
        return 0;
    return co_place_hosts(q, off, run.bytes, place);
}
