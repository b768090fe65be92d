/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refcounts and the cluster allocator. Everything here changes only the cached refcount slices
 * and the refcount table in memory; the flush cycle writes them before anything that points to
 * the clusters. Invariant: at any moment without a wait inside, the refcounts in memory cover
 * every cluster that a table in memory points to, a new refcount block's own count included.
 */
#define LOG_AREA "qcow2"
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/bitmap.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

#define SCAN_MAX_SLICES 16 /* looked through for a hole before the file is extended */
#define HOST_MAX_BYTES  (UINT64_C(1) << 56)

static uint64_t cluster_offset(const struct qcow2 *q, uint64_t cluster)
{
    return cluster << q->g.cluster_bits;
}

/* 1: there is a block, its slice for @cluster is in *out, pinned; 0: none; -errno. */
static int co_ref_slice(struct qcow2 *q, uint64_t cluster, struct qslice **out)
{
    uint64_t block_index = cluster >> q->g.ref_block_bits;
    uint64_t slices = q->g.ref_block_bits - q->g.ref_slice_bits;
    uint64_t block, in_block;
    int ret;

    if (block_index >= q->rt_entries || !(q->rt[block_index] & QCOW2_RT_MASK))
        return 0;
    block = q->rt[block_index] & QCOW2_RT_MASK;
    in_block = (cluster >> q->g.ref_slice_bits) & ((UINT64_C(1) << slices) - 1);
    if (block & (qcow2_cluster_bytes(&q->g) - 1))
        return qcow2_corrupt(q, "refcount block %" PRIu64 " is unaligned (%#" PRIx64 ")",
                             block_index, block);
    ret = co_qcache_get(q, &q->rc, cluster >> q->g.ref_slice_bits,
                        block + in_block * q->g.slice_bytes, out);
    return ret ? ret : 1;
}

static uint32_t ref_index(const struct qcow2 *q, uint64_t cluster)
{
    return (uint32_t)(cluster & ((UINT64_C(1) << q->g.ref_slice_bits) - 1));
}

static uint64_t slice_ref(const struct qcow2 *q, const struct qslice *s, uint64_t cluster)
{
    return qcow2_refcount_get(s->data, q->g.refcount_order, ref_index(q, cluster));
}

static void slice_set_ref(struct qcow2 *q, struct qslice *s, uint64_t cluster, uint64_t refs)
{
    qcow2_refcount_set(s->data, q->g.refcount_order, ref_index(q, cluster), refs);
    qcache_mark_dirty(q, &q->rc, s);
}

int co_qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *refs)
{
    struct qslice *s;
    int ret = co_ref_slice(q, cluster, &s);

    *refs = 0;
    if (ret <= 0)
        return ret;
    *refs = slice_ref(q, s, cluster);
    qcache_put(s);
    return 0;
}

static void rt_set(struct qcow2 *q, uint64_t index, uint64_t value)
{
    q->rt[index] = value;
    if (!bitmap_test(q->rt_dirty, index / 64)) {
        bitmap_set(q->rt_dirty, index / 64);
        q->nr_rt_dirty++;
    }
    qcow2_dirtied(q);
}

static int co_grow_table(struct qcow2 *q, uint64_t min_entries);

/* Entries of the table that the next flush cycle leaves on disk. */
static uint64_t table_entries(const struct qcow2 *q)
{
    uint64_t clusters = q->rt_moved ? q->rt_new_clusters : q->h.rt_clusters;

    return clusters << (q->g.cluster_bits - 3);
}

/*
 * Makes the free cluster @cluster the refcount block @index. Its own count is in that block or
 * in one that exists. The zeros are on their way to the disk first.
 */
static int co_add_block(struct qcow2 *q, uint64_t index, uint64_t cluster)
{
    struct qslice *s;
    int ret;

    ret = co_blk_write_zeroes(qcow2_file(q), cluster_offset(q, cluster), qcow2_cluster_bytes(&q->g),
                              BLK_META);
    if (ret)
        return ret;
    if (index == cluster >> q->g.ref_block_bits)
        ret = qcache_add_zeroed(&q->rc, cluster >> q->g.ref_slice_bits, &s);
    else
        ret = co_ref_slice(q, cluster, &s);
    if (ret < 0)
        return ret;
    slice_set_ref(q, s, cluster, 1);
    qcache_put(s);
    rt_set(q, index, cluster_offset(q, cluster));
    q->end_cluster = MAX_OF(q->end_cluster, cluster + 1);
    q->fresh_cluster = MAX_OF(q->fresh_cluster, cluster + 1);
    return 0;
}

/* Counts up to @want free clusters from @first on as used, at most one slice's worth; *got may
 * be 0. A missing block is put where the clusters would have been: then the caller tries further
 * on. */
static int co_claim(struct qcow2 *q, uint64_t first, uint64_t want, uint64_t *got)
{
    struct qslice *s;
    uint64_t n = 0, slice_end;
    int ret;

    *got = 0;
    if (!q->rt_growing && first >> q->g.ref_block_bits >= table_entries(q))
        return co_grow_table(q, (first >> q->g.ref_block_bits) + 1);
    ret = co_ref_slice(q, first, &s);
    if (ret < 0)
        return ret;
    if (!ret)
        return co_add_block(q, first >> q->g.ref_block_bits, first);
    slice_end = ((first >> q->g.ref_slice_bits) + 1) << q->g.ref_slice_bits;
    while (n < want && first + n < slice_end && !slice_ref(q, s, first + n))
        n++;
    if (n && qcow2_hits_metadata(q, cluster_offset(q, first), n << q->g.cluster_bits)) {
        qcache_put(s);
        return qcow2_corrupt(q, "refcount of a metadata cluster near %#" PRIx64 " is 0",
                             cluster_offset(q, first));
    }
    for (uint64_t i = 0; i < n; i++)
        slice_set_ref(q, s, first + i, 1);
    qcache_put(s);
    *got = n;
    return 0;
}

/* Moves scan_cluster to the next free cluster below end_cluster, in bounded steps; true if it
 * stands at one. */
static int co_scan(struct qcow2 *q, bool *found)
{
    struct qslice *s;
    int ret;

    *found = false;
    for (unsigned n = 0; n < SCAN_MAX_SLICES && q->scan_cluster < q->end_cluster; n++) {
        uint64_t end = ((q->scan_cluster >> q->g.ref_slice_bits) + 1) << q->g.ref_slice_bits;

        end = MIN_OF(end, q->end_cluster);
        ret = co_ref_slice(q, q->scan_cluster, &s);
        if (ret < 0)
            return ret;
        if (!ret) { /* no block here: all free */
            *found = true;
            return 0;
        }
        while (q->scan_cluster < end && slice_ref(q, s, q->scan_cluster))
            q->scan_cluster++;
        qcache_put(s);
        if (q->scan_cluster < end) {
            *found = true;
            return 0;
        }
    }
    return 0;
}

/* alloc_lock held; at the end of the file, at most one slice's worth. */
static int co_claim_at_end(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got)
{
    int ret;

    do {
        if (cluster_offset(q, q->end_cluster + want) > HOST_MAX_BYTES)
            return -EFBIG;
        *first = q->end_cluster;
        ret = co_claim(q, *first, want, got);
        if (ret)
            return ret;
        if (!*got)
            q->end_cluster = MAX_OF(q->end_cluster, *first + 1);
    } while (!*got);
    q->end_cluster = *first + *got;
    return 0;
}

static int co_alloc_locked(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got)
{
    bool found;
    int ret;

    for (;;) {
        ret = co_scan(q, &found);
        if (ret)
            return ret;
        if (!found)
            break;
        *first = q->scan_cluster;
        ret = co_claim(q, *first, MIN_OF(want, q->end_cluster - *first), got);
        if (ret)
            return ret;
        q->scan_cluster += *got ? *got : 1;
        if (*got)
            return 0;
    }
    return co_claim_at_end(q, want, first, got);
}

int co_qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *host, uint64_t *got, bool *fresh)
{
    uint64_t first;
    int ret;

    co_mutex_lock(&q->alloc_lock);
    ret = co_alloc_locked(q, want, &first, got);
    if (!ret) {
        *host = cluster_offset(q, first);
        *fresh = first >= q->fresh_cluster;
        q->fresh_cluster = MAX_OF(q->fresh_cluster, first + *got);
        q->stats.allocated_clusters += *got;
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

/* Blocks that are missing to count clusters [first, end). */
static uint64_t missing_blocks(const struct qcow2 *q, uint64_t first, uint64_t end)
{
    uint64_t n = 0;

    for (uint64_t i = first >> q->g.ref_block_bits; i <= (end - 1) >> q->g.ref_block_bits; i++)
        n += i >= q->rt_entries || !q->rt[i];
    return n;
}

/* Adds the missing blocks at the end, in ascending order: so the block that counts each of them
 * is itself or one that was added before. */
static int co_add_missing_blocks(struct qcow2 *q, uint64_t end)
{
    uint64_t cluster = q->end_cluster, i = cluster >> q->g.ref_block_bits;
    int ret;

    for (; i <= (end - 1) >> q->g.ref_block_bits; i++) {
        if (q->rt[i])
            continue;
        ret = co_add_block(q, i, cluster++);
        if (ret)
            return ret;
    }
    return 0;
}

static int co_claim_range(struct qcow2 *q, uint64_t first, uint64_t want)
{
    uint64_t done = 0, got, left;
    int ret = 0;

    while (done < want && !ret) {
        ret = co_claim(q, first + done, want - done, &got);
        if (!ret && !got)
            ret = qcow2_corrupt(q, "cluster %" PRIu64 " past the end is in use", first + done);
        done += ret ? 0 : got;
    }
    while (ret && done)
        co_qcow2_unref(q, first + --done, &left);
    return ret;
}

/* alloc_lock held. Contiguous, at the end: first the blocks that count them, then they. */
static int co_claim_exactly(struct qcow2 *q, uint64_t want, uint64_t *first)
{
    uint64_t blocks = 0, again, start, last;
    int ret;

    for (;;) {
        start = q->end_cluster;
        while ((again = missing_blocks(q, start, start + blocks + want)) > blocks)
            blocks = again;
        last = (start + blocks + want - 1) >> q->g.ref_block_bits;
        if (q->rt_growing ? last < q->rt_entries : last < table_entries(q))
            break;
        if (q->rt_growing)
            return -EFBIG;
        ret = co_grow_table(q, last + 1);
        if (ret)
            return ret;
        blocks = 0;
    }
    if (cluster_offset(q, start + blocks + want) > HOST_MAX_BYTES)
        return -EFBIG;
    ret = co_add_missing_blocks(q, start + blocks + want);
    if (!ret)
        ret = co_claim_range(q, start + blocks, want);
    if (ret)
        return ret;
    *first = start + blocks;
    q->end_cluster = start + blocks + want;
    return 0;
}

int co_qcow2_alloc_at_end(struct qcow2 *q, uint64_t want, uint64_t *host)
{
    uint64_t first;
    int ret;

    co_mutex_lock(&q->alloc_lock);
    ret = co_claim_exactly(q, want, &first);
    if (!ret) {
        *host = cluster_offset(q, first);
        q->fresh_cluster = MAX_OF(q->fresh_cluster, first + want);
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

static int co_grow_arrays(struct qcow2 *q, uint64_t entries)
{
    uint64_t *rt, *dirty;

    if (entries <= q->rt_entries)
        return 0;
    rt = calloc(entries, 8);
    dirty = calloc(BITMAP_WORDS(entries / 64 + 1), 8);
    if (!rt || !dirty) {
        free(rt);
        free(dirty);
        return -ENOMEM;
    }
    memcpy(rt, q->rt, q->rt_entries * 8);
    memcpy(dirty, q->rt_dirty, BITMAP_WORDS(q->rt_entries / 64 + 1) * 8);
    free(q->rt);
    free(q->rt_dirty);
    q->rt = rt;
    q->rt_dirty = dirty;
    q->rt_entries = entries;
    return 0;
}

/*
 * alloc_lock held, as it is while a flush cycle looks at all this. A larger refcount table, in
 * memory; the cycle writes it and then turns the header to it. The table before is freed after
 * that cycle, whether the header on disk ever pointed to it or not.
 */
static int co_grow_table(struct qcow2 *q, uint64_t min_entries)
{
    uint64_t per_cluster = qcow2_cluster_bytes(&q->g) / 8;
    uint64_t entries = round_up_pow2(min_entries + min_entries / 2 + 2, per_cluster);
    uint64_t old_offset = q->rt_moved ? q->rt_new_offset : q->h.rt_offset;
    uint32_t old_clusters = q->rt_moved ? q->rt_new_clusters : q->h.rt_clusters;
    uint64_t first;
    int ret;

    entries = MAX_OF(entries, q->rt_entries);
    if (entries * 8 > MAX_OF(QCOW2_MAX_RT_BYTES, qcow2_cluster_bytes(&q->g)))
        return -EFBIG;
    ret = co_grow_arrays(q, entries);
    if (ret)
        return ret;
    q->rt_growing = true;
    ret = co_claim_exactly(q, entries / per_cluster, &first);
    q->rt_growing = false;
    if (ret)
        return ret;
    qcow2_free_later(q, old_offset, old_clusters);
    q->rt_new_offset = cluster_offset(q, first);
    q->rt_new_clusters = (uint32_t)(entries / per_cluster);
    q->rt_moved = true;
    qcow2_dirtied(q);
    return 0;
}

int co_qcow2_add_ref(struct qcow2 *q, uint64_t cluster)
{
    unsigned bits = 1u << q->g.refcount_order;
    uint64_t max = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1, refs;
    struct qslice *s;
    int ret;

    co_mutex_lock(&q->alloc_lock);
    ret = co_ref_slice(q, cluster, &s);
    if (ret > 0) {
        refs = slice_ref(q, s, cluster);
        ret = refs && refs < max ? 0 : -ERANGE;
        if (!ret)
            slice_set_ref(q, s, cluster, refs + 1);
        qcache_put(s);
    } else if (!ret) {
        ret = -ERANGE;
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

/* ---- giving back --------------------------------------------------------------------- */

int co_qcow2_unref(struct qcow2 *q, uint64_t cluster, uint64_t *left)
{
    struct qslice *s;
    uint64_t refs = 0;
    int ret = co_ref_slice(q, cluster, &s);

    if (ret < 0)
        return ret;
    if (ret) {
        refs = slice_ref(q, s, cluster);
        if (refs)
            slice_set_ref(q, s, cluster, refs - 1);
        qcache_put(s);
    }
    if (!refs)
        return qcow2_corrupt(q, "cluster %" PRIu64 " was in use with refcount 0", cluster);
    *left = refs - 1;
    if (!*left)
        q->scan_cluster = MIN_OF(q->scan_cluster, cluster);
    if (!*left && q->pack_pos && (q->pack_pos - 1) >> q->g.cluster_bits == cluster)
        q->pack_pos = 0;
    return 0;
}

void co_qcow2_free_now(struct qcow2 *q, uint64_t host, uint64_t count)
{
    uint64_t left;

    co_mutex_lock(&q->alloc_lock);
    for (uint64_t i = 0; i < count; i++)
        if (co_qcow2_unref(q, (host >> q->g.cluster_bits) + i, &left))
            log_warn("%s: cluster at %#" PRIx64 " is leaked", qcow2_name(q), host);
    co_mutex_unlock(&q->alloc_lock);
}

void qcow2_free_later(struct qcow2 *q, uint64_t host, uint64_t count)
{
    if (qfree_add(&q->freed, host >> q->g.cluster_bits, count))
        log_warn("%s: out of memory, %" PRIu64 " clusters at %#" PRIx64 " are leaked",
                 qcow2_name(q), count, host);
}

void qcow2_free_entry_later(struct qcow2 *q, const struct qcow2_entry *e)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), offset, first;
    uint32_t bytes;

    if (e->compressed) {
        qcow2_compressed_range(&q->g, e->descriptor, &offset, &bytes);
        first = round_down_pow2(offset, cluster);
        qcow2_free_later(q, first, (offset + bytes - 1 - first) / cluster + 1);
    } else if (e->host && !(e->host & QCOW2_EXTERNAL)) {
        qcow2_free_later(q, e->host, 1);
    }
}

/* ---- opening ------------------------------------------------------------------------- */

static int co_load_table(struct qcow2 *q, struct error *err)
{
    uint64_t bytes = (uint64_t)q->h.rt_clusters << q->g.cluster_bits;
    uint64_t file_bytes = qcow2_file(q)->size_bytes;
    uint8_t *raw;
    int ret;

    q->rt_entries = bytes / 8;
    q->rt = calloc(q->rt_entries, 8);
    q->rt_dirty = calloc(BITMAP_WORDS(q->rt_entries / 64 + 1), 8);
    raw = calloc(1, bytes);
    if (!q->rt || !q->rt_dirty || !raw) {
        free(raw);
        return error_set(err, ENOMEM, "out of memory for the refcount table");
    }
    ret = co_blk_read(qcow2_file(q), q->h.rt_offset, raw,
                      MIN_OF(bytes, file_bytes - q->h.rt_offset), 0);
    for (uint64_t i = 0; i < q->rt_entries; i++)
        q->rt[i] = get_be64(raw + i * 8) & QCOW2_RT_MASK;
    free(raw);
    if (ret)
        return error_set(err, -ret, "can't read the refcount table");
    return 0;
}

int co_qcow2_find_end(struct qcow2 *q)
{
    uint64_t block = q->rt_entries, cluster;
    struct qslice *s;
    int ret;

    while (block && !q->rt[block - 1])
        block--;
    for (cluster = block << q->g.ref_block_bits; cluster; cluster--) {
        ret = co_ref_slice(q, cluster - 1, &s);
        if (ret < 0)
            return ret;
        if (!ret) { /* a whole block is missing */
            cluster = round_down_pow2(cluster - 1, UINT64_C(1) << q->g.ref_block_bits) + 1;
            continue;
        }
        while (cluster && !slice_ref(q, s, cluster - 1) && ref_index(q, cluster - 1))
            cluster--;
        ret = slice_ref(q, s, cluster - 1) != 0;
        qcache_put(s);
        if (ret)
            break;
    }
    q->end_cluster = cluster;
    return 0;
}

/* The tables named in the header must be counted, or the allocator would give them away. */
static int co_check_counted(struct qcow2 *q, struct error *err)
{
    const uint64_t places[] = {0, q->h.l1_offset, q->h.rt_offset};
    uint64_t refs;
    int ret;

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        ret = co_qcow2_refcount(q, places[i] >> q->g.cluster_bits, &refs);
        if (ret)
            return error_set(err, -ret, "can't read a refcount block");
        if (!refs)
            return error_set(err, EIO,
                             "refcounts are wrong (metadata at %#" PRIx64
                             " counted as free); run qemu-img check -r all",
                             places[i]);
    }
    return 0;
}

int co_qcow2_alloc_open(struct qcow2 *q, struct error *err)
{
    uint64_t file_clusters;
    int ret = co_load_table(q, err);

    if (!ret)
        ret = co_check_counted(q, err);
    if (ret)
        return ret;
    ret = co_qcow2_find_end(q);
    if (ret)
        return error_set(err, -ret, "can't read the refcount blocks");
    file_clusters =
        (qcow2_file(q)->size_bytes + qcow2_cluster_bytes(&q->g) - 1) >> q->g.cluster_bits;
    q->fresh_cluster = MAX_OF(q->end_cluster, file_clusters);
    return 0;
}
