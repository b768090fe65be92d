/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 checker: the image's own refcounts and COPIED flags beside what was counted.
 */
#include "lun-backends/qcow2-check-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/coroutine.h"
#include "util/size.h"

int co_qcheck_load_table(struct qcheck *c, struct error *err)
{
    uint64_t bytes = (uint64_t)c->h.rt_clusters << c->g.cluster_bits;
    uint8_t *raw = malloc(bytes);
    int ret;

    c->rt_entries = bytes / 8;
    c->rt = calloc(c->rt_entries, 8);
    if (!raw || !c->rt) {
        free(raw);
        return error_set(err, ENOMEM, "out of memory for the refcount table");
    }
    ret = co_qcheck_read(c, c->h.rt_offset, raw, bytes);
    for (uint64_t i = 0; i < c->rt_entries; i++)
        c->rt[i] = get_be64(raw + i * 8);
    free(raw);
    return ret ? error_set(err, -ret, "can't read the refcount table") : 0;
}

/* Entries that can't be used become 0: then nothing is counted there. */
void co_qcheck_count_refcounts(struct qcheck *c)
{
    uint64_t cluster = qcow2_cluster_bytes(&c->g);

    qcheck_count(c, c->h.rt_offset, (uint64_t)c->h.rt_clusters << c->g.cluster_bits, QCHECK_ALONE,
                 "the refcount table");
    for (uint64_t i = 0; i < c->rt_entries; i++) {
        uint64_t v = c->rt[i], block = v & QCOW2_RT_MASK;
        bool good = true;

        if (!v)
            continue;
        if (v != block || (block & (cluster - 1))) {
            qcheck_corrupt(c, "refcount table entry %" PRIu64 " is bad: %#" PRIx64, i, v);
            good = false;
        } else {
            good = qcheck_count(c, block, cluster, QCHECK_ALONE, "a refcount block");
        }
        if (good && qcheck_refs(c, block >> c->g.cluster_bits) != 1)
            c->rebuild = true; /* the overlap is said and counted */
        if (!good) {
            c->rebuild = true;
            c->rt[i] = 0;
        }
    }
}

int co_qcheck_load_block(struct qcheck *c, uint64_t index)
{
    int ret = 0;

    if (c->block_index == index)
        return 0;
    c->block_index = UINT64_MAX;
    if (index < c->rt_entries && c->rt[index])
        ret = co_qcheck_read(c, c->rt[index], c->block, qcow2_cluster_bytes(&c->g));
    else
        memset(c->block, 0, qcow2_cluster_bytes(&c->g));
    if (!ret)
        c->block_index = index;
    return ret;
}

int co_qcheck_disk_ref(struct qcheck *c, uint64_t cluster, uint64_t *refs)
{
    int ret = co_qcheck_load_block(c, cluster >> c->g.ref_block_bits);
    uint32_t index = (uint32_t)(cluster & ((UINT64_C(1) << c->g.ref_block_bits) - 1));

    *refs = ret ? 0 : qcow2_refcount_get(c->block, c->g.refcount_order, index);
    return ret;
}

/* ---- refcounts ----------------------------------------------------------------------------- */

static void compare_one(struct qcheck *c, uint64_t cluster, uint64_t disk, uint64_t counted)
{
    if (disk || counted)
        c->res->image_end_bytes = (cluster + 1) << c->g.cluster_bits;
    if (disk == counted)
        return;
    if (disk > counted) {
        c->res->leaks++;
        c->high++;
    } else {
        c->res->corruptions++;
        c->low++;
    }
    qcheck_say(c, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
               disk > counted ? "Leaked" : "ERROR", cluster, disk, counted);
}

static void compare_block(struct qcheck *c, uint64_t index)
{
    uint64_t first = index << c->g.ref_block_bits;
    uint32_t count = UINT32_C(1) << c->g.ref_block_bits;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t disk = qcow2_refcount_get(c->block, c->g.refcount_order, i);

        if (first + i < c->clusters)
            compare_one(c, first + i, disk, qcheck_refs(c, first + i));
        else
            c->beyond += disk != 0 && !qcheck_is_lost(c, first + i);
    }
}

int co_qcheck_compare(struct qcheck *c)
{
    uint64_t blocks = MAX_OF(c->rt_entries, ((c->clusters - 1) >> c->g.ref_block_bits) + 1);

    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t first = i << c->g.ref_block_bits;

        if (first >= c->clusters && (i >= c->rt_entries || !c->rt[i]))
            continue;
        if (co_qcheck_load_block(c, i))
            continue;
        compare_block(c, i);
        if (i % 64 == 63)
            co_pause();
    }
    return 0;
}

/* ---- COPIED flags ---------------------------------------------------------------------------- */

/* 1: the entry was changed; it says COPIED exactly if the refcount is 1, as it always is in an
 * external data file. */
static int co_copied_entry(struct qcheck *c, uint8_t *raw, const char *what, bool external,
                           bool repair)
{
    uint64_t v = get_be64(raw), host = v & QCOW2_OFFSET_MASK, refs = 1;
    int ret = 0;

    if (!host || (host & (qcow2_cluster_bytes(&c->g) - 1)))
        return 0;
    if (!external && host >> c->g.cluster_bits >= c->clusters)
        return 0;
    if (!external)
        ret = co_qcheck_disk_ref(c, host >> c->g.cluster_bits, &refs);
    if (ret || (refs == 1) == !!(v & QCOW2_COPIED))
        return 0;
    qcheck_say(c, "%s OFLAG_COPIED %s: entry=%" PRIx64 " refcount=%" PRIu64,
               repair ? "Repairing" : "ERROR", what, v, refs);
    if (!repair) {
        c->res->corruptions++;
        return 0;
    }
    c->res->corruptions_fixed++;
    put_be64(raw, v ^ QCOW2_COPIED);
    return 1;
}

static int co_copied_table(struct qcheck *c, uint64_t table, bool repair)
{
    uint64_t bytes = qcow2_cluster_bytes(&c->g);
    bool changed = false;

    if (!table || (table & (bytes - 1)) || table >> c->g.cluster_bits >= c->clusters)
        return 0;
    if (co_qcheck_read(c, table, c->table, bytes))
        return 0;
    for (size_t at = 0; at < bytes; at += c->g.entry_bytes)
        if (!(get_be64(c->table + at) & QCOW2_COMPRESSED))
            changed |= co_copied_entry(c, c->table + at, "data cluster", c->g.external, repair);
    co_pause();
    return changed ? co_blk_write(c->file, table, c->table, bytes, 0) : 0;
}

int co_qcheck_copied(struct qcheck *c, bool repair)
{
    uint64_t bytes = (uint64_t)c->h.l1_entries * 8;
    uint8_t *l1 = malloc(MAX_OF(bytes, 1));
    bool changed = false;
    int ret = 0;

    if (!l1)
        return -ENOMEM;
    if (!co_qcheck_read(c, c->h.l1_offset, l1, bytes)) {
        for (uint32_t i = 0; i < c->h.l1_entries && !ret; i++) {
            uint8_t *entry = l1 + (size_t)i * 8;

            changed |= co_copied_entry(c, entry, "L2 table", false, repair);
            ret = co_copied_table(c, get_be64(entry) & QCOW2_OFFSET_MASK, repair);
        }
        if (changed && !ret)
            ret = co_blk_write(c->file, c->h.l1_offset, l1, bytes, 0);
        if (repair && !ret)
            ret = co_blk_flush(c->file);
    }
    free(l1);
    return ret;
}
