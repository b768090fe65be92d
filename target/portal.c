/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Portals: listening sockets, and which of their addresses an initiator is told. While too many
 * connections are in login, or descriptors are short, nothing is accepted: who comes waits in the
 * kernel's queue.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "target/session.h"
#define LOG_AREA "iscsi"
#include "util/log.h"
#include "util/size.h"

#define DEFAULT_PORT     3260
#define LOGINS_MAX       128
#define ACCEPTS_PER_TURN 16
#define POLL_NS          10000000ull

struct portal {
    struct list_head link;
    struct ev_io io;
    int fd;
    struct sockaddr_storage addr;
    char name[64]; /* "ADDR:PORT" as bound */
};

static struct list_head portals = LIST_HEAD_INIT(portals);
static unsigned nr_portals;

/* ---- addresses ------------------------------------------------------------------ */

static bool parse_port(const char *text, uint16_t *port)
{
    uint32_t v;

    if (!text_number(text, &v) || v > 65535)
        return false;
    *port = (uint16_t)v;
    return true;
}

/* "ADDR[:PORT]", "[V6][:PORT]", "V6"; false if it is none. */
static bool parse_address(const char *text, struct sockaddr_storage *ss)
{
    struct sockaddr_in *v4 = (void *)ss;
    struct sockaddr_in6 *v6 = (void *)ss;
    const char *host = text, *colon, *end;
    char ip[INET6_ADDRSTRLEN];
    uint16_t port = DEFAULT_PORT;

    memset(ss, 0, sizeof(*ss));
    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        colon = end[1] ? end + 1 : NULL;
    } else {
        colon = strchr(text, ':');
        if (colon && strchr(colon + 1, ':')) /* a bare IPv6 address */
            colon = NULL;
        end = colon ? colon : text + strlen(text);
    }
    if ((size_t)(end - host) >= sizeof(ip) || (colon && !parse_port(colon + 1, &port)))
        return false;
    memcpy(ip, host, (size_t)(end - host));
    ip[end - host] = 0;
    if (*text != '[' && inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return true;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1;
}

static socklen_t addr_len(const struct sockaddr_storage *ss)
{
    return ss->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static uint16_t port_of(const struct sockaddr_storage *ss)
{
    return ntohs(ss->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)ss)->sin6_port
                                           : ((const struct sockaddr_in *)ss)->sin_port);
}

static void host_of(const struct sockaddr_storage *ss, char host[INET6_ADDRSTRLEN + 2])
{
    char ip[INET6_ADDRSTRLEN];

    if (ss->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)ss)->sin6_addr, ip, sizeof(ip));
        snprintf(host, INET6_ADDRSTRLEN + 2, "[%s]", ip);
    } else {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)ss)->sin_addr, host, INET6_ADDRSTRLEN + 2);
    }
}

static bool is_wildcard(const struct sockaddr_storage *ss)
{
    if (ss->ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)ss)->sin6_addr);
    return ((const struct sockaddr_in *)ss)->sin_addr.s_addr == htonl(INADDR_ANY);
}

static bool is_loopback(const struct sockaddr_storage *ss)
{
    if (ss->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)ss)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)ss)->sin_addr.s_addr) >> 24 == 127;
}

unsigned portal_addresses(const struct conn *c, char (*out)[64])
{
    struct sockaddr_storage local;
    char host[INET6_ADDRSTRLEN + 2];
    struct portal *p;
    unsigned n = 1;

    snprintf(out[0], 64, "%s", c->local);
    if (!parse_address(c->local, &local))
        return n;
    list_for_each_entry (p, &portals, link) {
        bool wildcard = is_wildcard(&p->addr);

        if (n == PORTAL_MAX)
            break;
        if (wildcard && p->addr.ss_family != local.ss_family)
            continue;
        if (is_loopback(&p->addr) && !is_loopback(&local)) /* of no use to who comes from afar */
            continue;
        host_of(wildcard ? &local : &p->addr, host);
        snprintf(out[n], 64, "%s:%u", host, port_of(&p->addr));
        if (strcmp(out[n], out[0]))
            n++;
    }
    return n;
}

bool portal_address(const char *text, char out[64])
{
    struct sockaddr_storage ss;
    char host[INET6_ADDRSTRLEN + 2];

    if (!parse_address(text, &ss) || !port_of(&ss) || is_wildcard(&ss))
        return false;
    host_of(&ss, host);
    snprintf(out, 64, "%s:%u", host, port_of(&ss));
    return true;
}

/* ---- listening -------------------------------------------------------------------- */

static void accept_all(bool on)
{
    struct portal *p;

    list_for_each_entry (p, &portals, link) {
        if (on)
            ev_io_start(loop_ev(), &p->io);
        else
            ev_io_stop(loop_ev(), &p->io);
    }
}

static void on_room(void)
{
    if (conns_in_login() < LOGINS_MAX)
        accept_all(true);
}

static void on_connection(struct ev_loop *ev, struct ev_io *w, int revents)
{
    (void)ev;
    (void)revents;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd;

        if (conns_in_login() >= LOGINS_MAX) {
            accept_all(false);
            return;
        }
        fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
            log_err("accepting a connection: %s", strerror(errno));
            accept_all(false); /* until the next tick, or somebody leaves */
        }
        if (fd < 0)
            return;
        conn_new(fd);
    }
}

static int open_socket(struct portal *p)
{
    socklen_t len = addr_len(&p->addr);
    int one = 1;

    p->fd = socket(p->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd < 0)
        return -errno;
    setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (p->addr.ss_family == AF_INET6)
        setsockopt(p->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(p->fd, (struct sockaddr *)&p->addr, len) || listen(p->fd, SOMAXCONN) ||
        getsockname(p->fd, (struct sockaddr *)&p->addr, &len))
        return -errno;
    return 0;
}

static void portal_free(struct portal *p)
{
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}

int portal_open(const char *text, struct error *err)
{
    struct portal *p = calloc(1, sizeof(*p));
    char host[INET6_ADDRSTRLEN + 2];
    int rc;

    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    p->fd = -1;
    if (!parse_address(text, &p->addr)) {
        portal_free(p);
        return error_set(err, EINVAL,
                         "\"%.80s\" is not a portal; use ADDRESS[:PORT] or [IPV6]:PORT", text);
    }
    if (nr_portals >= PORTAL_MAX - 1) {
        portal_free(p);
        return error_set(err, ENOSPC, "no more than %d portals", PORTAL_MAX - 1);
    }
    rc = open_socket(p);
    if (rc) {
        portal_free(p);
        return error_set(err, -rc, "listening on %s: %s", text, strerror(-rc));
    }
    host_of(&p->addr, host);
    snprintf(p->name, sizeof(p->name), "%s:%u", host, port_of(&p->addr));
    ev_io_init(&p->io, on_connection, p->fd, EV_READ);
    list_add_tail(&portals, &p->link);
    nr_portals++;
    conn_on_room = on_room;
    ev_io_start(loop_ev(), &p->io);
    log_info("listening on %s", p->name);
    return 0;
}

void portal_for_each(bool (*fn)(const char *addr_port, void *), void *arg)
{
    struct portal *p;

    list_for_each_entry (p, &portals, link) {
        if (!fn(p->name, arg))
            return;
    }
}

/* ---- the end ----------------------------------------------------------------------- */

static void close_listeners(void)
{
    struct portal *p, *tmp;

    list_for_each_entry_safe (p, tmp, &portals, link) {
        ev_io_stop(loop_ev(), &p->io);
        list_del(&p->link);
        portal_free(p);
    }
    nr_portals = 0;
}

static bool drain(struct conn *c, void *arg)
{
    (void)arg;
    if (c->state == CONN_LOGIN)
        conn_close(c, "shutting down");
    else
        c->draining = true;
    return true;
}

/* What has nothing under way any more is told, and closed when that is sent. */
static bool end_if_idle(struct conn *c, void *arg)
{
    unsigned *left = arg;

    (*left)++;
    if (c->state == CONN_FULL && !c->session->nr_tasks && list_empty(&c->tx.ops))
        conn_dismiss(c, NULL);
    return true;
}

static bool close_now(struct conn *c, void *arg)
{
    (void)arg;
    conn_close(c, "shutting down");
    return true;
}

void co_portals_close_all(uint64_t limit_ns)
{
    uint64_t deadline = now_ns() + limit_ns;
    unsigned left;

    close_listeners();
    conn_for_each(drain, NULL);
    do {
        left = 0;
        conn_for_each(end_if_idle, &left);
        if (left)
            co_sleep(POLL_NS);
    } while (left && now_ns() < deadline);
    conn_for_each(close_now, NULL);
    co_pause(); /* closed ones are freed */
}
