/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket; see control.h. A client's memory is freed in one place, at the end of its
 * coroutine; whoever finds it dead only marks it and wakes that coroutine.
 */
#define LOG_AREA "control"
#include "admin/control.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/json-stream.h"
#include "util/coroutine.h"
#include "util/list.h"
#include "util/log.h"
#include "util/loop.h"

#define READ_BYTES     16384
#define ACCEPT_PAUSE_S 1.0

struct client {
    struct list_head link;
    struct control *ctl;
    int fd;
    struct ev_io readable, writable;
    struct coroutine *waiting; /* for input, or for its output to leave */
    bool gone;                 /* write error, too slow, or we are closing */
    bool at_eof;               /* has said all; still reads */
    bool negotiated;
    struct json_stream input;
    char *out;
    size_t out_start, out_end, out_alloc;
};

struct control {
    char *path;
    dev_t dev;
    ino_t ino;
    int fd;
    struct ev_io acceptable;
    struct ev_timer accept_again;
    const struct control_ops *ops;
    void *opaque;
    struct list_head clients;
    unsigned nr_clients;
    bool closing;
};

static void wake(struct client *c)
{
    struct coroutine *co = c->waiting;

    if (!co)
        return;
    c->waiting = NULL;
    co_wake(co);
}

static void set_gone(struct client *c)
{
    c->gone = true;
    ev_io_stop(loop_ev(), &c->readable);
    ev_io_stop(loop_ev(), &c->writable);
    wake(c);
}

static size_t output_waiting(const struct client *c)
{
    return c->out_end - c->out_start;
}

static void push_output(struct client *c)
{
    while (output_waiting(c)) {
        ssize_t n = send(c->fd, c->out + c->out_start, output_waiting(c), MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            ev_io_start(loop_ev(), &c->writable);
            return;
        }
        if (n < 0) {
            set_gone(c);
            return;
        }
        c->out_start += (size_t)n;
    }
    c->out_start = c->out_end = 0;
    ev_io_stop(loop_ev(), &c->writable);
    if (c->at_eof || c->ctl->closing)
        wake(c);
}

static void on_writable(struct ev_loop *ev, struct ev_io *w, int revents)
{
    (void)ev;
    (void)revents;
    push_output(container_of(w, struct client, writable));
}

static bool make_room(struct client *c, size_t bytes)
{
    size_t waiting = output_waiting(c), alloc = c->out_alloc ? c->out_alloc : 4096;
    char *out;

    if (c->out_start) {
        memmove(c->out, c->out + c->out_start, waiting);
        c->out_start = 0;
        c->out_end = waiting;
    }
    while (alloc < waiting + bytes)
        alloc *= 2;
    if (alloc == c->out_alloc)
        return true;
    out = realloc(c->out, alloc);
    if (!out)
        return false;
    c->out = out;
    c->out_alloc = alloc;
    return true;
}

static void send_text(struct client *c, const char *text, size_t len)
{
    if (c->gone)
        return;
    if (output_waiting(c) > CONTROL_MAX_OUTPUT || !make_room(c, len + 2)) {
        log_warn("a client of the control socket does not read its output; disconnected");
        set_gone(c);
        return;
    }
    memcpy(c->out + c->out_end, text, len);
    memcpy(c->out + c->out_end + len, "\r\n", 2);
    c->out_end += len + 2;
    if (!ev_is_active(&c->writable))
        push_output(c);
}

static void send_json(struct client *c, const json_t *msg)
{
    char *text = msg ? json_dumps(msg, JSON_ENSURE_ASCII) : NULL;

    if (text)
        send_text(c, text, strlen(text));
    else
        set_gone(c); /* out of memory: silence would leave it waiting */
    free(text);
}

static void wait_for_event(struct client *c)
{
    c->waiting = co_self();
    co_yield ();
}

static void on_readable(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct client *c = container_of(w, struct client, readable);

    (void)revents;
    ev_io_stop(ev, w);
    wake(c);
}

static void answer(struct client *c, json_t *request, const struct error *err)
{
    json_t *reply = c->ctl->ops->co_answer(request, err, &c->negotiated, c->ctl->opaque);

    send_json(c, reply);
    json_decref(reply);
    json_decref(request);
}

static void take_input(struct client *c, const char *bytes, size_t len)
{
    size_t used;

    while (len && !c->gone && !c->ctl->closing) {
        struct error err = ERROR_INIT;
        json_t *request = NULL;
        enum json_stream_result got;

        got = json_stream_feed(&c->input, bytes, len, &used, &request, &err);
        if (got != JSON_STREAM_MORE)
            answer(c, request, got == JSON_STREAM_ERROR ? &err : NULL);
        bytes += used;
        len -= used;
    }
}

static void end_input(struct client *c)
{
    struct error err = ERROR_INIT;
    json_t *request = NULL;
    enum json_stream_result got = json_stream_end(&c->input, &request, &err);

    c->at_eof = true;
    if (got != JSON_STREAM_MORE)
        answer(c, request, got == JSON_STREAM_ERROR ? &err : NULL);
}

static void read_requests(struct client *c)
{
    char buf[READ_BYTES];

    while (!c->gone && !c->ctl->closing) {
        ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

        if (n > 0) {
            take_input(c, buf, (size_t)n);
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            ev_io_start(loop_ev(), &c->readable);
            wait_for_event(c);
        } else if (n == 0) {
            end_input(c);
            return;
        } else if (errno != EINTR) {
            return;
        }
    }
}

static void client_main(void *arg)
{
    struct client *c = arg;
    json_t *greeting = c->ctl->ops->greeting(c->ctl->opaque);

    send_json(c, greeting);
    json_decref(greeting);
    read_requests(c);
    while (!c->gone && output_waiting(c))
        wait_for_event(c);
    ev_io_stop(loop_ev(), &c->readable);
    ev_io_stop(loop_ev(), &c->writable);
    close(c->fd);
    list_del(&c->link);
    c->ctl->nr_clients--;
    json_stream_release(&c->input);
    free(c->out);
    free(c);
}

static void new_client(struct control *ctl, int fd)
{
    struct client *c = NULL;

    if (ctl->nr_clients < CONTROL_MAX_CLIENTS)
        c = calloc(1, sizeof(*c));
    if (!c) {
        log_warn("too many clients on the control socket (%u); one more is refused",
                 ctl->nr_clients);
        close(fd);
        return;
    }
    c->ctl = ctl;
    c->fd = fd;
    ev_io_init(&c->readable, on_readable, fd, EV_READ);
    ev_io_init(&c->writable, on_writable, fd, EV_WRITE);
    json_stream_init(&c->input);
    list_add_tail(&ctl->clients, &c->link);
    ctl->nr_clients++;
    co_spawn(client_main, c);
}

static void on_accept(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct control *ctl = container_of(w, struct control, acceptable);
    int fd = accept4(ctl->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)revents;
    if (fd >= 0) {
        new_client(ctl, fd);
        return;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        log_warn("can't accept a client of the control socket: %s", strerror(errno));
        ev_io_stop(ev, w);
        ev_timer_set(&ctl->accept_again, ACCEPT_PAUSE_S, 0);
        ev_timer_start(ev, &ctl->accept_again);
    }
}

static void on_accept_again(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    struct control *ctl = container_of(t, struct control, accept_again);

    (void)revents;
    ev_io_start(ev, &ctl->acceptable);
}

/* ---- the socket file ----------------------------------------------------------------- */

static int remove_stale(const struct sockaddr_un *sa, struct error *err)
{
    struct stat st;
    int fd, ret;

    if (lstat(sa->sun_path, &st))
        return errno == ENOENT
                   ? 0
                   : error_set(err, errno, "control socket %s: %s", sa->sun_path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, EEXIST, "control socket %s: a file that is no socket is in its place",
                         sa->sun_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, errno, "control socket: %s", strerror(errno));
    ret = connect(fd, (const struct sockaddr *)sa, sizeof(*sa));
    if (ret)
        ret = errno == ECONNREFUSED ? 1 : 0; /* 1: nobody is there */
    close(fd);
    if (!ret)
        return error_set_class(err, ERR_DEVICE_IN_USE, EADDRINUSE,
                               "control socket %s: another daemon answers on it: stop it, or give "
                               "this one another with -c",
                               sa->sun_path);
    if (unlink(sa->sun_path))
        return error_set(err, errno, "control socket %s: can't remove the stale one: %s",
                         sa->sun_path, strerror(errno));
    return 0;
}

static int bind_and_listen(struct control *ctl, const struct sockaddr_un *sa, struct error *err)
{
    struct stat st;
    mode_t old;
    int ret;

    ctl->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ctl->fd < 0)
        return error_set(err, errno, "control socket: %s", strerror(errno));
    old = umask(0177); /* 0600 from the first moment */
    ret = bind(ctl->fd, (const struct sockaddr *)sa, sizeof(*sa));
    umask(old);
    if (ret || listen(ctl->fd, 16) || stat(sa->sun_path, &st))
        return error_set(err, errno, "control socket %s: %s", sa->sun_path, strerror(errno));
    ctl->dev = st.st_dev;
    ctl->ino = st.st_ino;
    return 0;
}

int control_open(const char *path, const struct control_ops *ops, void *opaque,
                 struct control **out, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct control *ctl;

    if (strlen(path) >= sizeof(sa.sun_path))
        return error_set(err, ENAMETOOLONG,
                         "control socket %s: the name is longer than %zu bytes: choose a shorter "
                         "one with -c",
                         path, sizeof(sa.sun_path) - 1);
    strcpy(sa.sun_path, path);
    if (remove_stale(&sa, err))
        return -err->errnum;
    ctl = calloc(1, sizeof(*ctl));
    if (!ctl || !(ctl->path = strdup(path))) {
        free(ctl);
        return error_set(err, ENOMEM, "out of memory");
    }
    ctl->ops = ops;
    ctl->opaque = opaque;
    list_init(&ctl->clients);
    if (bind_and_listen(ctl, &sa, err)) {
        if (ctl->fd >= 0)
            close(ctl->fd);
        free(ctl->path);
        free(ctl);
        return -err->errnum;
    }
    ev_io_init(&ctl->acceptable, on_accept, ctl->fd, EV_READ);
    ev_init(&ctl->accept_again, on_accept_again);
    ev_io_start(loop_ev(), &ctl->acceptable);
    *out = ctl;
    return 0;
}

void control_broadcast(struct control *ctl, const json_t *msg)
{
    struct client *c, *tmp;
    char *text;

    if (list_empty(&ctl->clients))
        return;
    text = json_dumps(msg, JSON_ENSURE_ASCII);
    if (!text)
        return;
    list_for_each_entry_safe (c, tmp, &ctl->clients, link) {
        if (c->negotiated)
            send_text(c, text, strlen(text));
    }
    free(text);
}

static void remove_own_file(const struct control *ctl)
{
    struct stat st;

    if (!stat(ctl->path, &st) && st.st_dev == ctl->dev && st.st_ino == ctl->ino)
        unlink(ctl->path);
}

bool co_control_close(struct control *ctl)
{
    uint64_t limit_ns = now_ns() + UINT64_C(1000000000);
    struct client *c;

    ev_io_stop(loop_ev(), &ctl->acceptable);
    ev_timer_stop(loop_ev(), &ctl->accept_again);
    remove_own_file(ctl);
    close(ctl->fd);
    ctl->closing = true;
    list_for_each_entry (c, &ctl->clients, link)
        wake(c);
    while (!list_empty(&ctl->clients) && now_ns() < limit_ns)
        co_sleep(1000000);
    list_for_each_entry (c, &ctl->clients, link)
        set_gone(c);
    while (!list_empty(&ctl->clients) && now_ns() < limit_ns + UINT64_C(1000000000))
        co_sleep(1000000);
    if (!list_empty(&ctl->clients))
        return false;
    free(ctl->path);
    free(ctl);
    return true;
}
