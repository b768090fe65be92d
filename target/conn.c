/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections: their beginning, their end, and the once-a-second look at those that stand still.
 * Nothing the peer does or leaves undone keeps a connection in login, or one that is stuck, for
 * longer than its limit; an idle peer is left alone as long as its TCP answers.
 */
#include "target/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "target/session.h"
#include "target/task.h"
#define LOG_AREA "iscsi"
#include "util/log.h"

static struct list_head conns = LIST_HEAD_INIT(conns);
static unsigned nr_in_login;
static struct ev_timer tick_timer;
void (*conn_on_room)(void);

/* "ADDR:PORT", "[V6]:PORT" */
static void format_address(const struct sockaddr_storage *ss, char out[64])
{
    const struct sockaddr_in *v4 = (const void *)ss;
    const struct sockaddr_in6 *v6 = (const void *)ss;
    char ip[INET6_ADDRSTRLEN];

    if (ss->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof(ip));
        snprintf(out, 64, "[%s]:%u", ip, ntohs(v6->sin6_port));
    } else {
        inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof(ip));
        snprintf(out, 64, "%s:%u", ip, ntohs(v4->sin_port));
    }
}

static int read_addresses(struct conn *c)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    if (getpeername(c->fd, (struct sockaddr *)&ss, &len))
        return -errno;
    format_address(&ss, c->peer);
    len = sizeof(ss);
    if (getsockname(c->fd, (struct sockaddr *)&ss, &len))
        return -errno;
    format_address(&ss, c->local);
    return 0;
}

/* A peer that is gone is found by TCP, whether we have something to send or not. */
static void set_socket_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 30},
        {IPPROTO_TCP, TCP_KEEPINTVL, 10},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, (int)(CONN_STUCK_NS / 1000000)},
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)))
            log_debug("setsockopt %d/%d: %s", options[i].level, options[i].name, strerror(errno));
    }
}

static void check_login(struct conn *c, uint64_t now)
{
    if (now - c->opened_ns > CONN_LOGIN_LIMIT_NS)
        conn_close(c, "login not finished in time");
}

static void check_full(struct conn *c, uint64_t now)
{
    task_tick(c->session, now);
    if (c->state != CONN_FULL)
        return;
    if (c->logout_by_ns && now > c->logout_by_ns) {
        conn_dismiss(c, "it was asked to log out and did not");
        return;
    }
    if (now - c->rx.last_ns > CONN_PING_NS && now - c->tx.pinged_ns > CONN_PING_NS &&
        list_empty(&c->tx.ops)) {
        c->tx.pinged_ns = now;
        ffp_ping(c);
    }
}

/* Has something to send, and the peer takes none of it; or, while buffers are scarce, too little.
 */
static bool is_stuck(struct conn *c, uint64_t now)
{
    if (list_empty(&c->tx.ops)) {
        c->tx.slow_since_ns = 0;
        return false;
    }
    if (!c->tx.slow_since_ns || c->tx.sent_bytes - c->tx.slow_at_bytes >= CONN_SLOW_BYTES) {
        c->tx.slow_since_ns = now;
        c->tx.slow_at_bytes = c->tx.sent_bytes;
    }
    return now - c->tx.progress_ns > CONN_STUCK_NS ||
           (task_data_is_scarce() && now - c->tx.slow_since_ns > SESSION_SCARCE_NS);
}

static bool check_one(struct conn *c, void *arg)
{
    uint64_t now = *(uint64_t *)arg;

    if (is_stuck(c, now))
        conn_close(c, "the initiator doesn't read what it is sent");
    else if (c->dismissed_ns && now - c->dismissed_ns > CONN_DISMISS_NS)
        conn_close(c, NULL);
    else if (c->state == CONN_LOGIN)
        check_login(c, now);
    else if (c->state == CONN_FULL)
        check_full(c, now);
    return true;
}

static void on_tick(struct ev_loop *ev, struct ev_timer *w, int revents)
{
    uint64_t now = now_ns();

    (void)revents;
    conn_for_each(check_one, &now);
    if (conn_on_room)
        conn_on_room();
    if (list_empty(&conns))
        ev_timer_stop(ev, w);
}

static void start_ticking(void)
{
    if (ev_is_active(&tick_timer))
        return;
    ev_timer_init(&tick_timer, on_tick, 1.0, 1.0);
    ev_timer_start(loop_ev(), &tick_timer);
}

static void conn_free(struct deferred *d)
{
    struct conn *c = container_of(d, struct conn, free_defer);

    list_del(&c->link);
    loop_undefer(&c->rx_defer);
    loop_undefer(&c->tx_defer);
    if (c->session)
        session_free(c->session);
    free(c->rx.segment);
    conn_rx_forget(c);
    free(c);
}

struct conn *conn_new(int fd, const struct portal *portal, uint16_t group)
{
    struct conn *c = calloc(1, sizeof(*c));

    if (!c) {
        close(fd);
        return NULL;
    }
    c->fd = fd;
    c->portal = portal;
    c->portal_group = group;
    c->opened_ns = c->rx.last_ns = now_ns();
    if (read_addresses(c) || !login_begin(c)) {
        close(fd);
        free(c);
        return NULL;
    }
    set_socket_options(fd);
    list_init(&c->rx_defer.link);
    list_init(&c->tx_defer.link);
    list_init(&c->free_defer.link);
    c->free_defer.fn = conn_free;
    conn_tx_init(c);
    list_add_tail(&conns, &c->link);
    nr_in_login++;
    start_ticking();
    conn_rx_start(c);
    log_debug("%s: connected to %s", c->peer, c->local);
    return c;
}

unsigned conns_in_login(void)
{
    return nr_in_login;
}

void conn_left_login(struct conn *c)
{
    login_free(c);
    nr_in_login--;
    if (conn_on_room)
        conn_on_room();
}

void conn_put_if_done(struct conn *c)
{
    if (c->state == CONN_CLOSED && (!c->session || !c->session->nr_tasks))
        loop_defer(&c->free_defer, LOOP_NOW);
}

void conn_close(struct conn *c, const char *why)
{
    if (c->state == CONN_CLOSED)
        return;
    if (why)
        log_notice("%s: connection dropped: %s", c->peer, why);
    c->state = CONN_CLOSED;
    conn_rx_stop(c);
    ev_io_stop(loop_ev(), &c->writable);
    close(c->fd);
    c->fd = -1;
    if (c->login)
        conn_left_login(c);
    if (c->session)
        session_lost(c->session);
    conn_tx_drop(c);
    conn_put_if_done(c);
}

void conn_end(struct conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    c->state = CONN_ENDING;
    conn_rx_stop(c);
    loop_defer(&c->tx_defer, LOOP_END);
}

/* RFC 7143 11.9.1 */
enum async_event { ASYNC_ASK_LOGOUT = 1, ASYNC_DROP_SESSION = 3 };

void conn_dismiss(struct conn *c, const char *why)
{
    uint8_t bhs[PDU_BHS_BYTES];

    if (c->state != CONN_FULL) {
        conn_close(c, why);
        return;
    }
    if (why)
        log_notice("%s: initiator sent away: %s", c->peer, why);
    pdu_async(bhs, ASYNC_DROP_SESSION, 0, (uint16_t)c->session->params.time2wait_s, 0);
    if (!conn_send_pdu(c, bhs, NULL, 0, true))
        return;
    c->dismissed_ns = now_ns();
    conn_end(c);
}

/* What is under way, and what comes until it logs out, is served. */
void conn_ask_logout(struct conn *c, const char *why)
{
    uint8_t bhs[PDU_BHS_BYTES];

    if (c->state != CONN_FULL) {
        conn_close(c, why);
        return;
    }
    log_notice("%s: initiator asked to log out: %s", c->peer, why);
    pdu_async(bhs, ASYNC_ASK_LOGOUT, 0, 0, CONN_LOGOUT_S);
    if (conn_send_pdu(c, bhs, NULL, 0, true) && !c->logout_by_ns)
        c->logout_by_ns = now_ns() + CONN_LOGOUT_S * UINT64_C(1000000000);
}

/* Memory of closed connections goes later, so only links of others can change under us. */
void conn_for_each(bool (*fn)(struct conn *, void *), void *arg)
{
    struct conn *c, *tmp;

    list_for_each_entry_safe (c, tmp, &conns, link) {
        if (c->state != CONN_CLOSED && !fn(c, arg))
            return;
    }
}
