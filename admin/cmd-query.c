/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions, targets, portals, the daemon itself, and what other targets offer (discover). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/commands.h"
#include "admin/health.h"
#include "admin/json-util.h"
#include "admin/qmp-meta.h"
#include "admin/state.h"
#include "discovery/chain-reader.h"
#include "discovery/isns.h"
#include "lun-backends/file.h"
#include "lun-backends/iscsi-conn.h"
#include "lun-backends/remote.h"
#include "target/target.h"
#include "util/bufpool.h"
#include "util/loop.h"

/* ---- sessions ------------------------------------------------------------------------------ */

static bool add_session(const struct session_info *s, void *arg)
{
    char isid[13];
    json_t *j;

    for (int i = 0; i < 6; i++)
        snprintf(isid + 2 * i, 3, "%02x", s->isid[i]);
    j = json_pack("{s:I, s:o, s:s, s:s, s:s, s:i, s:b, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:i, "
                  "s:I}",
                  "id", (json_int_t)s->id, "initiator", json_text(s->initiator), "peer", s->peer,
                  "local", s->local, "isid", isid, "tsih", s->tsih, "header-digest",
                  s->header_digest, "data-digest", s->data_digest, "initial-r2t", s->initial_r2t,
                  "immediate-data", s->immediate_data, "max-recv-segment",
                  (json_int_t)s->max_recv_segment, "max-xmit-segment",
                  (json_int_t)s->max_xmit_segment, "first-burst", (json_int_t)s->first_burst,
                  "max-burst", (json_int_t)s->max_burst, "commands", (int)s->commands,
                  "open-seconds", (json_int_t)((now_ns() - s->opened_ns) / 1000000000));
    json_put(j, "type", json_string(s->target ? "normal" : "discovery"));
    if (s->target)
        json_put(j, "target", json_text(s->target));
    json_array_append_new(arg, j);
    return true;
}

static json_t *run_query_sessions(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();

    (void)d;
    (void)args;
    (void)err;
    session_for_each(add_session, list);
    return list;
}

static const struct cmd_arg session_args[] = {
    {.name = "id", .type = ARG_SIZE},
    {.name = "logout", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static json_t *run_session_close(struct daemon *d, const json_t *args, struct error *err)
{
    uint64_t id = arg_size(args, "id", 0);

    (void)d;
    if (!session_close(id, arg_bool(args, "logout", false), err))
        return json_object();
    error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
                    "no session has the id %" PRIu64 "; cowtgt session list shows those there are",
                    id);
    return NULL;
}

/* ---- targets, portals, daemon ------------------------------------------------------------- */

static json_t *lun_info(const struct target *t, uint16_t number)
{
    struct lun *lun = target_find_lun((struct target *)t, number);
    const struct blk_node *node;
    struct lun_stats st;

    if (!lun)
        return NULL;
    node = blk_head_node(lun_head(lun));
    lun_get_stats(lun, &st);
    return json_pack("{s:i, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:i}", "lun", number, "node-name",
                     node->name, "virtual-size", (json_int_t)node->size_bytes, "writable",
                     lun_head(lun)->writable, "read-bytes", (json_int_t)st.read_bytes,
                     "written-bytes", (json_int_t)st.written_bytes, "read-ops",
                     (json_int_t)st.read_ops, "write-ops", (json_int_t)st.write_ops, "parked",
                     (int)st.parked);
}

static bool add_target(struct target *t, void *arg)
{
    json_t *luns = json_array();

    for (unsigned n = 0; n <= TARGET_MAX_LUN; n++) {
        json_t *lun = lun_info(t, (uint16_t)n);

        if (lun)
            json_array_append_new(luns, lun);
        else if (n > 1)
            break; /* layers are numbered without gaps */
    }
    json_array_append_new(arg, json_pack("{s:s, s:i, s:o}", "target", target_name(t), "sessions",
                                         (int)target_nr_sessions(t), "luns", luns));
    return true;
}

static json_t *run_query_targets(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();

    (void)d;
    (void)args;
    (void)err;
    target_for_each(add_target, list);
    return list;
}

static bool add_portal(const struct portal_info *p, void *arg)
{
    json_t *j = json_pack("{s:s, s:i}", "portal", p->name, "group", p->group);

    if (p->advertise)
        json_object_set_new(j, "advertise", json_string(p->advertise));
    json_array_append_new(arg, j);
    return true;
}

static json_t *portals(void)
{
    json_t *list = json_array();

    portal_for_each(add_portal, list);
    return list;
}

static json_t *run_query_portals(struct daemon *d, const json_t *args, struct error *err)
{
    (void)d;
    (void)args;
    (void)err;
    return portals();
}

static int count_entries(const struct list_head *list)
{
    int n = 0;

    for (const struct list_head *e = list->next; e != list; e = e->next)
        n++;
    return n;
}

static bool count_session(const struct session_info *s, void *arg)
{
    (void)s;
    ++*(int *)arg;
    return true;
}

static void put_isns(json_t *j)
{
    struct sns_status st;
    json_t *isns;

    if (!sns_get_status(&st))
        return;
    isns = json_pack("{s:o, s:b, s:i, s:b}", "server", json_text(st.server), "registered",
                     st.registered, "targets", (int)st.nr_targets, "discovery-domains",
                     st.discovery_domains);
    if (st.error)
        json_put(isns, "error", json_text(st.error));
    json_put(j, "isns", isns);
}

static json_t *run_query_daemon(struct daemon *d, const json_t *args, struct error *err)
{
    int sessions = 0;
    json_t *j;

    (void)args;
    (void)err;
    session_for_each(count_session, &sessions);
    j = json_pack("{s:o, s:i, s:I, s:o, s:o, s:s, s:o, s:i, s:i, s:s, s:I}", "version",
                  qmp_version(), "pid", (int)getpid(), "uptime-seconds",
                  (json_int_t)((now_ns() - d->started_ns) / 1000000000), "state-dir",
                  json_text(d->state->dir), "control-socket", json_text(d->socket_path),
                  "initiator-name", d->state->initiator, "portals", portals(), "chains",
                  count_entries(&d->chains), "sessions", sessions, "aio", aio_engine_name(),
                  "data-buffer-bytes", (json_int_t)bufpool_used_bytes(bufpool_main()));
    put_isns(j);
    health_put(d, j);
    return j;
}

/* ---- discover ------------------------------------------------------------------------------- */

#define MAX_TARGETS 256

static const struct cmd_arg discover_args[] = {
    {.name = "host", .type = ARG_STRING},
    {.name = "port", .type = ARG_SIZE, .optional = true},
    {.name = NULL},
};

static json_t *page_info(const struct cowl_page *pg)
{
    static const char *const views[] = {"flat", "delta", "image"};
    json_t *j = json_pack(
        "{s:o, s:i, s:i, s:s, s:o, s:o, s:I, s:b, s:b, s:b, s:b, s:b, s:b}", "name",
        json_text(pg->name), "index", pg->layer_index, "layers", pg->nr_layers, "view",
        pg->view < 3 ? views[pg->view] : "unknown", "chain-uuid", json_uuid(&pg->chain_uuid),
        "uuid", json_uuid(&pg->layer_uuid), "generation", (json_int_t)pg->generation, "sealed",
        (pg->flags & COWL_SEALED) != 0, "top", (pg->flags & COWL_TOP) != 0, "base",
        (pg->flags & COWL_BASE) != 0, "read-only", (pg->flags & COWL_READ_ONLY) != 0,
        "parent-remote", (pg->flags & COWL_PARENT_REMOTE) != 0, "streaming",
        (pg->flags & COWL_STREAMING) != 0);

    if (!uuid_is_zero(&pg->parent_uuid))
        json_put(j, "parent-uuid", json_uuid(&pg->parent_uuid));
    return j;
}

static json_t *found_luns(const struct found_chain *found)
{
    json_t *luns = json_array();

    for (unsigned i = 0; i < found->nr_luns; i++) {
        const struct found_lun *l = &found->luns[i];
        json_t *j =
            json_pack("{s:i, s:b, s:I, s:i, s:o, s:o}", "lun", l->number, "disk", l->is_disk,
                      "virtual-size", (json_int_t)l->size_bytes, "block-bytes", (int)l->block_bytes,
                      "vendor", json_text(l->vendor), "product", json_text(l->product));

        if (l->has_cowl)
            json_put(j, "layer", page_info(&l->cowl));
        json_array_append_new(luns, j);
    }
    return luns;
}

/* "HOST:PORT" of a SendTargets answer; the address asked where it can't be read. */
static void split_portal(const char *portal, const char *asked_host, uint16_t asked_port,
                         char *host, size_t len, uint16_t *port)
{
    const char *colon = strrchr(portal, ':');
    size_t n = colon ? (size_t)(colon - portal) : 0;
    long p = colon ? strtol(colon + 1, NULL, 10) : 0;

    if (n >= 2 && portal[0] == '[' && portal[n - 1] == ']') {
        portal++;
        n -= 2;
    }
    if (!n || n >= len || p < 1 || p > 65535) {
        snprintf(host, len, "%s", asked_host);
        *port = asked_port;
        return;
    }
    memcpy(host, portal, n);
    host[n] = '\0';
    *port = (uint16_t)p;
}

static json_t *co_look_into(struct daemon *d, const struct iscsi_found_target *ft,
                            const char *asked_host, uint16_t asked_port)
{
    char host[sizeof(ft->portal)];
    struct iscsi_conn_opts opts = {
        .host = host,
        .target = ft->name,
        .initiator = d->state->initiator,
    };
    json_t *j =
        json_pack("{s:o, s:o}", "target", json_text(ft->name), "portal", json_text(ft->portal));
    struct error err = ERROR_INIT;
    struct found_chain found = {0};
    struct iscsi_conn *conn;

    split_portal(ft->portal, asked_host, asked_port, host, sizeof(host), &opts.port);
    if (!co_iscsi_connect(&opts, &conn, &err)) {
        if (!co_chain_read(conn, &found, &err)) {
            json_put(j, "luns", found_luns(&found));
            found_chain_free(&found);
        }
        co_iscsi_close(conn);
    }
    if (*err.msg)
        json_put(j, "error", json_text(err.msg));
    return j;
}

static json_t *run_discover(struct daemon *d, const json_t *args, struct error *err)
{
    uint64_t port = arg_size(args, "port", 3260);
    struct iscsi_conn_opts opts = {
        .host = arg_string(args, "host"),
        .port = (uint16_t)port,
        .initiator = d->state->initiator,
    };
    struct iscsi_found_target *targets;
    struct iscsi_conn *conn;
    json_t *list = NULL;
    int n;

    if (!port || port > 65535) {
        error_set(err, EINVAL, "the port is a number from 1 to 65535");
        return NULL;
    }
    if (co_iscsi_connect(&opts, &conn, err))
        return NULL;
    targets = calloc(MAX_TARGETS, sizeof(*targets));
    n = targets ? co_iscsi_sendtargets(conn, targets, MAX_TARGETS, err)
                : error_set(err, ENOMEM, "out of memory");
    co_iscsi_close(conn);
    if (n >= 0)
        list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, co_look_into(d, &targets[i], opts.host, opts.port));
    free(targets);
    return list;
}

const struct command query_commands[] = {
    {"query-sessions", "who is connected, with what negotiated", NULL, run_query_sessions},
    {"session-close", "drops a session", session_args, run_session_close},
    {"query-targets", "targets and LUNs with their counters", NULL, run_query_targets},
    {"query-portals", "addresses that are served", NULL, run_query_portals},
    {"query-daemon", "the daemon: version, places, counts", NULL, run_query_daemon},
    {"discover", "targets of another host, their LUNs and chains", discover_args, run_discover},
    {NULL, NULL, NULL, NULL},
};
