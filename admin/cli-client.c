/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket from the other side; see qmp-client.h. */
#include "admin/qmp-client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/json-stream.h"

#define READ_BYTES 65536
#define MAX_EVENTS 10000 /* kept while a reply is awaited; older ones go */

struct qmp_client {
    int fd;
    char buf[READ_BYTES];
    size_t pos, len;
    json_t *events; /* array */
    struct json_stream stream;
};

static int lost(struct error *err, const char *why)
{
    return error_set(err, ECONNRESET, "the daemon ended the connection%s%s", why ? ": " : "",
                     why ? why : "");
}

/* One JSON value: 1; 0: none within the time, or a signal came; -errno. */
static int read_value(struct qmp_client *c, int timeout_ms, json_t **value, struct error *err)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        size_t used = 0;
        ssize_t n;
        int ready;

        switch (json_stream_feed(&c->stream, c->buf + c->pos, c->len - c->pos, &used, value, err)) {
        case JSON_STREAM_VALUE:
            c->pos += used;
            return 1;
        case JSON_STREAM_ERROR:
            return error_prefix(err, "the daemon's answer can't be read");
        case JSON_STREAM_MORE:
            break;
        }
        c->pos = c->len = 0;
        ready = poll(&p, 1, timeout_ms);
        if (ready == 0 || (ready < 0 && errno == EINTR))
            return 0;
        n = recv(c->fd, c->buf, sizeof(c->buf), 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            return lost(err, n ? strerror(errno) : NULL);
        c->len = n > 0 ? (size_t)n : 0;
    }
}

static int send_all(struct qmp_client *c, const char *text, size_t len, struct error *err)
{
    while (len) {
        ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lost(err, strerror(errno));
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static void keep_event(struct qmp_client *c, json_t *event)
{
    while (json_array_size(c->events) >= MAX_EVENTS)
        json_array_remove(c->events, 0);
    json_array_append_new(c->events, event);
}

int qmp_client_call(struct qmp_client *c, json_t *request, json_t **reply, struct error *err)
{
    char *text = json_dumps(request, JSON_COMPACT | JSON_ENCODE_ANY);
    int ret;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    ret = send_all(c, text, strlen(text), err);
    if (!ret)
        ret = send_all(c, "\n", 1, err);
    free(text);
    while (!ret) {
        json_t *value = NULL;

        ret = read_value(c, -1, &value, err);
        if (ret < 0)
            return ret;
        if (ret && !json_object_get(value, "event")) {
            *reply = value;
            return 0;
        }
        if (ret)
            keep_event(c, value);
        ret = 0;
    }
    return ret;
}

int qmp_client_event(struct qmp_client *c, int timeout_ms, json_t **event, struct error *err)
{
    int ret;

    if (json_array_size(c->events)) {
        *event = json_incref(json_array_get(c->events, 0));
        json_array_remove(c->events, 0);
        return 1;
    }
    ret = read_value(c, timeout_ms, event, err);
    if (ret == 1 && !json_object_get(*event, "event")) {
        json_decref(*event);
        return error_set(err, EPROTO, "the daemon answered what nobody asked");
    }
    return ret;
}

static int negotiate(struct qmp_client *c, struct error *err)
{
    json_t *greeting = NULL, *reply = NULL, *caps;
    int ret;

    do
        ret = read_value(c, -1, &greeting, err);
    while (ret == 0);
    if (ret < 0)
        return ret;
    ret = json_object_get(greeting, "QMP") ? 0 : error_set(err, EPROTO, "it does not speak QMP");
    json_decref(greeting);
    if (ret)
        return ret;
    caps = json_pack("{s:s}", "execute", "qmp_capabilities");
    ret = qmp_client_call(c, caps, &reply, err);
    json_decref(caps);
    if (!ret && !json_object_get(reply, "return"))
        ret = error_set(err, EPROTO, "it does not take qmp_capabilities");
    json_decref(reply);
    return ret;
}

static void not_connected(const char *path, int errnum, struct error *err)
{
    if (errnum == EACCES || errnum == EPERM)
        error_set(err, errnum,
                  "%s: %s: it is for root and the user who runs that daemon; name another with -c",
                  path, strerror(errnum));
    else
        error_set(err, errnum,
                  "no daemon answers on %s (%s): start cowtgtd, or name its control socket with -c",
                  path, strerror(errnum));
}

int qmp_client_connect(const char *path, struct qmp_client **out, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct qmp_client *c;

    if (strlen(path) >= sizeof(sa.sun_path))
        return error_set(err, ENAMETOOLONG, "control socket %s: the name is longer than %zu bytes",
                         path, sizeof(sa.sun_path) - 1);
    strcpy(sa.sun_path, path);
    c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    json_stream_init(&c->stream);
    c->events = json_array();
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&sa, sizeof(sa)))
        not_connected(path, errno, err);
    else if (!negotiate(c, err)) {
        *out = c;
        return 0;
    } else {
        error_prefix(err, "control socket %s", path);
    }
    qmp_client_close(c);
    return -err->errnum;
}

void qmp_client_close(struct qmp_client *c)
{
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    json_decref(c->events);
    json_stream_release(&c->stream);
    free(c);
}
