/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Portals: listening sockets, and which of their addresses an initiator is told. While too many
 * connections are in login, or descriptors are short, nothing is accepted: who comes waits in the
 * kernel's queue.
 * Who asks for targets is told of the portals in the network that it asked from: others it may not
 * be able to reach, and it would wait for each of them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
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

#define DEFAULT_PORT        3260
#define LOGINS_MAX          128
#define ACCEPTS_PER_TURN    16
#define POLL_NS             10000000ull
#define PORTAL_TEXT_MAX     511
#define HOST_NAME_MAX_BYTES 253

struct portal {
    struct list_head link;
    struct ev_io io;
    int fd;
    struct sockaddr_storage addr;
    uint16_t group;
    char name[64];                      /* "ADDR:PORT" as bound */
    char advertise[PORTAL_ADDRESS_MAX]; /* "HOST:PORT"; "": that */
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

static size_t host_bytes(const struct sockaddr_storage *ss, const uint8_t **bytes)
{
    if (ss->ss_family == AF_INET6) {
        *bytes = ((const struct sockaddr_in6 *)ss)->sin6_addr.s6_addr;
        return 16;
    }
    *bytes = (const uint8_t *)&((const struct sockaddr_in *)ss)->sin_addr;
    return 4;
}

static bool same_under(const struct sockaddr_storage *a, const struct sockaddr_storage *b,
                       const struct sockaddr_storage *mask)
{
    const uint8_t *pa, *pb, *pm;
    size_t n = host_bytes(a, &pa);

    if (a->ss_family != b->ss_family || host_bytes(b, &pb) != n || host_bytes(mask, &pm) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if ((pa[i] ^ pb[i]) & pm[i])
            return false;
    }
    return true;
}

/* Of the network that @local is an address of; all ones, so itself alone, if that isn't known. */
static void netmask_of(const struct sockaddr_storage *local, struct sockaddr_storage *mask)
{
    struct sockaddr_storage all_ones, addr = {0};
    struct ifaddrs *list = NULL;
    socklen_t len = addr_len(local);

    memset(&all_ones, 0xff, sizeof(all_ones));
    all_ones.ss_family = local->ss_family;
    *mask = all_ones;
    if (getifaddrs(&list))
        return;
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || !i->ifa_netmask || i->ifa_addr->sa_family != local->ss_family)
            continue;
        memcpy(&addr, i->ifa_addr, len);
        if (!same_under(&addr, local, &all_ones))
            continue;
        memcpy(mask, i->ifa_netmask, len);
        mask->ss_family = local->ss_family;
        break;
    }
    freeifaddrs(list);
}

/* What the initiator that came to @local is told of @p. */
static void tell_portal(const struct portal *p, const struct sockaddr_storage *local,
                        struct portal_address *out)
{
    char host[INET6_ADDRSTRLEN + 2];

    host_of(is_wildcard(&p->addr) ? local : &p->addr, host);
    out->group = p->group;
    if (*p->advertise)
        memcpy(out->text, p->advertise, sizeof(out->text));
    else
        snprintf(out->text, sizeof(out->text), "%s:%u", host, port_of(&p->addr));
}

static bool told_already(const struct portal_address *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!strcmp(list[i].text, list[n].text) && list[i].group == list[n].group)
            return true;
    }
    return false;
}

unsigned portal_addresses(const struct conn *c, struct portal_address *out)
{
    struct sockaddr_storage local, mask;
    struct portal *p;
    unsigned n = 1;

    snprintf(out[0].text, sizeof(out[0].text), "%s", c->local);
    out[0].group = c->portal_group;
    if (!parse_address(c->local, &local))
        return n;
    netmask_of(&local, &mask);
    list_for_each_entry (p, &portals, link) {
        if (p == c->portal) {
            tell_portal(p, &local, &out[0]);
            continue;
        }
        if (n == PORTAL_MAX || p->addr.ss_family != local.ss_family ||
            (!is_wildcard(&p->addr) && !same_under(&p->addr, &local, &mask)))
            continue;
        tell_portal(p, &local, &out[n]);
        n += !told_already(out, n);
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
    const struct portal *p = container_of(w, struct portal, io);

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
        conn_new(fd, p, p->group);
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

/* A host's name: letters, digits, dots, dashes. */
static bool is_host_name(const char *host, size_t len)
{
    return len && len <= HOST_NAME_MAX_BYTES && host[0] != '-' && host[0] != '.' &&
           strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") >= len;
}

/* HOST[:PORT], where HOST is an address too; our own port if none is given. */
static bool take_advertise(struct portal *p, const char *text)
{
    size_t len = strcspn(text, ":");
    struct sockaddr_storage ss;
    uint16_t port = port_of(&p->addr);
    char address[64];

    if (parse_address(text, &ss)) {
        bool has_port =
            *text == '[' ? strstr(text, "]:") != NULL : ss.ss_family == AF_INET && text[len];

        if (!has_port) {
            host_of(&ss, address);
            snprintf(p->advertise, sizeof(p->advertise), "%s:%u", address, port);
            return !is_wildcard(&ss);
        }
        snprintf(p->advertise, sizeof(p->advertise), "%s", text);
        return port_of(&ss) && !is_wildcard(&ss);
    }
    if (!is_host_name(text, len) || (text[len] && (!parse_port(text + len + 1, &port) || !port)))
        return false;
    snprintf(p->advertise, sizeof(p->advertise), "%.*s:%u", (int)len, text, port);
    return true;
}

static bool take_group(struct portal *p, const char *text)
{
    return parse_port(text, &p->group) && p->group;
}

static const struct portal_option {
    const char *name; /* with the = */
    bool (*take)(struct portal *p, const char *value);
} options[] = {
    {"advertise=", take_advertise},
    {"group=", take_group},
};

static bool take_option(struct portal *p, const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        size_t len = strlen(options[i].name);

        if (!strncmp(text, options[i].name, len))
            return options[i].take(p, text + len);
    }
    return false;
}

/* What is after the address, ",NAME=VALUE..."; the socket is bound. */
static int take_options(struct portal *p, const char *text, struct error *err)
{
    char one[PORTAL_TEXT_MAX + 1];

    while (*text == ',') {
        size_t len = strcspn(++text, ",");

        memcpy(one, text, len);
        one[len] = 0;
        if (!take_option(p, one))
            return error_set(err, EINVAL,
                             "\"%.80s\" is no option of a portal; there are advertise=HOST[:PORT] "
                             "and group=N, from 1 to 65535",
                             one);
        text += len;
    }
    return 0;
}

static const char *no_listening_hint(int rc)
{
    switch (-rc) {
    case EADDRINUSE:
        return "; take another port, or end what listens there";
    case EADDRNOTAVAIL:
        return ", it is none of this host's";
    case EACCES:
        return "; ports below 1024 are for root";
    default:
        return "";
    }
}

static int open_portal(struct portal *p, const char *text, struct error *err)
{
    char address[PORTAL_TEXT_MAX + 1], host[INET6_ADDRSTRLEN + 2];
    size_t len = strcspn(text, ",");
    int rc;

    snprintf(address, sizeof(address), "%.*s", (int)MIN_OF(len, PORTAL_TEXT_MAX), text);
    if (strlen(text) > PORTAL_TEXT_MAX || !parse_address(address, &p->addr))
        return error_set(err, EINVAL,
                         "\"%.80s\" is not a portal; use ADDRESS[:PORT] or [IPV6]:PORT", text);
    if (nr_portals >= PORTAL_MAX - 1)
        return error_set(err, ENOSPC, "no more than %d portals", PORTAL_MAX - 1);
    rc = open_socket(p);
    if (rc)
        return error_set(err, -rc, "listening on %s: %s%s", address, strerror(-rc),
                         no_listening_hint(rc));
    host_of(&p->addr, host);
    snprintf(p->name, sizeof(p->name), "%s:%u", host, port_of(&p->addr));
    return take_options(p, text + len, err);
}

int portal_open(const char *text, struct error *err)
{
    struct portal *p = calloc(1, sizeof(*p));

    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    p->fd = -1;
    p->group = PORTAL_DEFAULT_GROUP;
    if (open_portal(p, text, err)) {
        portal_free(p);
        return -err->errnum;
    }
    ev_io_init(&p->io, on_connection, p->fd, EV_READ);
    list_add_tail(&portals, &p->link);
    nr_portals++;
    target_list_changed();
    conn_on_room = on_room;
    ev_io_start(loop_ev(), &p->io);
    log_info("listening on %s, portal group %u%s%s", p->name, p->group,
             *p->advertise ? ", known as " : "", p->advertise);
    return 0;
}

static struct portal *find_portal(const char *text)
{
    char address[PORTAL_TEXT_MAX + 1];
    struct sockaddr_storage ss, all_ones;
    struct portal *p;

    snprintf(address, sizeof(address), "%.*s", (int)MIN_OF(strcspn(text, ","), PORTAL_TEXT_MAX),
             text);
    if (!parse_address(address, &ss))
        return NULL;
    memset(&all_ones, 0xff, sizeof(all_ones));
    all_ones.ss_family = ss.ss_family;
    list_for_each_entry (p, &portals, link) {
        if (port_of(&p->addr) == port_of(&ss) && same_under(&p->addr, &ss, &all_ones))
            return p;
    }
    return NULL;
}

const char *portal_name_at(const char *text)
{
    const struct portal *p = find_portal(text);

    return p ? p->name : NULL;
}

int portal_close(const char *text, struct error *err)
{
    struct portal *p = find_portal(text);

    if (!p)
        return error_set_class(
            err, ERR_DEVICE_NOT_FOUND, ENOENT,
            "there is no portal \"%.80s\"; cowtgt portal list shows those there are", text);
    log_info("no longer listening on %s", p->name);
    ev_io_stop(loop_ev(), &p->io);
    list_del(&p->link);
    portal_free(p);
    nr_portals--;
    target_list_changed();
    return 0;
}

void portal_for_each(bool (*fn)(const struct portal_info *, void *), void *arg)
{
    struct portal *p;

    list_for_each_entry (p, &portals, link) {
        struct portal_info info = {p->name, *p->advertise ? p->advertise : NULL, p->group};

        if (!fn(&info, arg))
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
