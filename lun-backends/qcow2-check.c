/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 checker: counts what the image refers to. Nothing in the image is trusted: a table is
 * read only after its place was found to be inside the file, and every count is bounded by the
 * size of the file.
 */
#include "lun-backends/qcow2-check-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/bitmap.h"
#include "util/byteorder.h"
#include "util/coroutine.h"
#include "util/size.h"

#define MAX_CLUSTERS    (UINT64_C(1) << 36)
#define CHUNK_CLUSTERS  (UINT64_C(1) << QCHECK_CHUNK_BITS)
#define L1_RESERVED     UINT64_C(0x7f000000000001ff)
#define L2_RESERVED     UINT64_C(0x3f000000000001fe)
#define BITMAP_RESERVED UINT64_C(0xff000000000001fe)

void qcheck_say(struct qcheck *c, const char *fmt, ...)
{
    char line[256];
    va_list ap;

    if (!c->say)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    c->say(c->opaque, line);
}

void qcheck_corrupt(struct qcheck *c, const char *fmt, ...)
{
    char line[256];
    va_list ap;

    c->res->corruptions++;
    if (!c->say)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    qcheck_say(c, "ERROR %s", line);
}

int co_qcheck_read(struct qcheck *c, uint64_t offset, void *buf, size_t bytes)
{
    size_t there = offset < c->file_bytes ? MIN_OF(bytes, c->file_bytes - offset) : 0;
    int ret = there ? co_blk_read(c->file, offset, buf, there, 0) : 0;

    memset((char *)buf + there, 0, bytes - there);
    if (ret) {
        c->res->check_errors++;
        qcheck_say(c, "ERROR reading %zu bytes at %#" PRIx64 ": %s", bytes, offset, strerror(-ret));
    }
    return ret;
}

/* ---- counting ---------------------------------------------------------------------------- */

uint64_t qcheck_refs(const struct qcheck *c, uint64_t cluster)
{
    size_t i = cluster & (CHUNK_CLUSTERS - 1);
    const struct qcheck_chunk *k;

    if (cluster >= c->clusters)
        return 0;
    k = &c->chunks[cluster >> QCHECK_CHUNK_BITS];
    if (!k->refs)
        return 0;
    return k->wide ? ((uint32_t *)k->refs)[i] : ((uint16_t *)k->refs)[i];
}

static bool widen(struct qcheck_chunk *k)
{
    uint32_t *wide = malloc(CHUNK_CLUSTERS * sizeof(*wide));

    if (!wide)
        return false;
    for (size_t i = 0; i < CHUNK_CLUSTERS; i++)
        wide[i] = ((uint16_t *)k->refs)[i];
    free(k->refs);
    k->refs = wide;
    k->wide = true;
    return true;
}

static struct qcheck_chunk *chunk_for(struct qcheck *c, uint64_t cluster)
{
    struct qcheck_chunk *k = &c->chunks[cluster >> QCHECK_CHUNK_BITS];

    if (!k->refs) {
        k->refs = calloc(CHUNK_CLUSTERS, sizeof(uint16_t));
        k->kind = calloc(CHUNK_CLUSTERS, 1);
    }
    return k->refs && k->kind ? k : NULL;
}

static void count_one(struct qcheck *c, uint64_t cluster, enum qcheck_kind kind, const char *what)
{
    struct qcheck_chunk *k = chunk_for(c, cluster);
    size_t i = cluster & (CHUNK_CLUSTERS - 1);

    if (!k || (!k->wide && ((uint16_t *)k->refs)[i] == UINT16_MAX && !widen(k))) {
        c->out_of_memory = true;
        return;
    }
    if (k->wide)
        ((uint32_t *)k->refs)[i] += ((uint32_t *)k->refs)[i] != UINT32_MAX;
    else
        ((uint16_t *)k->refs)[i]++;
    if (k->kind[i] != QCHECK_FREE && (k->kind[i] != kind || kind == QCHECK_ALONE))
        qcheck_corrupt(c, "%s overlaps other %s in cluster %" PRIu64, what,
                       k->kind[i] == QCHECK_DATA ? "data" : "metadata", cluster);
    k->kind[i] = (uint8_t)MAX_OF((unsigned)k->kind[i], (unsigned)kind);
}

bool qcheck_is_lost(const struct qcheck *c, uint64_t cluster)
{
    return c->lost && cluster >= c->clusters && cluster < c->lost_end &&
           bitmap_test(c->lost, cluster - c->clusters);
}

static void note_lost(struct qcheck *c, uint64_t offset, uint64_t bytes)
{
    uint64_t first = MAX_OF(offset >> c->g.cluster_bits, c->clusters);
    uint64_t end =
        MIN_OF(((offset + bytes - 1) >> c->g.cluster_bits) + 1, c->clusters + QCHECK_LOST_CLUSTERS);

    if (first >= end)
        return;
    if (!c->lost)
        c->lost = calloc(BITMAP_WORDS(QCHECK_LOST_CLUSTERS), sizeof(*c->lost));
    if (!c->lost) {
        c->out_of_memory = true;
        return;
    }
    for (uint64_t i = first; i < end; i++)
        bitmap_set(c->lost, i - c->clusters);
    c->lost_end = MAX_OF(c->lost_end, end);
}

bool qcheck_count(struct qcheck *c, uint64_t offset, uint64_t bytes, enum qcheck_kind kind,
                  const char *what)
{
    uint64_t end = c->clusters << c->g.cluster_bits;

    if (!bytes)
        return true;
    if (offset >= end || bytes > end - offset) {
        qcheck_corrupt(c, "%s at %#" PRIx64 " lies past the end of the file", what, offset);
        note_lost(c, offset, bytes);
        return false;
    }
    for (uint64_t i = offset >> c->g.cluster_bits; i <= (offset + bytes - 1) >> c->g.cluster_bits;
         i++)
        count_one(c, i, kind, what);
    return true;
}

void qcheck_forget(struct qcheck *c)
{
    for (uint64_t i = 0; i < c->nr_chunks; i++) {
        free(c->chunks[i].refs);
        free(c->chunks[i].kind);
    }
    memset(c->chunks, 0, c->nr_chunks * sizeof(*c->chunks));
    free(c->lost);
    c->lost = NULL;
    c->lost_end = 0;
}

/* ---- L2 tables --------------------------------------------------------------------------- */

/* Where an L1 table is walked for, and what to add up meanwhile. */
struct walk {
    bool stats; /* of the disk as it is, not of a snapshot */
    uint64_t next_host;
    uint64_t guest; /* of the entry at hand */
};

static void count_compressed(struct qcheck *c, const struct walk *w, uint64_t v, uint64_t bitmap)
{
    uint64_t offset, start;
    uint32_t bytes;

    if (v & QCOW2_COPIED)
        qcheck_corrupt(c, "compressed cluster with the COPIED flag: L2 entry %#" PRIx64, v);
    if (bitmap)
        qcheck_corrupt(c, "compressed cluster with a subcluster bitmap: L2 entry %#" PRIx64, v);
    if (c->g.external)
        qcheck_corrupt(c, "compressed cluster beside a data file: L2 entry %#" PRIx64, v);
    qcow2_compressed_range(&c->g, v & (QCOW2_COMPRESSED - 1), &offset, &bytes);
    start = round_down_pow2(offset, QCOW2_SECTOR);
    qcheck_count(c, start, offset + bytes - start, QCHECK_DATA, "a compressed cluster");
    if (w->stats) {
        c->res->allocated_clusters++;
        c->res->compressed_clusters++;
        c->res->fragmented_clusters++; /* by nature */
    }
}

static void add_stats(struct qcheck *c, struct walk *w, uint64_t host)
{
    if (!w->stats)
        return;
    c->res->allocated_clusters++;
    c->res->fragmented_clusters += w->next_host && host != w->next_host;
    w->next_host = host + qcow2_cluster_bytes(&c->g);
}

/* In an external data file nothing is counted: each cluster has its own place. */
static void take_external(struct qcheck *c, struct walk *w, uint64_t host)
{
    if (host != w->guest)
        qcheck_corrupt(c, "guest cluster at %#" PRIx64 " lies at %#" PRIx64 " of the data file",
                       w->guest, host);
    add_stats(c, w, host);
}

static void count_standard(struct qcheck *c, struct walk *w, uint64_t v, uint64_t bitmap)
{
    uint64_t host = v & QCOW2_OFFSET_MASK, cluster = qcow2_cluster_bytes(&c->g);
    bool ext = c->g.subs > 1, flag_reserved = ext || c->g.version < 3;
    uint32_t alloc = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);

    if ((v & L2_RESERVED) || (flag_reserved && (v & QCOW2_ZERO)))
        qcheck_corrupt(c, "L2 entry with reserved bits set: %#" PRIx64, v);
    if ((alloc & zero) || (alloc && !host && !c->g.external))
        qcheck_corrupt(c, "impossible subcluster bitmap %#" PRIx64 " in L2 entry %#" PRIx64, bitmap,
                       v);
    if (c->g.external) {
        if (host || ((v & QCOW2_COPIED) && !(v & QCOW2_ZERO))) /* see qcow2_entry_decode() */
            take_external(c, w, host);
        return;
    }
    if (!host) {
        if (v & QCOW2_COPIED)
            qcheck_corrupt(c, "COPIED flag without a cluster: L2 entry %#" PRIx64, v);
        return;
    }
    if (host & (cluster - 1)) {
        qcheck_corrupt(c, "data cluster at %#" PRIx64 " is not aligned", host);
        return;
    }
    if (qcheck_count(c, host, cluster, QCHECK_DATA, "a data cluster"))
        add_stats(c, w, host);
}

static void count_l2(struct qcheck *c, struct walk *w, uint64_t table_guest)
{
    w->next_host = 0;
    for (size_t at = 0; at < qcow2_cluster_bytes(&c->g); at += c->g.entry_bytes) {
        uint64_t v = get_be64(c->table + at);
        uint64_t bitmap = c->g.subs > 1 ? get_be64(c->table + at + 8) : 0;

        w->guest = table_guest + ((at / c->g.entry_bytes) << c->g.cluster_bits);
        if (v & QCOW2_COMPRESSED)
            count_compressed(c, w, v, bitmap);
        else if (v || bitmap)
            count_standard(c, w, v, bitmap);
    }
}

static void co_count_l1_entry(struct qcheck *c, struct walk *w, uint32_t index, uint64_t v)
{
    uint64_t table = v & QCOW2_OFFSET_MASK;

    if (v & L1_RESERVED)
        qcheck_corrupt(c, "L1 entry with reserved bits set: %#" PRIx64, v);
    if (!table)
        return;
    if (table & (qcow2_cluster_bytes(&c->g) - 1)) {
        qcheck_corrupt(c, "L2 table at %#" PRIx64 " is not aligned", table);
        return;
    }
    if (qcheck_count(c, table, qcow2_cluster_bytes(&c->g), QCHECK_L2, "an L2 table") &&
        !co_qcheck_read(c, table, c->table, qcow2_cluster_bytes(&c->g)))
        count_l2(c, w, (uint64_t)index << (c->g.cluster_bits + c->g.l2_bits));
    co_pause(); /* in a daemon others have work too */
}

static int co_count_l1(struct qcheck *c, uint64_t offset, uint32_t entries, bool stats)
{
    struct walk w = {.stats = stats};
    uint64_t bytes = (uint64_t)entries * 8;
    uint8_t *l1;

    if (!entries || (offset & (qcow2_cluster_bytes(&c->g) - 1)) || bytes > QCOW2_MAX_L1_BYTES) {
        if (entries)
            qcheck_corrupt(c, "L1 table at %#" PRIx64 " is misplaced or too large", offset);
        return 0;
    }
    if (!qcheck_count(c, offset, bytes, QCHECK_ALONE, "an L1 table"))
        return 0;
    l1 = malloc(bytes);
    if (!l1)
        return -ENOMEM;
    if (!co_qcheck_read(c, offset, l1, bytes))
        for (uint32_t i = 0; i < entries && !c->out_of_memory; i++)
            co_count_l1_entry(c, &w, i, get_be64(l1 + (size_t)i * 8));
    free(l1);
    return c->out_of_memory ? -ENOMEM : 0;
}

/* ---- bitmaps, all --------------------------------------------------------------------------- */

static int co_count_bitmap(struct qcheck *c, const struct qcow2_bitmap_info *b)
{
    uint64_t bytes = (uint64_t)b->table_entries * 8;
    uint8_t *table;

    if (!qcheck_count(c, b->table_offset, bytes, QCHECK_ALONE, "a bitmap table"))
        return 0;
    table = malloc(MAX_OF(bytes, 1));
    if (!table)
        return -ENOMEM;
    if (!co_qcheck_read(c, b->table_offset, table, bytes)) {
        for (uint32_t i = 0; i < b->table_entries; i++) {
            uint64_t v = get_be64(table + (size_t)i * 8), host = v & QCOW2_OFFSET_MASK;

            if (v & BITMAP_RESERVED)
                qcheck_corrupt(c, "bitmap '%s' has a bad table entry %#" PRIx64, b->name, v);
            else if (host)
                qcheck_count(c, host, qcow2_cluster_bytes(&c->g), QCHECK_ALONE,
                             "a bitmap's cluster");
        }
    }
    free(table);
    return 0;
}

int co_qcheck_count_all(struct qcheck *c, bool with_refcounts)
{
    const struct qcow2_description *d = &c->d;
    int ret;

    qcheck_count(c, 0, qcow2_cluster_bytes(&c->g), QCHECK_ALONE, "the header");
    ret = co_count_l1(c, c->h.l1_offset, c->h.l1_entries, true);
    if ((c->h.snapshots_offset & (qcow2_cluster_bytes(&c->g) - 1)) ||
        c->h.snapshots_offset > INT64_MAX)
        qcheck_corrupt(c, "the snapshot table is misplaced (%#" PRIx64 ")", c->h.snapshots_offset);
    qcheck_count(c, d->snapshots_offset, d->snapshots_bytes, QCHECK_ALONE, "the snapshot table");
    for (unsigned i = 0; i < d->nr_snapshots && !ret; i++)
        ret = co_count_l1(c, d->snapshots[i].l1_offset, d->snapshots[i].l1_entries, false);
    qcheck_count(c, d->bitmaps_offset, d->bitmaps_bytes, QCHECK_ALONE, "the bitmap directory");
    for (unsigned i = 0; i < d->nr_bitmaps && !ret; i++)
        ret = co_count_bitmap(c, &d->bitmaps[i]);
    if (!ret && with_refcounts)
        co_qcheck_count_refcounts(c);
    return c->out_of_memory ? -ENOMEM : ret;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int co_open(struct qcheck *c, struct error *err)
{
    int ret;

    c->file_bytes = c->file->size_bytes;
    ret = co_qcow2_describe(c->file, &c->d, err);
    if (!ret)
        ret = co_blk_read(c->file, 0, c->sector, MIN_OF(c->file_bytes, sizeof(c->sector)), 0);
    if (!ret)
        ret = qcow2_header_decode(c->sector, MIN_OF(c->file_bytes, sizeof(c->sector)), &c->h, err);
    if (!ret)
        ret = qcow2_header_check_features(&c->h, false, NULL, 0, err);
    if (!ret)
        ret = qcow2_header_check_file(&c->h, c->file_bytes, err);
    if (ret)
        return *err->msg ? ret : error_set(err, -ret, "can't read the header: %s", strerror(-ret));
    qcow2_geometry_init(&c->g, &c->h);
    c->clusters = (c->file_bytes + qcow2_cluster_bytes(&c->g) - 1) >> c->g.cluster_bits;
    if (c->clusters > MAX_CLUSTERS)
        return error_set(err, EFBIG, "the file has too many clusters to be checked");
    c->res->total_clusters =
        (c->h.size_bytes + qcow2_cluster_bytes(&c->g) - 1) >> c->g.cluster_bits;
    c->nr_chunks = (c->clusters >> QCHECK_CHUNK_BITS) + 1;
    c->chunks = calloc(c->nr_chunks, sizeof(*c->chunks));
    c->table = malloc(qcow2_cluster_bytes(&c->g));
    c->block = malloc(qcow2_cluster_bytes(&c->g));
    c->block_index = UINT64_MAX;
    if (!c->chunks || !c->table || !c->block)
        return error_set(err, ENOMEM, "out of memory");
    return co_qcheck_load_table(c, err);
}

static void release(struct qcheck *c)
{
    if (c->chunks)
        qcheck_forget(c);
    free(c->chunks);
    free(c->table);
    free(c->block);
    free(c->rt);
    qcow2_description_release(&c->d);
}

static int co_analyse(struct qcheck *c, struct error *err)
{
    int ret = co_open(c, err);

    if (ret)
        return ret;
    ret = co_qcheck_count_all(c, true);
    if (!ret)
        ret = co_qcheck_compare(c);
    return ret ? error_set(err, -ret, "checking the image: %s", strerror(-ret)) : 0;
}

static int co_repair_and_finish(struct qcheck *c, struct error *err)
{
    bool changed = c->fix && (c->low || c->high || c->beyond || c->rebuild);
    int ret = co_qcheck_raw_bit(c, err);

    /* With parts unread, what looks like a leak may be somebody's data. */
    if (!ret && changed && !c->res->check_errors)
        ret = co_qcheck_fix_refcounts(c, err);
    if (ret)
        return ret;
    ret = co_qcheck_copied(c, c->fix && !c->res->check_errors &&
                                  ((c->fix & QCOW2_FIX_ERRORS) || !c->res->corruptions));
    if (ret)
        return error_set(err, -ret, "repairing the image: %s", strerror(-ret));
    if (c->fix && !c->res->check_errors && !c->res->corruptions)
        ret = co_qcheck_mark_clean(c, err);
    return ret;
}

int co_qcow2_check(struct blk_node *file, unsigned fix, qcow2_say_fn *say, void *opaque,
                   struct qcow2_check_result *res, struct error *err)
{
    struct qcheck *c = calloc(1, sizeof(*c));
    int ret;

    *res = (struct qcow2_check_result){0};
    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->file = file;
    c->fix = fix;
    c->say = say;
    c->opaque = opaque;
    c->res = res;
    ret = co_analyse(c, err);
    if (!ret)
        ret = co_repair_and_finish(c, err);
    release(c);
    free(c);
    return ret;
}

int co_qcheck_free_leaks(struct blk_node *file, uint64_t *freed, struct error *err)
{
    struct qcheck *c = calloc(1, sizeof(*c));
    struct qcow2_check_result res = {0};
    int ret;

    *freed = 0;
    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->file = file;
    c->fix = QCOW2_FIX_LEAKS;
    c->res = &res;
    ret = co_analyse(c, err);
    if (!ret && (res.corruptions || res.check_errors))
        ret = error_set(err, EIO,
                        "the image has %" PRIu64 " errors, so leaked clusters are left alone; "
                        "run cowtgt image check on it",
                        res.corruptions + res.check_errors);
    if (!ret && (c->high || c->beyond))
        ret = co_qcheck_fix_refcounts(c, err);
    *freed = res.leaks_fixed;
    release(c);
    free(c);
    return ret;
}
