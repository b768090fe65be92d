/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk as it was at an internal snapshot, for reading: the image with the snapshot's L1 table
 * and size in place of its own. The snapshot's clusters are those of the image, shared.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <string.h>
#include "lun-backends/qcow2-offline.h"

static bool fits(const struct qcow2_snapshot_info *s, const struct qcow2_snapshot_name *n)
{
    return (!n->id || !strcmp(s->id, n->id)) && (!n->name || !strcmp(s->name, n->name));
}

static const struct qcow2_snapshot_info *find(const struct qcow2_description *d,
                                              const struct qcow2_snapshot_name *n)
{
    for (unsigned i = 0; i < d->nr_snapshots; i++)
        if (n->any ? !strcmp(d->snapshots[i].id, n->any) : fits(&d->snapshots[i], n))
            return &d->snapshots[i];
    for (unsigned i = 0; n->any && i < d->nr_snapshots; i++)
        if (!strcmp(d->snapshots[i].name, n->any))
            return &d->snapshots[i];
    return NULL;
}

static int take(struct qcow2 *q, const struct qcow2_snapshot_info *s, struct error *err)
{
    uint64_t cluster = qcow2_cluster_bytes(&q->g), file_bytes = qcow2_file(q)->size_bytes;
    uint64_t size = s->disk_bytes ? s->disk_bytes : q->h.size_bytes;
    uint64_t bytes = (uint64_t)s->l1_entries * 8;

    if (bytes > QCOW2_MAX_L1_BYTES || s->l1_offset & (cluster - 1) || s->l1_offset > file_bytes ||
        bytes > file_bytes - s->l1_offset || size > INT64_MAX / 2 ||
        qcow2_l1_entries(&q->g, size) > s->l1_entries)
        return error_set(err, EINVAL, "snapshot '%.64s': its L1 table is not in order", s->name);
    q->h.l1_offset = s->l1_offset;
    q->h.l1_entries = s->l1_entries;
    q->h.size_bytes = size;
    return 0;
}

int co_qcow2_use_snapshot(struct qcow2 *q, const struct qcow2_snapshot_name *name,
                          struct error *err)
{
    const char *said = name->any ? name->any : name->name ? name->name : name->id;
    const struct qcow2_snapshot_info *s;
    struct qcow2_description d;
    int ret;

    if (!q->node.read_only)
        return error_set(err, EROFS, "a snapshot can only be read");
    ret = co_qcow2_describe(qcow2_file(q), &d, err);
    if (ret)
        return ret;
    s = find(&d, name);
    ret = s ? take(q, s, err)
            : error_set(err, ENOENT, "there is no snapshot '%.64s'", said ? said : "");
    qcow2_description_release(&d);
    return ret;
}
