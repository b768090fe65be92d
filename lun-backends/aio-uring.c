/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * io_uring: direct files, and what of buffered files was not in the page cache. The ops of a turn
 * enter the kernel in a few calls; completions are read from the ring when libev says that there
 * are some, without a call of their own. Both in pieces that grow (aio.h).
 *
 * Files that are open for long are registered (the kernel then holds its reference once), and so is
 * the pool of guest buffers (its pages are pinned once). Where the kernel refuses either, ops go
 * without.
 */
#define LOG_AREA "aio"
#include "lun-backends/aio.h"

#ifdef HAVE_LIBURING
#include <errno.h>
#include <ev.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "util/bufpool.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define ENTRIES   1024 /* of the ring, and the most ops in the kernel */
#define MAX_FILES 4096
#define RETRY_S   0.001

static struct {
    struct io_uring ring;
    struct ev_io watcher;
    struct ev_timer retry; /* the kernel had no memory to take what is in the ring */
    struct submit_hook hook;
    struct list_head pending;
    unsigned in_kernel, nr_pending, outstanding; /* outstanding: the sum; keeps the loop alive */
    unsigned submit_piece, reap_piece;           /* of the next one */

    uint16_t *free_slots; /* NULL: files are not registered */
    unsigned nr_free_slots;
    uintptr_t pool_start, pool_end; /* registered as buffer 0; equal: not registered */
} ur;

static void finish(struct aio_op *op, int64_t got)
{
    bool complete = got != -ECANCELED && aio_account(op, got);

    if (--ur.outstanding == 0)
        ev_unref(loop_ev());
    if (complete)
        op->done(op);
    else
        aio_to_thread(op);
}

/* What is left for the next turn keeps the ring readable. */
static void on_ring(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct io_uring_cqe *cqe;
    unsigned n = 0;

    (void)ev;
    (void)w;
    (void)revents;
    while (n < ur.reap_piece && !io_uring_peek_cqe(&ur.ring, &cqe)) {
        struct aio_op *op = io_uring_cqe_get_data(cqe);
        int64_t got = cqe->res;

        io_uring_cqe_seen(&ur.ring, cqe);
        ur.in_kernel--;
        finish(op, got);
        n++;
    }
    ur.reap_piece = n == ur.reap_piece ? MIN_OF(AIO_REAP_GROWTH * n, ENTRIES) : AIO_FIRST_REAP;
}

static bool in_pool(const struct iovec *iov)
{
    uintptr_t start = (uintptr_t)iov->iov_base;

    return start >= ur.pool_start && start + iov->iov_len <= ur.pool_end;
}

static void prepare(struct io_uring_sqe *sqe, struct aio_op *op)
{
    int fd = op->file_slot ? (int)op->file_slot - 1 : op->fd;
    bool fixed = op->direct && op->niov == 1 && in_pool(op->iov);
    const struct iovec *iov = op->iov;

    if (fixed && op->write)
        io_uring_prep_write_fixed(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, op->offset_bytes,
                                  0);
    else if (fixed)
        io_uring_prep_read_fixed(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, op->offset_bytes,
                                 0);
    else if (op->write)
        io_uring_prep_writev(sqe, fd, iov, (unsigned)op->niov, op->offset_bytes);
    else
        io_uring_prep_readv(sqe, fd, iov, (unsigned)op->niov, op->offset_bytes);
    if (op->file_slot)
        sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, op);
}

static void submit_pending(void)
{
    int ret;

    while (!list_empty(&ur.pending) && ur.in_kernel < ENTRIES) {
        struct aio_op *op = list_first_entry(&ur.pending, struct aio_op, link);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ur.ring);

        if (!sqe)
            break;
        list_del(&op->link);
        ur.nr_pending--;
        prepare(sqe, op);
        ur.in_kernel++;
    }
    if (!io_uring_sq_ready(&ur.ring))
        return;
    ret = io_uring_submit(&ur.ring);
    if (ret < 0 && ret != -EINTR)
        log_debug("io_uring takes nothing now: %s", strerror(-ret));
    if (io_uring_sq_ready(&ur.ring))
        ev_timer_again(loop_ev(), &ur.retry);
    else
        ev_timer_stop(loop_ev(), &ur.retry);
}

static void on_retry(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    (void)ev;
    (void)t;
    (void)revents;
    submit_pending();
}

static void on_turn_end(struct submit_hook *hook)
{
    (void)hook;
    submit_pending();
    ur.submit_piece = AIO_FIRST_SUBMIT;
}

static void uring_submit(struct aio_op *op)
{
    if (ur.outstanding++ == 0)
        ev_ref(loop_ev());
    list_add_tail(&ur.pending, &op->link);
    if (++ur.nr_pending == ur.submit_piece) {
        submit_pending();
        ur.submit_piece *= 2;
    }
}

/* ---- registration ------------------------------------------------------------------------ */

static unsigned uring_add_file(int fd)
{
    unsigned slot;

    if (!ur.nr_free_slots)
        return 0;
    slot = ur.free_slots[ur.nr_free_slots - 1];
    if (io_uring_register_files_update(&ur.ring, slot, &fd, 1) != 1)
        return 0;
    ur.nr_free_slots--;
    return slot + 1;
}

static void uring_del_file(unsigned file_slot)
{
    int none = -1;

    if (!file_slot)
        return;
    io_uring_register_files_update(&ur.ring, file_slot - 1, &none, 1);
    ur.free_slots[ur.nr_free_slots++] = (uint16_t)(file_slot - 1);
}

static void register_files(void)
{
    if (io_uring_register_files_sparse(&ur.ring, MAX_FILES))
        return;
    ur.free_slots = malloc(MAX_FILES * sizeof(*ur.free_slots));
    if (!ur.free_slots)
        return;
    for (unsigned i = 0; i < MAX_FILES; i++)
        ur.free_slots[ur.nr_free_slots++] = (uint16_t)(MAX_FILES - 1 - i);
}

static void register_pool(void)
{
    struct iovec arena = bufpool_arena(bufpool_main());
    int ret = arena.iov_base ? io_uring_register_buffers(&ur.ring, &arena, 1) : -ENOMEM;

    if (ret) {
        log_info("io_uring without registered buffers: %s", strerror(-ret));
        return;
    }
    ur.pool_start = (uintptr_t)arena.iov_base;
    ur.pool_end = ur.pool_start + arena.iov_len;
}

/* ---- life -------------------------------------------------------------------------------- */

/* Completions are delivered on the way out of any system call of this thread: none is interrupted
 * for their sake. Older kernels know no such thing. */
static int queue_init(void)
{
    struct io_uring_params p = {.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER};
    int ret = io_uring_queue_init_params(ENTRIES, &ur.ring, &p);

    if (ret == -EINVAL)
        ret = io_uring_queue_init(ENTRIES, &ur.ring, 0);
    return ret;
}

static int uring_init(void)
{
    int ret;

    memset(&ur, 0, sizeof(ur));
    list_init(&ur.pending);
    ret = queue_init();
    if (ret)
        return ret;
    register_files();
    register_pool();
    ev_io_init(&ur.watcher, on_ring, ur.ring.ring_fd, EV_READ);
    ev_io_start(loop_ev(), &ur.watcher);
    ev_unref(loop_ev());
    ev_timer_init(&ur.retry, on_retry, 0., RETRY_S);
    ur.submit_piece = AIO_FIRST_SUBMIT;
    ur.reap_piece = AIO_FIRST_REAP;
    ur.hook.fn = on_turn_end;
    loop_add_submit_hook(&ur.hook);
    return 0;
}

static void uring_fini(void)
{
    loop_del_submit_hook(&ur.hook);
    ev_timer_stop(loop_ev(), &ur.retry);
    ev_ref(loop_ev());
    ev_io_stop(loop_ev(), &ur.watcher);
    io_uring_queue_exit(&ur.ring);
    free(ur.free_slots);
}

const struct aio_engine aio_uring = {
    .name = "io_uring",
    .buffered = true,
    .init = uring_init,
    .fini = uring_fini,
    .submit = uring_submit,
    .add_file = uring_add_file,
    .del_file = uring_del_file,
};
#endif
