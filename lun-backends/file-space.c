/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space and stability: growing a file ahead of its writes, zeroing and punching ranges,
 * fdatasync. All of it blocks, so all of it runs on helper threads.
 *
 * A flush answers only requests that came before its fdatasync began. Once fdatasync failed, the
 * kernel may have dropped what it could not write: every later flush fails too.
 */
#define LOG_AREA "file"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lun-backends/file-int.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/size.h"

#define GROW_MIN_BYTES   (1u << 20)
#define GROW_MAX_BYTES   (64u << 20)
#define GROW_ALIGN_BYTES (64u << 10)

/* ---- growth ---------------------------------------------------------------------------- */

static int fallocate_retry(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    int ret;

    do {
        ret = fallocate(fd, mode, (off_t)offset, (off_t)bytes);
    } while (ret && errno == EINTR);
    return ret ? -errno : 0;
}

/* With a full disk, a quota or a limit: what is needed is better than nothing. */
static void grow_on_helper(struct work *w)
{
    struct file_node *f = container_of(w, struct file_node, grow_work);
    uint64_t need = round_up_pow2(f->grow_need, GROW_ALIGN_BYTES);
    struct stat st;
    int ret = fallocate_retry(f->fd, 0, f->grow_from, f->grow_to - f->grow_from);

    if (ret && ret != -EOPNOTSUPP && need < f->grow_to)
        ret = fallocate_retry(f->fd, 0, f->grow_from, need - f->grow_from);
    f->grow_sparse = ret == -EOPNOTSUPP;
    if (f->grow_sparse)
        ret = ftruncate(f->fd, (off_t)need) ? -errno : 0;
    if (!fstat(f->fd, &st))
        f->grow_to = (uint64_t)st.st_size;
    else
        ret = ret ? ret : -errno;
    f->grow_result = ret;
}

static void grown(struct work *w)
{
    struct file_node *f = container_of(w, struct file_node, grow_work);
    struct list_head waiters = LIST_HEAD_INIT(waiters);

    f->growing = false;
    f->grown = true;
    f->sparse |= f->grow_sparse || f->grow_from > f->real_end;
    f->real_end = MAX_OF(f->real_end, f->grow_to);
    list_splice_tail(&waiters, &f->grow_waiters);
    while (!list_empty(&waiters)) {
        struct file_op *op = list_first_entry(&waiters, struct file_op, link);

        list_del(&op->link);
        if (f->grow_result && op->req->offset_bytes + op->req->length_bytes > f->real_end)
            file_change_finish(op, f->grow_result);
        else
            op->go(op);
    }
}

/* What lies between the end and a write far behind it stays a hole. */
static void start_growing(struct file_node *f, uint64_t from, uint64_t need)
{
    uint64_t step = MIN_OF(MAX_OF(f->real_end / 8, GROW_MIN_BYTES), GROW_MAX_BYTES);
    bool far = from > f->real_end + GROW_MAX_BYTES;

    f->grow_from = far ? round_down_pow2(from, GROW_ALIGN_BYTES) : f->real_end;
    f->grow_need = need;
    f->grow_to = round_up_pow2(MAX_OF(need, f->grow_from + step), GROW_ALIGN_BYTES);
    f->growing = true;
    f->grow_work = (struct work){.run = grow_on_helper, .done = grown};
    workers_submit(&f->grow_work);
}

bool file_have_space(struct file_op *op, uint64_t end_bytes)
{
    struct file_node *f = op->f;

    if (end_bytes <= f->real_end)
        return true;
    if (f->is_blkdev || end_bytes > (uint64_t)INT64_MAX - GROW_MAX_BYTES) {
        file_change_finish(op, f->is_blkdev ? -ENOSPC : -EFBIG);
        return false;
    }
    list_add_tail(&f->grow_waiters, &op->link);
    if (!f->growing)
        start_growing(f, op->req->offset_bytes, end_bytes);
    return false;
}

struct truncate_job {
    int fd;
    uint64_t bytes;
};

static int truncate_on_helper(void *arg)
{
    struct truncate_job *j = arg;

    return ftruncate(j->fd, (off_t)j->bytes) ? -errno : 0;
}

static int co_set_length(struct file_node *f, uint64_t bytes)
{
    struct truncate_job j = {f->fd, bytes};
    int ret;

    file_recall(f, bytes, UINT64_MAX);
    ret = co_work(truncate_on_helper, &j);
    if (!ret) {
        f->sparse |= bytes > f->real_end;
        f->real_end = bytes;
    }
    return ret;
}

int co_file_trim_tail(struct file_node *f)
{
    int ret = 0;

    if (f->grown && f->real_end > f->node.size_bytes)
        ret = co_set_length(f, f->node.size_bytes);
    f->grown = f->grown && ret;
    return ret;
}

int co_file_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    struct file_node *f = to_file(node);
    int ret = 0;

    if (f->is_blkdev && size_bytes > f->real_end)
        return error_set(err, ENOSPC, "'%s' is a block device and can't grow", node->filename);
    if (size_bytes > INT64_MAX)
        return error_set(err, EFBIG, "resizing '%s': size too large", node->filename);
    if (!f->is_blkdev)
        ret = co_set_length(f, size_bytes);
    if (ret)
        return error_set(err, -ret, "resizing '%s': %s", node->filename, strerror(-ret));
    node->size_bytes = size_bytes;
    return 0;
}

/* ---- flush ----------------------------------------------------------------------------- */

static void sync_on_helper(struct work *w)
{
    struct file_node *f = container_of(w, struct file_node, flush_work);
    int ret;

    do {
        ret = fdatasync(f->fd) ? -errno : 0;
    } while (ret == -EINTR);
    if (!f->flush_result)
        f->flush_result = ret;
}

static void synced(struct work *w);

static void start_sync(struct file_node *f)
{
    f->flushing = true;
    list_splice_tail(&f->flush_now, &f->flush_next);
    f->flush_work = (struct work){.run = sync_on_helper, .done = synced};
    workers_submit(&f->flush_work);
}

static void synced(struct work *w)
{
    struct file_node *f = container_of(w, struct file_node, flush_work);
    struct list_head answered = LIST_HEAD_INIT(answered);
    int ret = f->flush_result;

    if (ret && !f->flush_told)
        log_err("fdatasync of '%s' failed: %s; no flush will succeed until it is opened again",
                f->node.filename, strerror(-ret));
    f->flush_told = ret != 0;
    list_splice_tail(&answered, &f->flush_now);
    f->flushing = false;
    if (!list_empty(&f->flush_next))
        start_sync(f);
    while (!list_empty(&answered)) {
        struct file_op *op = list_first_entry(&answered, struct file_op, link);

        list_del(&op->link);
        file_op_finish(op, ret);
    }
}

void file_flush_op(struct file_op *op)
{
    struct file_node *f = op->f;

    list_add_tail(&f->flush_next, &op->link);
    if (!f->flushing)
        start_sync(f);
}

void file_submit_flush(struct blk_node *node, struct blk_req *req)
{
    if (node->read_only)
        blk_complete(req, 0);
    else
        file_flush_op(file_op_get(to_file(node), req));
}

/* ---- zeroes and holes ------------------------------------------------------------------ */

#define MODE_PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define MODE_ZERO  (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static void deallocate_on_helper(struct work *w)
{
    struct file_op *op = container_of(w, struct file_op, work);
    struct file_node *f = op->f;
    struct blk_req *req = op->req;
    bool punch = req->verb == BLK_DISCARD || (req->flags & BLK_MAY_UNMAP);
    uint64_t range[2] = {req->offset_bytes, req->length_bytes};

    op->result = -EOPNOTSUPP;
    if (punch)
        op->result = fallocate_retry(f->fd, MODE_PUNCH, range[0], range[1]);
    if (op->result != -EOPNOTSUPP || req->verb == BLK_DISCARD)
        return;
    if (f->is_blkdev)
        op->result = ioctl(f->fd, BLKZEROOUT, range) ? -EOPNOTSUPP : 0;
    else
        op->result = fallocate_retry(f->fd, MODE_ZERO, range[0], range[1]);
}

static const uint8_t zeros[64u << 10] __attribute__((aligned(4096)));

/* The file system can't: writes of zeros, by the ordinary way. */
static void co_write_zeros(void *arg)
{
    struct file_op *op = arg;
    struct blk_req *req = op->req;
    uint64_t done = 0;
    int ret = 0;

    while (!ret && done < req->length_bytes) {
        uint64_t n = MIN_OF(req->length_bytes - done, sizeof(zeros));

        ret = co_blk_write(&op->f->node, req->offset_bytes + done, zeros, n, 0);
        done += n;
    }
    if (!ret && (req->flags & BLK_FUA))
        file_flush_op(op);
    else
        file_op_finish(op, ret);
}

static void deallocated(struct work *w)
{
    struct file_op *op = container_of(w, struct file_op, work);
    bool cannot = op->result == -EOPNOTSUPP || op->result == -EINVAL || op->result == -ENODEV;

    if (!cannot || op->req->verb == BLK_DISCARD) {
        file_change_finish(op, cannot ? 0 : op->result);
        return;
    }
    file_range_unlock(op); /* the writes take it, piece by piece */
    co_spawn(co_write_zeros, op);
}

static void deallocate_go(struct file_op *op)
{
    uint64_t end = op->req->offset_bytes + op->req->length_bytes;

    if (op->req->verb != BLK_DISCARD && !file_have_space(op, end))
        return;
    op->f->sparse |= !op->f->is_blkdev;
    op->work = (struct work){.run = deallocate_on_helper, .done = deallocated};
    workers_submit(&op->work);
}

static void submit_deallocate(struct blk_node *node, struct blk_req *req)
{
    struct file_node *f = to_file(node);
    struct file_op *op = file_op_get(f, req);

    op->start_bytes = round_down_pow2(req->offset_bytes, f->offset_align);
    op->end_bytes = round_up_pow2(req->offset_bytes + req->length_bytes, f->offset_align);
    op->go = deallocate_go;
    file_range_lock(op);
}

void file_submit_zeroes(struct blk_node *node, struct blk_req *req)
{
    if (req->flags & BLK_IF_UNALLOCATED)
        blk_complete(req, -ENOTSUP);
    else
        submit_deallocate(node, req);
}

void file_submit_discard(struct blk_node *node, struct blk_req *req)
{
    submit_deallocate(node, req);
}
