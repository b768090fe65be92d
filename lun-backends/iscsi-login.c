/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How an initiator session begins: names resolved on a helper thread, each address tried within
 * its share of the time, login, redirections followed a bounded number of times; and SendTargets.
 */
#define LOG_AREA "iscsi"
#include "lun-backends/iscsi-conn-int.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "util/log.h"
#include "util/size.h"
#include "util/workers.h"

#define MAX_ADDRESSES    8
#define MAX_REDIRECTIONS 3

/*
 * A lookup can take longer than anyone wants to wait: it belongs to itself, and frees itself when
 * the helper thread is done with it.
 */
struct resolve {
    struct work work;
    struct iscsi_conn *conn; /* NULL: nobody waits any more */
    bool finished;
    char host[256], port[6];
    int gai_error;
    unsigned nr;
    char portals[MAX_ADDRESSES][96]; /* numeric, as libiscsi wants them */
};

static void resolve_run(struct work *w)
{
    struct resolve *r = container_of(w, struct resolve, work);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;

    r->gai_error = getaddrinfo(r->host, r->port, &hints, &list);
    if (r->gai_error)
        return;
    for (struct addrinfo *ai = list; ai && r->nr < MAX_ADDRESSES; ai = ai->ai_next) {
        char num[80];

        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, num, sizeof(num), NULL, 0, NI_NUMERICHOST))
            continue;
        snprintf(r->portals[r->nr++], sizeof(r->portals[0]),
                 ai->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", num, r->port);
    }
    freeaddrinfo(list);
}

static void resolve_done(struct work *w)
{
    struct resolve *r = container_of(w, struct resolve, work);

    r->finished = true;
    if (r->conn)
        conn_fire(r->conn, 0);
    else
        free(r);
}

/* On success the caller frees *@out. */
static int co_resolve(struct iscsi_conn *c, const char *host, uint16_t port, uint64_t deadline_ns,
                      struct resolve **out, struct error *err)
{
    struct resolve *r = calloc(1, sizeof(*r));

    if (!r)
        return error_set(err, ENOMEM, "no memory to look up '%s'", host);
    r->work.run = resolve_run;
    r->work.done = resolve_done;
    r->conn = c;
    snprintf(r->host, sizeof(r->host), "%s", host);
    snprintf(r->port, sizeof(r->port), "%u", port);
    workers_submit(&r->work);

    int ret = co_conn_wait(c, deadline_ns);

    if (ret) {
        error_set(err, -ret, "looking up '%s': %s", host,
                  ret == -ETIMEDOUT ? "no answer in time" : c->why);
        if (r->finished)
            free(r);
        else
            r->conn = NULL;
        return ret;
    }
    if (r->gai_error || !r->nr) {
        error_set(err, EHOSTUNREACH, "looking up '%s': %s", host,
                  r->gai_error ? gai_strerror(r->gai_error) : "no address");
        free(r);
        return -EHOSTUNREACH;
    }
    *out = r;
    return 0;
}

static void login_cb(struct iscsi_context *ctx, int status, void *data, void *private_data)
{
    struct iscsi_conn *c = private_data;

    (void)ctx;
    (void)data;
    if (c->state != CONN_LOGIN)
        return;
    if (status == SCSI_STATUS_REDIRECT) {
        conn_fire(c, CONN_REDIRECTED);
    } else if (status != SCSI_STATUS_GOOD) {
        conn_note_error(c, "login failed");
        conn_fire(c, -EACCES);
    } else {
        conn_fire(c, 0);
    }
}

/* Called when the socket is connected, or can't be. */
static void connected_cb(struct iscsi_context *ctx, int status, void *data, void *private_data)
{
    struct iscsi_conn *c = private_data;

    (void)data;
    if (c->state != CONN_LOGIN)
        return;
    if (status != SCSI_STATUS_GOOD || iscsi_login_async(ctx, login_cb, c)) {
        conn_note_error(c, "the connection failed");
        conn_fire(c, -EHOSTDOWN);
    }
}

static int prepare_context(struct iscsi_conn *c)
{
    uint64_t random = now_ns();
    struct iscsi_context *ctx = iscsi_create_context(c->initiator);

    if (!ctx)
        return -ENOMEM;
    c->ctx = ctx;
    iscsi_set_noautoreconnect(ctx, 1);
    /* RFC 7143 10.1.1: the same name and ISID would take another session's place. */
    if (getrandom(&random, sizeof(random), 0) < 0)
        log_debug("no random ISID: %s", strerror(errno));
    if (c->isid)
        random = (c->isid & 0xffffff) | c->isid >> 24 << 32;
    iscsi_set_isid_random(ctx, (uint32_t)random & 0xffffff, (uint32_t)(random >> 32) & 0xffff);
    iscsi_set_session_type(ctx, c->discovery ? ISCSI_SESSION_DISCOVERY : ISCSI_SESSION_NORMAL);
    /* Asked for is insisted on. libiscsi 1.19 has no data digests to offer. */
    iscsi_set_header_digest(ctx,
                            c->digests ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    if (!c->discovery && iscsi_set_targetname(ctx, c->target))
        return -EINVAL;
    if (c->user[0] && iscsi_set_initiator_username_pwd(ctx, c->user, c->secret))
        return -EINVAL;
    return 0;
}

/* One address. On failure the context is gone again and c->why says why. */
static int co_attempt(struct iscsi_conn *c, const char *portal, uint64_t deadline_ns)
{
    int ret = prepare_context(c);

    if (!ret && iscsi_connect_async(c->ctx, portal, connected_cb, c))
        ret = -EHOSTDOWN;
    if (ret) {
        conn_note_error(c, "libiscsi gives no context");
        conn_destroy_context(c);
        return ret;
    }
    fcntl(iscsi_get_fd(c->ctx), F_SETFD, FD_CLOEXEC);
    conn_rearm(c);
    ret = co_conn_wait(c, deadline_ns);
    if (ret == -ETIMEDOUT)
        snprintf(c->why, sizeof(c->why), "no answer in time");
    if (ret < 0)
        conn_destroy_context(c);
    return ret;
}

/* "ADDR:PORT[,GROUP]" as targets write it, into host and port. */
static bool split_portal(const char *text, char *host, size_t size, uint16_t *port)
{
    const char *end = strchrnul(text, ',');
    const char *colon = memrchr(text, ':', (size_t)(end - text));
    const char *bracket = memrchr(text, ']', (size_t)(end - text));
    const char *host_end = colon && (!bracket || colon > bracket) ? colon : end;
    unsigned long p = host_end == end ? 3260 : strtoul(host_end + 1, NULL, 10);
    size_t len;

    *port = (uint16_t)p;
    if (*text == '[' && bracket) {
        text++;
        host_end = bracket;
    }
    len = (size_t)(host_end - text);
    if (len == 0 || len >= size || p == 0 || p > 65535)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    return true;
}

/* All addresses of one name; 0, CONN_REDIRECTED (@host and @port are new), or -errno. */
static int co_connect_to(struct iscsi_conn *c, char *host, uint16_t *port, uint64_t deadline_ns,
                         struct error *err)
{
    struct resolve *r = NULL;
    int ret = co_resolve(c, host, *port, deadline_ns, &r, err);

    if (ret)
        return ret;
    for (unsigned i = 0; i < r->nr; i++) {
        uint64_t now = now_ns();
        uint64_t left = deadline_ns > now ? deadline_ns - now : 0;

        ret = co_attempt(c, r->portals[i], now + left / (r->nr - i));
        if (ret >= 0 || ret == -ECANCELED || ret == -EACCES)
            break;
    }
    if (ret < 0)
        error_set(err, -ret, "%s", c->why);
    free(r);
    if (ret == CONN_REDIRECTED) {
        bool good = split_portal(iscsi_get_target_address(c->ctx), host, 256, port);

        conn_destroy_context(c);
        if (!good)
            return error_set(err, EPROTO, "the target redirects to an address that is none");
    }
    return ret;
}

static int co_login(struct iscsi_conn *c, const struct iscsi_conn_opts *opts, struct error *err)
{
    uint64_t deadline_ns = now_ns() + c->timeout_ns;
    char host[256];
    uint16_t port = opts->port;
    int ret;

    snprintf(host, sizeof(host), "%s", opts->host);
    for (int hops = 0;; hops++) {
        ret = co_connect_to(c, host, &port, deadline_ns, err);
        if (ret != CONN_REDIRECTED)
            return ret;
        if (hops == MAX_REDIRECTIONS)
            return error_set(err, ELOOP, "redirected more than %d times", MAX_REDIRECTIONS);
    }
}

int co_iscsi_connect(const struct iscsi_conn_opts *opts, struct iscsi_conn **conn,
                     struct error *err)
{
    struct iscsi_conn *c = iscsi_conn_new(opts);
    int ret;

    *conn = c;
    if (!c)
        return error_set(err, ENOMEM, "no memory for an iSCSI session");
    ret = co_login(c, opts, err);
    if (!ret && c->state == CONN_DOWN)
        ret = error_set(err, EHOSTDOWN, "%s", c->why);
    if (ret) {
        bool v6 = strchr(opts->host, ':') != NULL;

        *conn = NULL;
        iscsi_conn_abandon(c);
        return error_prefix(err, "can't log in to %s at %s%s%s:%u",
                            opts->target ? opts->target : "the discovery session", v6 ? "[" : "",
                            opts->host, v6 ? "]" : "", opts->port);
    }
    c->state = CONN_UP;
    c->was_up = true;
    c->last_rx_ns = now_ns();
    conn_rearm(c);
    return 0;
}

/* ---- SendTargets (RFC 7143 Appendix C) ---- */

static void store_target(struct iscsi_conn *c, const struct iscsi_discovery_address *da)
{
    struct iscsi_found_target *t = &c->found[c->nr_found];
    const struct iscsi_target_portal *p = da->portals;
    const char *portal = "";

    /* libiscsi puts what it reads in front: the first portal is the last of the list. */
    for (; p; p = p->next)
        portal = p->portal;
    size_t portal_len = (size_t)(strchrnul(portal, ',') - portal);

    if (strlen(da->target_name) >= sizeof(t->name) || portal_len >= sizeof(t->portal))
        return;
    memset(t, 0, sizeof(*t));
    memcpy(t->name, da->target_name, strlen(da->target_name));
    memcpy(t->portal, portal, portal_len);
    c->nr_found++;
}

static void discovery_cb(struct iscsi_context *ctx, int status, void *data, void *private_data)
{
    struct iscsi_conn *c = private_data;

    (void)ctx;
    if (!c->wait || !c->found)
        return;
    if (status != SCSI_STATUS_GOOD) {
        conn_note_error(c, "SendTargets was refused");
        conn_fire(c, -EPROTO);
        return;
    }
    for (const struct iscsi_discovery_address *da = data; da; da = da->next) {
        if (c->nr_found < c->max_found)
            store_target(c, da);
    }
    conn_fire(c, 0);
}

int co_iscsi_sendtargets(struct iscsi_conn *c, struct iscsi_found_target *out, unsigned max,
                         struct error *err)
{
    if (c->state != CONN_UP || iscsi_discovery_async(c->ctx, discovery_cb, c))
        return error_set(err, EHOSTDOWN, "SendTargets: the session is lost");
    c->found = out;
    c->max_found = max;
    c->nr_found = 0;
    loop_defer(&c->flush, LOOP_END);

    int ret = co_conn_wait(c, now_ns() + c->timeout_ns);

    c->found = NULL;
    if (ret)
        return error_set(err, -ret, "SendTargets: %s",
                         ret == -ETIMEDOUT ? "no answer in time" : c->why);
    for (unsigned i = 0; i < c->nr_found / 2; i++) {
        struct iscsi_found_target swap = out[i];

        out[i] = out[c->nr_found - 1 - i];
        out[c->nr_found - 1 - i] = swap;
    }
    return (int)c->nr_found;
}
