/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An initiator session on the loop: the socket's watcher, deadlines and keepalive, and its end.
 *
 * A session that is lost stays lost: conn_down() only notes it; work() destroys the context, then
 * fails what was under way, then tells the owner, in this order, so that nothing is written to a
 * buffer after its command is done.
 */
#define LOG_AREA "iscsi"
#include "lun-backends/iscsi-conn-int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"
#include "util/size.h"

#define DEFAULT_TIMEOUT_NS 10000000000ull
#define NOP_AFTER_NS       5000000000ull
#define LOGOUT_WAIT_NS     1000000000ull
/* A command that others overtake may take this many timeouts: a slow disk is not a dead one. */
#define STUCK_TIMEOUTS 6

static const char broke[] = "the connection broke";

static void copy_printable(char *to, size_t size, const char *from)
{
    size_t n = 0;

    for (; from[n] && n + 1 < size; n++)
        to[n] = (unsigned char)from[n] < ' ' || from[n] == 0x7f ? ' ' : from[n];
    while (n && to[n - 1] == ' ')
        n--;
    to[n] = '\0';
}

/* At the end of the stream libiscsi only says that it can't reconnect, which it was told not to. */
static const char *error_text(const struct iscsi_conn *c, const char *fallback)
{
    const char *text = c->ctx ? iscsi_get_error(c->ctx) : "";

    return *text && !strstr(text, "reconnect") ? text : fallback;
}

void conn_note_error(struct iscsi_conn *c, const char *fallback)
{
    copy_printable(c->why, sizeof(c->why), error_text(c, fallback));
}

void conn_down(struct iscsi_conn *c, const char *why)
{
    if (c->state == CONN_DOWN)
        return;
    c->state = CONN_DOWN;
    copy_printable(c->why, sizeof(c->why), why);
    ev_io_stop(loop_ev(), &c->io);
    ev_timer_stop(loop_ev(), &c->tick);
    ev_timer_stop(loop_ev(), &c->retry);
    loop_defer(&c->work, LOOP_NOW);
}

/* The fd may change while connecting, the events with every PDU. */
void conn_rearm(struct iscsi_conn *c)
{
    if (!c->ctx || c->state == CONN_DOWN)
        return;

    int fd = iscsi_get_fd(c->ctx);
    int wanted = iscsi_which_events(c->ctx);
    int events = (wanted & POLLIN ? EV_READ : 0) | (wanted & POLLOUT ? EV_WRITE : 0);

    if (fd < 0 || !events) {
        ev_io_stop(loop_ev(), &c->io);
        return;
    }
    if (ev_is_active(&c->io) && c->io.fd == fd && (c->io.events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(loop_ev(), &c->io);
    ev_io_set(&c->io, fd, events);
    ev_io_start(loop_ev(), &c->io);
}

static void service(struct iscsi_conn *c, int revents)
{
    int ret = iscsi_service(c->ctx, revents);

    if (c->state == CONN_LOGIN && ret < 0) {
        if (c->wait && !c->wait->fired)
            conn_note_error(c, broke);
        conn_fire(c, -EHOSTDOWN);
    } else if (c->state == CONN_UP && ret < 0) {
        conn_down(c, error_text(c, broke));
    } else if (c->state == CONN_UP && !iscsi_is_logged_in(c->ctx)) {
        conn_down(c, "the target ended the session");
    }
    conn_rearm(c);
}

static void on_io(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct iscsi_conn *c = w->data;

    (void)ev;
    if (revents & EV_READ)
        c->last_rx_ns = now_ns();
    service(c, (revents & EV_READ ? POLLIN : 0) | (revents & EV_WRITE ? POLLOUT : 0));
}

/* What the turn's commands put in the queue goes out at its end, without another poll. */
static void flush(struct deferred *d)
{
    struct iscsi_conn *c = container_of(d, struct iscsi_conn, flush);

    if (c->state == CONN_UP && iscsi_which_events(c->ctx) & POLLOUT)
        service(c, POLLOUT);
    else
        conn_rearm(c);
}

static void nop_cb(struct iscsi_context *ctx, int status, void *data, void *private_data)
{
    struct iscsi_conn *c = private_data;

    (void)ctx;
    (void)data;
    c->nop_sent_ns = 0;
    if (status == SCSI_STATUS_CANCELLED)
        conn_down(c, broke);
}

/* Silence of the target is what counts, while something is owed; see STUCK_TIMEOUTS too. */
static void check_deadlines(struct iscsi_conn *c, uint64_t now)
{
    uint64_t owed_since = c->nop_sent_ns;
    uint64_t oldest = UINT64_MAX;

    if (!list_empty(&c->active)) {
        oldest = list_first_entry(&c->active, struct iscsi_cmd, link)->issued_ns;
        owed_since = owed_since ? MIN_OF(owed_since, oldest) : oldest;
    }
    if (owed_since && now - MAX_OF(owed_since, c->last_rx_ns) > c->timeout_ns) {
        conn_down(c, "the target does not answer");
        return;
    }
    if (oldest != UINT64_MAX && now - oldest > STUCK_TIMEOUTS * c->timeout_ns) {
        conn_down(c, "the target does not complete a command");
        return;
    }
    if (!c->nop_sent_ns && now - c->last_rx_ns >= MIN_OF(NOP_AFTER_NS, c->timeout_ns / 2)) {
        c->nop_sent_ns = now;
        if (iscsi_nop_out_async(c->ctx, nop_cb, NULL, 0, c))
            conn_down(c, iscsi_get_error(c->ctx));
        else
            loop_defer(&c->flush, LOOP_END);
    }
}

static void on_tick(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    struct iscsi_conn *c = t->data;
    uint64_t now = now_ns();

    (void)ev;
    (void)revents;
    if (c->wait && now >= c->wait->deadline_ns)
        conn_fire(c, -ETIMEDOUT);
    if (c->state == CONN_UP)
        check_deadlines(c, now);
}

void conn_fire(struct iscsi_conn *c, int status)
{
    if (!c->wait || c->wait->fired)
        return;
    c->wait->fired = true;
    c->wait->status = status;
    co_wake(c->wait->co);
}

int co_conn_wait(struct iscsi_conn *c, uint64_t deadline_ns)
{
    struct conn_wait w = {.co = co_self(), .deadline_ns = deadline_ns};

    if (c->state == CONN_DOWN)
        return c->abandoned ? -ECANCELED : -EHOSTDOWN;
    c->wait = &w;
    co_yield ();
    c->wait = NULL;
    return w.status;
}

void conn_destroy_context(struct iscsi_conn *c)
{
    struct iscsi_context *ctx = c->ctx;

    if (!ctx)
        return;
    /* libiscsi closes the fd: the watcher must let go of it first. */
    ev_io_stop(loop_ev(), &c->io);
    iscsi_destroy_context(ctx);
    c->ctx = NULL;
    conn_fail_commands(c);
}

/* LOOP_NOW: after what libiscsi or a timer found out. */
static void work(struct deferred *d)
{
    struct iscsi_conn *c = container_of(d, struct iscsi_conn, work);
    bool down = c->state == CONN_DOWN;
    struct list_head batch;

    if (down) {
        conn_destroy_context(c);
        conn_fire(c, c->abandoned ? -ECANCELED : -EHOSTDOWN);
    }
    list_init(&batch);
    list_splice_tail(&batch, &c->finished);
    while (!list_empty(&batch)) {
        struct iscsi_cmd *cmd = list_first_entry(&batch, struct iscsi_cmd, link);

        list_del(&cmd->link);
        /* A PDU that broke the session fails its command first, the session just after. */
        if (down && cmd->result == -EIO)
            cmd->result = -EHOSTDOWN;
        cmd->done(cmd);
    }
    if (down && c->was_up && !c->told && !c->abandoned) {
        c->told = true;
        if (c->on_down)
            c->on_down(c, c->why, c->opaque);
    }
}

/* LOOP_END, when work() has been: nobody knows the connection any more. */
static void reap(struct deferred *d)
{
    struct iscsi_conn *c = container_of(d, struct iscsi_conn, reap);

    if (c->wait || loop_is_deferred(&c->work) || !list_empty(&c->finished)) {
        loop_defer(&c->reap, LOOP_END);
        return;
    }
    loop_undefer(&c->flush);
    ev_io_stop(loop_ev(), &c->io);
    ev_timer_stop(loop_ev(), &c->tick);
    ev_timer_stop(loop_ev(), &c->retry);
    explicit_bzero(c->secret, sizeof(c->secret));
    free(c);
}

struct iscsi_conn *iscsi_conn_new(const struct iscsi_conn_opts *opts)
{
    struct iscsi_conn *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->timeout_ns = opts->timeout_ns ? opts->timeout_ns : DEFAULT_TIMEOUT_NS;
    c->digests = opts->digests;
    c->isid = opts->isid;
    c->discovery = !opts->target;
    c->on_down = opts->on_down;
    c->opaque = opts->opaque;
    snprintf(c->initiator, sizeof(c->initiator), "%s", opts->initiator);
    snprintf(c->target, sizeof(c->target), "%s", opts->target ? opts->target : "");
    snprintf(c->user, sizeof(c->user), "%s", opts->user ? opts->user : "");
    snprintf(c->secret, sizeof(c->secret), "%s", opts->secret ? opts->secret : "");
    c->work.fn = work;
    c->flush.fn = flush;
    c->reap.fn = reap;
    list_init(&c->queued);
    list_init(&c->active);
    list_init(&c->delayed);
    list_init(&c->finished);
    ev_init(&c->io, on_io);
    c->io.data = c;

    double tick_s = (double)c->timeout_ns / 1e9 / 20;

    ev_init(&c->tick, on_tick);
    c->tick.repeat = MAX_OF(0.02, MIN_OF(tick_s, 1.0));
    c->tick.data = c;
    ev_timer_again(loop_ev(), &c->tick);
    ev_init(&c->retry, conn_retry_due);
    c->retry.repeat = 0.02;
    c->retry.data = c;
    return c;
}

void iscsi_conn_cancel(struct iscsi_conn *c, const char *why)
{
    bool attempt = c->state == CONN_LOGIN;

    conn_down(c, why);
    if (attempt)
        conn_fire(c, -ECANCELED);
}

void iscsi_conn_abandon(struct iscsi_conn *c)
{
    if (!c || c->abandoned)
        return;
    c->abandoned = true;
    conn_down(c, "closed");
    loop_defer(&c->work, LOOP_NOW);
    loop_defer(&c->reap, LOOP_END);
}

static void logout_cb(struct iscsi_context *ctx, int status, void *data, void *private_data)
{
    (void)ctx;
    (void)status;
    (void)data;
    conn_fire(private_data, 0);
}

void co_iscsi_close(struct iscsi_conn *c)
{
    if (!c)
        return;
    c->on_down = NULL;
    if (c->state == CONN_UP && !iscsi_logout_async(c->ctx, logout_cb, c)) {
        loop_defer(&c->flush, LOOP_END);
        co_conn_wait(c, now_ns() + LOGOUT_WAIT_NS);
    }
    iscsi_conn_abandon(c);
}
