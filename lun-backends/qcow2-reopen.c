/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealing a qcow2 node that is in use, and opening it for writing again. The allocator's tables
 * live only while the node is writable: what they say is read anew each time, so a sealed layer
 * costs no memory for them.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>
#include "util/loop.h"

static void drop_allocator(struct qcow2 *q)
{
    free(q->rt);
    free(q->rt_dirty);
    q->rt = q->rt_dirty = NULL;
    q->rt_entries = q->end_cluster = q->scan_cluster = q->fresh_cluster = 0;
}

/* Both files of an image that keeps its data in another one, or neither. */
static int co_reopen_files(struct qcow2 *q, bool writable, struct error *err)
{
    struct blk_node *data = q->node.data.child;
    struct error ignored = ERROR_INIT;
    int ret = co_blk_reopen(qcow2_file(q), writable, err);

    if (!ret && data) {
        ret = co_blk_reopen(data, writable, err);
        if (ret)
            co_blk_reopen(qcow2_file(q), !writable, &ignored);
    }
    return ret;
}

static int co_seal(struct qcow2 *q, struct error *err)
{
    int ret;

    ev_timer_stop(loop_ev(), &q->timer);
    ret = co_reopen_files(q, false, err);
    if (ret)
        return ret;
    drop_allocator(q);
    q->node.read_only = true;
    return 0;
}

static int co_unseal(struct qcow2 *q, struct error *err)
{
    struct error ignored = ERROR_INIT;
    int ret;

    if (q->h.incompatible & (QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DIRTY))
        return error_set(
            err, ENOTSUP, "%s is marked %s and can't be written; run qemu-img check -r all",
            qcow2_name(q), q->h.incompatible & QCOW2_INCOMPAT_CORRUPT ? "corrupt" : "dirty");
    ret = co_reopen_files(q, true, err);
    if (ret)
        return ret;
    ret = co_qcow2_alloc_open(q, err);
    if (!ret)
        ret = co_qcow2_clear_autoclear(q, err);
    if (ret) {
        error_prefix(err, "%s", qcow2_name(q));
        drop_allocator(q);
        co_reopen_files(q, false, &ignored);
        return ret;
    }
    q->node.read_only = false;
    return 0;
}

int co_qcow2_reopen(struct blk_node *node, bool writable, struct error *err)
{
    return writable ? co_unseal(qcow2_of(node), err) : co_seal(qcow2_of(node), err);
}
