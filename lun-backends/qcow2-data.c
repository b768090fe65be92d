/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest data in an external data file. Each guest cluster has its place there, at its own guest
 * offset, so there is nothing to allocate and nothing to count; L2 entries still say which
 * clusters hold data. Invariant: what is in the data file is stable before an entry that says so.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/chain.h"
#include "util/size.h"

static int co_open_file(struct qcow2 *q, const struct qcow2_open_opts *opts, char path[PATH_MAX],
                        struct error *err)
{
    const struct file_opts fo = {
        .writable = opts->writable,
        .no_lock = opts->no_lock,
        .cache = opts->cache,
    };
    struct file_identity image, data_id;
    struct blk_node *data;
    int ret;

    ret = chain_resolve_data_file(qcow2_name(q), q->data_file, path, PATH_MAX, err);
    if (!ret)
        ret = co_file_open(path, &fo, &data, err);
    if (ret)
        return error_prefix(err, "its external data file");
    if (!strcmp(qcow2_file(q)->drv->name, "file")) {
        file_node_identity(qcow2_file(q), &image);
        file_node_identity(data, &data_id);
        if (image.dev == data_id.dev && image.inode == data_id.inode)
            ret = error_set(err, EINVAL, "the image names itself as its external data file");
    }
    if (!ret)
        blk_set_data(&q->node, data);
    co_blk_node_unref(data);
    return ret;
}

int co_qcow2_open_data(struct qcow2 *q, const struct qcow2_open_opts *opts, struct error *err)
{
    char *path;
    int ret;

    if (!q->g.external)
        return 0;
    if (!q->data_file)
        return error_set(err, EINVAL, "the image has an external data file and does not name it");
    if (!qcow2_file(q)->filename)
        return error_set(err, ENOTSUP, "an external data file needs an image that is a file too");
    path = malloc(PATH_MAX); /* large for a coroutine's stack */
    if (!path)
        return error_set(err, ENOMEM, "out of memory");
    ret = co_open_file(q, opts, path, err);
    free(path);
    return ret;
}

/* What an older use of the place left there may still be in it: never fresh. */
int co_qcow2_alloc_data(struct qcow2 *q, uint64_t guest, uint64_t want, uint64_t *host,
                        uint64_t *got, bool *fresh)
{
    if (!q->g.external)
        return co_qcow2_alloc(q, want, host, got, fresh);
    *host = guest | QCOW2_EXTERNAL;
    *got = want;
    *fresh = false;
    return 0;
}

void co_qcow2_free_data_now(struct qcow2 *q, uint64_t host, uint64_t count)
{
    if (!(host & QCOW2_EXTERNAL))
        co_qcow2_free_now(q, host, count);
}

int co_qcow2_flush_files(struct qcow2 *q)
{
    int ret = q->node.data.child ? co_blk_flush(q->node.data.child) : 0;

    return ret ? ret : co_blk_flush(qcow2_file(q));
}

/* Entries stay as they are: data goes on being data, of zeros. What is no data reads zeros in both,
 * as such an image has no backing. */
int co_qcow2_zero_raw_data(struct qcow2 *q, uint64_t off, uint64_t end, uint32_t flags)
{
    struct qrun run;
    int ret = 0;

    if (flags & BLK_IF_UNALLOCATED)
        return 0;
    for (; off < end && !ret; off += run.bytes) {
        ret = co_qcow2_map(q, off, end - off, &run);
        if (!ret && run.kind == QRUN_DATA && !run.past_end)
            ret = co_blk_write_zeroes(q->node.data.child, off, run.bytes, flags & BLK_MAY_UNMAP);
        co_pause();
    }
    return ret;
}
