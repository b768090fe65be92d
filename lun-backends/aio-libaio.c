/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libaio on O_DIRECT files: the ops of a turn go to the kernel in a few io_submits, completions
 * come by an eventfd; both in pieces that grow (aio.h).
 *
 * io_submit must not sleep on the loop. Nothing here writes past a file's size; where a write may
 * meet a hole it carries RWF_NOWAIT, and what the kernel would have waited for comes back -EAGAIN
 * and goes to a helper thread. Elsewhere the flag would only cost: on ext4 most writes fail with it
 * for the sake of a timestamp.
 */
#define LOG_AREA "aio"
#include <errno.h>
#include <ev.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lun-backends/aio.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define MAX_IN_KERNEL 1024
#define BATCH         128

static struct {
    io_context_t ctx;
    int event_fd;
    struct ev_io watcher;
    struct submit_hook hook;
    struct list_head pending;
    unsigned in_kernel, nr_pending, outstanding; /* outstanding: the sum; keeps the loop alive */
    unsigned submit_piece, reap_piece;           /* of the next one */
} la;

static void finished(struct aio_op *op)
{
    if (--la.outstanding == 0)
        ev_unref(loop_ev());
    op->done(op);
}

static void hand_over(struct aio_op *op)
{
    if (--la.outstanding == 0)
        ev_unref(loop_ev());
    aio_to_thread(op);
}

static unsigned reap(unsigned max)
{
    struct io_event events[BATCH];
    struct timespec zero = {0, 0};
    int n = io_getevents(la.ctx, 0, max, events, &zero);

    for (int i = 0; i < n; i++) {
        struct aio_op *op = events[i].data;
        int64_t got = (int64_t)(long)events[i].res;

        la.in_kernel--;
        if (got == -EOPNOTSUPP && op->nowait)
            hand_over(op); /* a file system without RWF_NOWAIT */
        else if (aio_account(op, got))
            finished(op);
        else
            hand_over(op);
    }
    return n > 0 ? (unsigned)n : 0;
}

/* What is left for the next turn keeps the eventfd readable. After it was read the ring is looked
 * into once more, which is no system call: what came in between has told nobody. */
static void on_event(struct ev_loop *ev, struct ev_io *w, int revents)
{
    uint64_t count;

    (void)ev;
    (void)revents;
    if (reap(la.reap_piece) == la.reap_piece) {
        la.reap_piece = MIN_OF(AIO_REAP_GROWTH * la.reap_piece, BATCH);
        return;
    }
    la.reap_piece = AIO_FIRST_REAP;
    if (read(w->fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
        log_err("reading the engine's eventfd: error %d", errno);
    while (reap(BATCH))
        ;
}

static void prepare(struct aio_op *op)
{
    struct iocb *cb = &op->u.iocb;
    long long at = (long long)op->offset_bytes;

    if (op->niov == 1 && op->write)
        io_prep_pwrite(cb, op->fd, op->iov->iov_base, op->iov->iov_len, at);
    else if (op->niov == 1)
        io_prep_pread(cb, op->fd, op->iov->iov_base, op->iov->iov_len, at);
    else if (op->write)
        io_prep_pwritev(cb, op->fd, op->iov, op->niov, at);
    else
        io_prep_preadv(cb, op->fd, op->iov, op->niov, at);
    if (op->nowait)
        cb->aio_rw_flags = RWF_NOWAIT;
    cb->data = op;
    io_set_eventfd(cb, la.event_fd);
}

/* Takes up to @max pending ops off the list; returns how many. */
static int collect(struct iocb **batch, unsigned max)
{
    unsigned n = 0;

    while (n < max && !list_empty(&la.pending)) {
        struct aio_op *op = list_first_entry(&la.pending, struct aio_op, link);

        list_del(&op->link);
        batch[n++] = &op->u.iocb;
    }
    la.nr_pending -= n;
    return (int)n;
}

static void put_back(struct iocb **batch, int from, int n)
{
    la.nr_pending += (unsigned)(n - from);
    for (int i = n; i-- > from;)
        list_add(&la.pending, &container_of(batch[i], struct aio_op, u.iocb)->link);
}

static void submit_pending(void)
{
    while (!list_empty(&la.pending) && la.in_kernel < MAX_IN_KERNEL) {
        struct iocb *batch[BATCH];
        int n = collect(batch, MIN_OF(BATCH, MAX_IN_KERNEL - la.in_kernel));
        int took = io_submit(la.ctx, n, batch);

        if (took > 0) {
            la.in_kernel += (unsigned)took;
            put_back(batch, took, n);
        } else if (took == -EAGAIN && la.in_kernel) {
            put_back(batch, 0, n);
            return; /* tried again when some came back */
        } else {
            put_back(batch, 1, n);
            hand_over(container_of(batch[0], struct aio_op, u.iocb));
        }
    }
}

static void on_turn_end(struct submit_hook *hook)
{
    (void)hook;
    submit_pending();
    la.submit_piece = AIO_FIRST_SUBMIT;
}

static void libaio_submit(struct aio_op *op)
{
    prepare(op);
    if (la.outstanding++ == 0)
        ev_ref(loop_ev());
    list_add_tail(&la.pending, &op->link);
    if (++la.nr_pending == la.submit_piece) {
        submit_pending();
        la.submit_piece *= 2;
    }
}

static int libaio_init(void)
{
    int ret;

    la.ctx = NULL;
    list_init(&la.pending);
    la.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (la.event_fd < 0)
        return -errno;
    ret = io_setup(MAX_IN_KERNEL, &la.ctx);
    if (ret < 0) {
        close(la.event_fd);
        return ret;
    }
    ev_io_init(&la.watcher, on_event, la.event_fd, EV_READ);
    ev_io_start(loop_ev(), &la.watcher);
    ev_unref(loop_ev());
    la.submit_piece = AIO_FIRST_SUBMIT;
    la.reap_piece = AIO_FIRST_REAP;
    la.hook.fn = on_turn_end;
    loop_add_submit_hook(&la.hook);
    return 0;
}

static void libaio_fini(void)
{
    loop_del_submit_hook(&la.hook);
    ev_ref(loop_ev());
    ev_io_stop(loop_ev(), &la.watcher);
    io_destroy(la.ctx);
    close(la.event_fd);
}

const struct aio_engine aio_libaio = {
    .name = "libaio",
    .init = libaio_init,
    .fini = libaio_fini,
    .submit = libaio_submit,
};
