/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data and holes of a file by SEEK_DATA / SEEK_HOLE, on a helper thread. QEMU's clients ask for
 * one extent at a time, so of a file open read-only a look takes in many extents ahead and is
 * kept. A sector that holds any data is data; past the end there are zeros.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "lun-backends/file-int.h"
#include "util/size.h"

struct look {
    struct work work;
    struct file_node *f;
    struct blk_req *req;
    uint64_t offset_bytes, end_bytes;
    unsigned max;
    struct file_status found;
};

static void add(struct look *l, uint64_t end, bool data)
{
    l->found.stretch[l->found.nr++] = (struct file_stretch){MIN_OF(end, l->end_bytes), data};
}

/* A file system without holes answers with an error: all data. */
static void look_on_helper(struct work *w)
{
    struct look *l = container_of(w, struct look, work);
    uint64_t pos = l->offset_bytes;
    int fd = l->f->fd;

    while (l->found.nr < l->max && pos < l->end_bytes) {
        off_t data = lseek(fd, (off_t)pos, SEEK_DATA);

        if (data < 0) {
            add(l, l->end_bytes, errno != ENXIO);
        } else if ((uint64_t)data > pos) {
            add(l, (uint64_t)data, false);
        } else {
            off_t hole = lseek(fd, (off_t)pos, SEEK_HOLE);

            add(l, hole > data ? (uint64_t)hole : l->end_bytes, true);
        }
        pos = l->found.stretch[l->found.nr - 1].end_bytes;
    }
}

static void answer(struct blk_req *req, uint64_t end, bool data)
{
    uint64_t length = round_up_pow2(end, 512) - req->offset_bytes;

    req->extent.offset_bytes = req->offset_bytes;
    req->extent.length_bytes = MIN_OF(length, req->length_bytes);
    req->extent.state = data ? BLK_ST_DATA : BLK_ST_ZERO;
    blk_complete(req, 0);
}

static void looked(struct work *w)
{
    struct look *l = container_of(w, struct look, work);
    struct file_stretch first = l->found.stretch[0];

    l->found.start_bytes = l->offset_bytes;
    if (l->f->node.read_only)
        l->f->known = l->found;
    answer(l->req, first.end_bytes, first.data);
    free(l);
}

static bool answer_from_known(const struct file_status *k, struct blk_req *req)
{
    unsigned lo = 0, hi = k->nr;

    if (!k->nr || req->offset_bytes < k->start_bytes ||
        req->offset_bytes >= k->stretch[k->nr - 1].end_bytes)
        return false;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (k->stretch[mid].end_bytes <= req->offset_bytes)
            lo = mid + 1;
        else
            hi = mid;
    }
    answer(req, k->stretch[lo].end_bytes, k->stretch[lo].data);
    return true;
}

void file_submit_status(struct blk_node *node, struct blk_req *req)
{
    struct file_node *f = to_file(node);
    struct look *l;

    if (req->offset_bytes >= node->size_bytes) {
        answer(req, req->offset_bytes + req->length_bytes, false);
        return;
    }
    if (node->read_only && answer_from_known(&f->known, req))
        return;
    l = calloc(1, sizeof(*l));
    if (!l) {
        answer(req, node->size_bytes, true);
        return;
    }
    l->f = f;
    l->req = req;
    l->offset_bytes = req->offset_bytes;
    l->end_bytes = node->size_bytes;
    l->max = node->read_only ? FILE_STATUS_AHEAD : 1;
    l->work = (struct work){.run = look_on_helper, .done = looked};
    workers_submit(&l->work);
}
