/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file node: opening (on a helper thread), what O_DIRECT asks for, closing.
 * A file is locked before anything in it is looked at, and only regular files and block devices
 * are taken.
 */
#define LOG_AREA "file"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lun-backends/file-int.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_DIO_ALIGN 65536u
#define MAX_FREE_OPS  1024

/* ---- ops --------------------------------------------------------------------------- */

static struct list_head free_ops = LIST_HEAD_INIT(free_ops);
static unsigned nr_free_ops;

struct file_op *file_op_get(struct file_node *f, struct blk_req *req)
{
    struct file_op *op;

    if (!list_empty(&free_ops)) {
        op = list_first_entry(&free_ops, struct file_op, link);
        list_del(&op->link);
        nr_free_ops--;
    } else {
        op = malloc(sizeof(*op));
        if (!op) {
            log_err("no memory for a file request");
            abort();
        }
    }
    memset(op, 0, sizeof(*op));
    op->f = f;
    op->req = req;
    return op;
}

void file_op_put(struct file_op *op)
{
    if (nr_free_ops >= MAX_FREE_OPS) {
        free(op);
        return;
    }
    list_add(&free_ops, &op->link);
    nr_free_ops++;
}

void file_op_finish(struct file_op *op, int result)
{
    struct blk_req *req = op->req;

    file_op_put(op);
    blk_complete(req, result);
}

/* ---- opening ----------------------------------------------------------------------- */

struct open_job {
    const char *path;
    const struct file_opts *opts;
    struct file_node *f;
    struct error *err;
    bool refused_direct;
    bool for_engine;
    int engine_fd; /* -1: none */
};

static int open_fd(const struct open_job *j, int flags)
{
    /* O_NONBLOCK: a FIFO would keep the helper thread for ever */
    return open(j->path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
}

static int fail(const struct open_job *j, const char *doing)
{
    return error_set(j->err, errno, "%s '%s': %s", doing, j->path, strerror(errno));
}

static int open_either_way(struct open_job *j)
{
    const struct file_opts *o = j->opts;
    bool want_direct = o->cache == FILE_CACHE_NONE || (o->cache == FILE_CACHE_AUTO && o->writable);
    int flags = o->writable ? O_RDWR : O_RDONLY;
    struct file_node *f = j->f;

    if (o->create)
        flags |= O_CREAT | O_EXCL;
    f->fd = open_fd(j, flags);
    if (f->fd < 0)
        return fail(j, o->create ? "creating" : "opening");
    if (want_direct && !fcntl(f->fd, F_SETFL, O_DIRECT))
        f->direct = true;
    else if (fcntl(f->fd, F_SETFL, 0))
        return fail(j, "opening");
    j->refused_direct = want_direct && !f->direct;
    return 0;
}

static int64_t timespec_ns(const struct timespec *ts)
{
    return (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}

static int learn_kind(struct open_job *j)
{
    struct file_node *f = j->f;
    struct stat st;

    if (fstat(f->fd, &st))
        return fail(j, "looking at");
    f->is_blkdev = S_ISBLK(st.st_mode);
    f->real_end = (uint64_t)st.st_size;
    if (f->is_blkdev && ioctl(f->fd, BLKGETSIZE64, &f->real_end))
        return fail(j, "asking the size of");
    if (!S_ISREG(st.st_mode) && !f->is_blkdev)
        return error_set(j->err, EINVAL, "'%s' is %s, not a file or block device", j->path,
                         S_ISDIR(st.st_mode) ? "a directory" : "something else");
    /* mincore(2) tells the truth to whom it belongs and who may write it, to others "all there" */
    f->lends = S_ISREG(st.st_mode) &&
               (st.st_uid == geteuid() || !faccessat(f->fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS));
    f->sparse = !f->is_blkdev && (uint64_t)st.st_blocks * 512 < f->real_end;
    f->identity = (struct file_identity){
        .dev = st.st_dev,
        .inode = st.st_ino,
        .size_bytes = f->real_end,
        .mtime_ns = timespec_ns(&st.st_mtim),
        .ctime_ns = timespec_ns(&st.st_ctim),
        .is_device = f->is_blkdev,
    };
    return 0;
}

/* Writing below a mounted file system would destroy it; two claims never go together. */
static int claim_device(const struct open_job *j)
{
    char self[64];

    if (!j->f->is_blkdev || !j->opts->writable || j->opts->no_lock)
        return 0;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", j->f->fd);
    j->f->claim_fd = open(self, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
    if (j->f->claim_fd < 0 && errno == EBUSY)
        return error_set_class(j->err, ERR_DEVICE_IN_USE, EBUSY,
                               "'%s' is in use: it is mounted, or part of another device", j->path);
    return j->f->claim_fd < 0 ? fail(j, "claiming") : 0;
}

/* Older kernels don't tell: the first alignment with which a read works. */
static bool probe_alignment(struct file_node *f)
{
    void *buf = aligned_alloc(4096, MAX_DIO_ALIGN);
    bool found = false;

    for (uint32_t a = 512; buf && !found && a <= MAX_DIO_ALIGN; a *= 2) {
        found = pread(f->fd, buf, a, 0) >= 0;
        f->offset_align = a;
        f->mem_align = MIN_OF(a, 4096u);
    }
    free(buf);
    return found;
}

static bool ask_alignment(struct file_node *f)
{
#ifdef STATX_DIOALIGN
    struct statx sx;

    if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && sx.stx_mask & STATX_DIOALIGN) {
        f->offset_align = MAX_OF(sx.stx_dio_offset_align, 512u);
        f->mem_align = MAX_OF(sx.stx_dio_mem_align, 1u);
        return sx.stx_dio_offset_align && f->offset_align <= MAX_DIO_ALIGN;
    }
#endif
    int sector;

    if (f->is_blkdev && !ioctl(f->fd, BLKSSZGET, &sector) && sector >= 512) {
        f->offset_align = (uint32_t)sector;
        f->mem_align = MIN_OF(f->offset_align, 4096u);
        return f->offset_align <= MAX_DIO_ALIGN;
    }
    return probe_alignment(f);
}

static int learn_alignment(struct open_job *j)
{
    struct file_node *f = j->f;
    int sector;

    /* Loop devices can be that: nothing writes the rest of a sector. */
    if (f->is_blkdev && !ioctl(f->fd, BLKSSZGET, &sector) && sector > 0 &&
        f->real_end % (unsigned)sector)
        return error_set(j->err, EINVAL, "'%s' has %llu bytes, no whole number of its sectors (%d)",
                         j->path, (unsigned long long)f->real_end, sector);

    if (f->direct && !ask_alignment(f)) {
        j->refused_direct = true;
        f->direct = false;
        if (fcntl(f->fd, F_SETFL, 0))
            return fail(j, "opening");
    }
    if (j->refused_direct)
        log_notice("'%s': no O_DIRECT there, using the page cache", j->path);
    if (!f->direct) {
        f->offset_align = f->mem_align = 1;
        return 0;
    }
    /* Dirty pages of an earlier writer would be waited for inside io_submit. */
    sync_file_range(f->fd, 0, 0,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                        SYNC_FILE_RANGE_WAIT_AFTER);
    if (j->opts->writable && !f->is_blkdev) {
        char self[64];

        snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
        f->tail_fd = open(self, O_WRONLY | O_CLOEXEC);
        if (f->tail_fd < 0)
            return fail(j, "opening a second time (by /proc/self/fd)");
    }
    return 0;
}

/* The engine's own way into the file, without our locks; -1: it goes without. */
static int open_for_engine(const struct file_node *f)
{
    char self[64];
    int flags = fcntl(f->fd, F_GETFL);

    snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
    return flags < 0 ? -1 : open(self, (flags & (O_ACCMODE | O_DIRECT)) | O_CLOEXEC);
}

static void take_engine_fd(struct file_node *f, int fd)
{
    if (fd < 0)
        return;
    f->aio_slot = aio_add_file(fd);
    close(fd);
}

static int open_on_helper(void *arg)
{
    struct open_job *j = arg;
    int ret = open_either_way(j);

    if (!ret && !j->opts->no_lock)
        ret = file_lock(j->f->fd, j->path, j->opts->writable, j->err);
    if (!ret)
        ret = learn_kind(j);
    if (!ret)
        ret = claim_device(j);
    if (!ret)
        ret = learn_alignment(j);
    if (!ret && j->for_engine)
        j->engine_fd = open_for_engine(j->f);
    return ret;
}

int co_file_open(const char *path, const struct file_opts *opts, struct blk_node **node,
                 struct error *err)
{
    struct blk_node *n = blk_node_new(&file_driver, NULL);
    struct file_node *f = to_file(n);
    struct open_job j = {
        .path = path,
        .opts = opts,
        .f = f,
        .err = err,
        .for_engine = aio_registers_files(),
        .engine_fd = -1,
    };
    int ret;

    if (!n)
        return error_set(err, ENOMEM, "opening '%s': out of memory", path);
    f->fd = f->tail_fd = f->claim_fd = -1;
    f->cache = opts->cache;
    aio_writer_init(&f->writer);
    list_init(&f->changes);
    list_init(&f->loans);
    list_init(&f->grow_waiters);
    list_init(&f->flush_now);
    list_init(&f->flush_next);
    list_init(&f->reader_link);
    n->filename = strdup(path);
    ret = n->filename ? co_work(open_on_helper, &j)
                      : error_set(err, ENOMEM, "opening '%s': out of memory", path);
    n->read_only = true; /* until it is known to be open: co_close of a failure writes nothing */
    if (ret) {
        co_blk_node_unref(n);
        return ret;
    }
    n->read_only = !opts->writable;
    n->size_bytes = f->real_end;
    take_engine_fd(f, j.engine_fd);
    if (n->read_only)
        file_share(f);
    *node = n;
    return 0;
}

/* ---- opening once more: sealing and unsealing ------------------------------------------ */

struct reopen_job {
    struct open_job open;
    struct file_node *old;
    struct file_node fresh;
    struct file_opts opts;
    char self[64];
};

static int reopen_on_helper(void *arg)
{
    struct reopen_job *r = arg;
    struct open_job *j = &r->open;
    int ret;

    snprintf(r->self, sizeof(r->self), "/proc/self/fd/%d", r->old->fd);
    j->path = r->self; /* the same file, whatever its name is by now */
    ret = open_either_way(j);
    j->path = r->old->node.filename;
    if (!ret)
        ret = learn_kind(j);
    if (!ret && r->old->claim_fd < 0)
        ret = claim_device(j);
    if (!ret)
        ret = learn_alignment(j);
    if (!ret)
        ret = file_lock_move(r->old->fd, j->f->fd, j->path, r->opts.writable, j->err);
    if (!ret && j->for_engine)
        j->engine_fd = open_for_engine(j->f);
    return ret;
}

static int close_on_helper(void *arg);

/* Nothing is in flight: the parents are drained and have nothing left to write. */
static int co_file_reopen(struct blk_node *node, bool writable, struct error *err)
{
    struct file_node *f = to_file(node), *fresh;
    struct reopen_job *r = calloc(1, sizeof(*r));
    int ret, fd, tail_fd;

    assert(list_empty(&f->changes) && !f->growing && !f->flushing);
    if (!r)
        return error_set(err, ENOMEM, "opening '%s': out of memory", node->filename);
    fresh = &r->fresh;
    fresh->fd = fresh->tail_fd = fresh->claim_fd = -1;
    r->old = f;
    r->opts.writable = writable;
    r->opts.cache = f->cache;
    r->open = (struct open_job){
        .opts = &r->opts,
        .f = fresh,
        .err = err,
        .for_engine = aio_registers_files(),
        .engine_fd = -1,
    };
    ret = co_work(reopen_on_helper, r);
    if (!ret) {
        file_stop_lending(f);
        fd = f->fd;
        tail_fd = f->tail_fd;
        f->fd = fresh->fd;
        f->tail_fd = fresh->tail_fd;
        fresh->fd = fd;
        fresh->tail_fd = tail_fd;
        if (!writable || f->claim_fd < 0) { /* a claim that goes on being needed stays */
            int claim_fd = f->claim_fd;

            f->claim_fd = fresh->claim_fd;
            fresh->claim_fd = claim_fd;
        }
        aio_del_file(f->aio_slot);
        f->aio_slot = 0;
        take_engine_fd(f, r->open.engine_fd);
        f->direct = fresh->direct;
        f->was_direct = false;
        f->sparse = fresh->sparse;
        f->lends = fresh->lends;
        f->grown = false;
        f->offset_align = fresh->offset_align;
        f->mem_align = fresh->mem_align;
        f->real_end = node->size_bytes = fresh->real_end;
        f->identity = fresh->identity;
        f->known.nr = 0;
        node->read_only = !writable;
        file_unshare(f);
        if (!writable)
            file_share(f);
    }
    co_work(close_on_helper, fresh);
    free(r);
    return ret;
}

int co_file_set_cache(struct blk_node *node, enum file_cache cache, struct error *err)
{
    struct file_node *f = to_file(node);
    enum file_cache before = f->cache;
    int ret;

    f->cache = cache;
    ret = co_file_reopen(node, !node->read_only, err);
    if (ret)
        f->cache = before;
    return ret;
}

/* ---- closing ----------------------------------------------------------------------- */

static int close_on_helper(void *arg)
{
    struct file_node *f = arg;

    if (f->tail_fd >= 0)
        close(f->tail_fd);
    if (f->claim_fd >= 0)
        close(f->claim_fd);
    return f->fd >= 0 && close(f->fd) ? -errno : 0;
}

static void co_file_close(struct blk_node *node)
{
    struct file_node *f = to_file(node);
    int ret = 0;

    assert(list_empty(&f->changes) && !f->growing && !f->flushing);
    file_stop_lending(f);
    aio_del_file(f->aio_slot);
    file_unshare(f);
    if (!node->read_only)
        ret = co_file_trim_tail(f);
    if (!ret)
        ret = co_work(close_on_helper, f);
    else
        co_work(close_on_helper, f);
    if (ret)
        log_err("closing '%s': %s", node->filename, strerror(-ret));
}

static int co_file_inactivate(struct blk_node *node)
{
    int ret;

    if (node->read_only)
        return 0;
    ret = co_file_trim_tail(to_file(node));
    return ret ? ret : co_blk_flush(node);
}

/* ---- what is told of it -------------------------------------------------------------- */

void file_node_identity(const struct blk_node *node, struct file_identity *id)
{
    *id = to_file(node)->identity;
}

uint64_t file_node_length(const struct blk_node *node)
{
    return node->size_bytes;
}

bool file_node_is_direct(const struct blk_node *node)
{
    return to_file(node)->direct;
}

bool file_node_is_device(const struct blk_node *node)
{
    return to_file(node)->is_blkdev;
}

enum file_cache file_node_cache(const struct blk_node *node)
{
    return to_file(node)->cache;
}

bool file_cache_from_name(const char *name, enum file_cache *cache)
{
    static const char *const names[] = {
        [FILE_CACHE_AUTO] = "auto",
        [FILE_CACHE_NONE] = "none",
        [FILE_CACHE_WRITEBACK] = "writeback",
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(name, names[i])) {
            *cache = (enum file_cache)i;
            return true;
        }
    }
    return false;
}

struct stat_job {
    int fd;
    uint64_t bytes;
};

static int stat_on_helper(void *arg)
{
    struct stat_job *j = arg;
    struct stat st;

    if (fstat(j->fd, &st))
        return -errno;
    j->bytes = S_ISBLK(st.st_mode) ? 0 : (uint64_t)st.st_blocks * 512;
    return 0;
}

int co_file_allocated_bytes(const struct blk_node *node, uint64_t *bytes)
{
    struct stat_job j = {.fd = to_file(node)->fd};
    int ret = co_work(stat_on_helper, &j);

    *bytes = to_file(node)->is_blkdev ? node->size_bytes : j.bytes;
    return ret;
}

const struct blk_driver file_driver = {
    .name = "file",
    .instance_bytes = sizeof(struct file_node),
    .grows = true,
    .submit =
        {
            [BLK_READ] = file_submit_read,
            [BLK_WRITE] = file_submit_write,
            [BLK_WRITE_ZEROES] = file_submit_zeroes,
            [BLK_DISCARD] = file_submit_discard,
            [BLK_FLUSH] = file_submit_flush,
            [BLK_STATUS] = file_submit_status,
        },
    .co_close = co_file_close,
    .co_inactivate = co_file_inactivate,
    .co_resize = co_file_resize,
    .co_reopen = co_file_reopen,
};
