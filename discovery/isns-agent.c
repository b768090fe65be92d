/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The agent that talks to the name server. Input: "begin", then "portal HOST:PORT GROUP" and
 * "target NAME" lines, then "end": the whole wanted state; end of file: take it back and exit.
 * Output: "ok N", "failed TEXT", and with discovery domains a "members TARGET NAME..." line a
 * target.
 *
 * A registration lives PERIOD_S at the server; asking it something as one of our targets renews it.
 */
#include "discovery/isns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBISNS
#include <libisns/attrs.h>
#include <libisns/isns.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>
#include "util/size.h"

#define PERIOD_S     120
#define RENEW_MS     5000
#define RETRY_MS     3000
#define MAX_PORTALS  64
#define MAX_TARGETS  4096
#define A_BATCH      32 /* targets in one message: its size is bounded */
#define LINE_BYTES   1024
#define DEFAULT_PORT "3260"

struct portal_entry {
    char address[256];
    unsigned group;
};

static struct agent {
    char entity[256];
    bool domains;
    struct portal_entry portals[MAX_PORTALS];
    unsigned nr_portals;
    char *targets[MAX_TARGETS];
    unsigned nr_targets;
    bool dirty, registered;
    char registered_as[256]; /* the target whose name the registration was made under */
    char error[256];
} ag;

static bool went_well(const char *doing, int status)
{
    if (status == ISNS_SUCCESS)
        return true;
    snprintf(ag.error, sizeof(ag.error), "%s: %s", doing, isns_strerror((enum isns_status)status));
    return false;
}

static isns_client_t *connect_as(const char *name)
{
    isns_client_t *client = isns_create_client(NULL, name);

    if (!client)
        snprintf(ag.error, sizeof(ag.error), "the server can't be reached");
    return client;
}

/* ---- registering --------------------------------------------------------------------- */

static bool parse_portal(isns_client_t *client, const char *address, isns_portal_info_t *info)
{
    isns_portal_info_t local;
    uint16_t port;

    if (!isns_portal_parse(info, address, DEFAULT_PORT))
        return false;
    info->proto = IPPROTO_TCP;
    if (!isns_portal_is_wildcard(info))
        return true;
    if (!isns_client_get_local_address(client, &local))
        return false;
    port = info->addr.sin6_port; /* the address that the server sees us by */
    info->addr = local.addr;
    info->addr.sin6_port = port;
    return true;
}

static bool send_registration(isns_client_t *client, isns_object_t *entity,
                              isns_object_list_t *objects, bool replace)
{
    isns_simple_t *reg = isns_create_registration(client, entity);
    int status;

    isns_registration_set_replace(reg, replace);
    isns_registration_add_object_list(reg, objects);
    status = isns_client_call(client, &reg);
    if (reg)
        isns_simple_free(reg);
    return went_well("registering", status);
}

/* Targets [from, to) with all portals; the first batch replaces what was there. */
static bool register_batch(isns_client_t *client, unsigned from, unsigned to)
{
    isns_object_t *entity = isns_create_entity(ISNS_ENTITY_PROTOCOL_ISCSI, ag.entity);
    isns_object_list_t objects = ISNS_OBJECT_LIST_INIT;
    isns_object_t *portals[MAX_PORTALS];
    unsigned nr = 0;
    bool ok;

    isns_object_set_uint32(entity, ISNS_TAG_REGISTRATION_PERIOD, PERIOD_S);
    isns_object_list_append(&objects, entity);
    for (unsigned i = 0; i < ag.nr_portals; i++) {
        isns_portal_info_t info;

        if (!parse_portal(client, ag.portals[i].address, &info))
            continue;
        portals[nr] = isns_create_portal(&info, entity);
        isns_object_list_append(&objects, portals[nr++]);
    }
    for (unsigned i = from; i < to; i++) {
        isns_object_t *node =
            isns_create_storage_node(ag.targets[i], ISNS_ISCSI_TARGET_MASK, entity);

        isns_object_list_append(&objects, node);
        for (unsigned p = 0; p < nr; p++) {
            isns_object_t *group = isns_create_portal_group(portals[p], node, ag.portals[p].group);

            if (group) {
                isns_object_list_append(&objects, group);
                isns_object_release(group);
            }
        }
        isns_object_release(node);
    }
    ok = send_registration(client, entity, &objects, from == 0);
    for (unsigned p = 0; p < nr; p++)
        isns_object_release(portals[p]);
    isns_object_list_destroy(&objects);
    isns_object_release(entity);
    return ok;
}

static bool deregister(void)
{
    isns_attr_list_t keys = ISNS_ATTR_LIST_INIT;
    isns_client_t *client = connect_as(ag.registered_as);
    isns_simple_t *gone;
    int status;

    if (!client)
        return false;
    isns_attr_list_append_string(&keys, ISNS_TAG_ENTITY_IDENTIFIER, ag.entity);
    gone = isns_create_deregistration(client, &keys);
    status = isns_client_call(client, &gone);
    if (gone)
        isns_simple_free(gone);
    isns_attr_list_destroy(&keys);
    isns_client_destroy(client);
    ag.registered = false;
    return went_well("deregistering", status);
}

static bool register_all(void)
{
    isns_client_t *client;
    bool ok = true;

    /* The name it was made under may be gone: the server would not take a change from another. */
    if (ag.registered && (!ag.nr_targets || strcmp(ag.registered_as, ag.targets[0])))
        deregister();
    if (!ag.nr_targets)
        return true;
    client = connect_as(ag.targets[0]);
    if (!client)
        return false;
    for (unsigned from = 0; ok && from < ag.nr_targets; from += A_BATCH)
        ok = register_batch(client, from, MIN_OF(from + A_BATCH, ag.nr_targets));
    isns_client_destroy(client);
    ag.registered = ok;
    if (ok)
        snprintf(ag.registered_as, sizeof(ag.registered_as), "%s", ag.targets[0]);
    return ok;
}

/* ---- asking ---------------------------------------------------------------------------- */

/* The initiators that the server shows to @target: those it shares a discovery domain with. */
static bool ask_members(isns_client_t *client, const char *target)
{
    isns_attr_list_t key = ISNS_ATTR_LIST_INIT;
    isns_object_list_t found = ISNS_OBJECT_LIST_INIT;
    isns_source_t *source = isns_source_create_iscsi(target);
    isns_simple_t *query;
    int status;

    isns_attr_list_append_uint32(&key, ISNS_TAG_ISCSI_NODE_TYPE, ISNS_ISCSI_INITIATOR_MASK);
    query = isns_create_query2(client, &key, source);
    isns_query_request_attr_tag(query, ISNS_TAG_ISCSI_NAME);
    isns_query_request_attr_tag(query, ISNS_TAG_ISCSI_NODE_TYPE);
    status = isns_client_call(client, &query);
    if (status == ISNS_SUCCESS)
        status = isns_query_response_get_objects(query, &found);
    if (status == ISNS_NO_SUCH_ENTRY)
        status = ISNS_SUCCESS;
    if (status == ISNS_SUCCESS && ag.domains) {
        printf("members %s", target);
        for (unsigned i = 0; i < found.iol_count; i++) {
            const char *name = isns_storage_node_name(found.iol_data[i]);

            if (name)
                printf(" %s", name);
        }
        putchar('\n');
    }
    if (query)
        isns_simple_free(query);
    isns_source_release(source);
    isns_object_list_destroy(&found);
    isns_attr_list_destroy(&key);
    return went_well("asking for initiators", status);
}

/* A server that was started with nothing knows nothing of us, and says nothing wrong either. */
static bool still_known(isns_client_t *client)
{
    isns_attr_list_t key = ISNS_ATTR_LIST_INIT;
    isns_object_list_t found = ISNS_OBJECT_LIST_INIT;
    isns_simple_t *query;
    bool known;

    isns_attr_list_append_string(&key, ISNS_TAG_ISCSI_NAME, ag.registered_as);
    query = isns_create_query(client, &key);
    isns_query_request_attr_tag(query, ISNS_TAG_ISCSI_NAME);
    known = isns_client_call(client, &query) == ISNS_SUCCESS &&
            isns_query_response_get_objects(query, &found) == ISNS_SUCCESS && found.iol_count;
    if (!known)
        snprintf(ag.error, sizeof(ag.error), "the server does not know us any more");
    if (query)
        isns_simple_free(query);
    isns_object_list_destroy(&found);
    isns_attr_list_destroy(&key);
    return known;
}

/* One question renews the registration; with discovery domains each target asks its own. */
static bool renew(void)
{
    isns_client_t *client = connect_as(ag.registered_as);
    bool ok = client && still_known(client);

    for (unsigned i = 0; ok && ag.domains && i < ag.nr_targets; i++)
        ok = ask_members(client, ag.targets[i]);
    if (client)
        isns_client_destroy(client);
    return ok;
}

/* ---- input ------------------------------------------------------------------------------ */

static void forget_wanted(void)
{
    for (unsigned i = 0; i < ag.nr_targets; i++)
        free(ag.targets[i]);
    ag.nr_targets = ag.nr_portals = 0;
}

static void take_line(char *line)
{
    char *word = strtok(line, " \n"), *arg = strtok(NULL, " \n"), *more = strtok(NULL, " \n");

    if (!word)
        return;
    if (!strcmp(word, "begin")) {
        forget_wanted();
    } else if (!strcmp(word, "end")) {
        ag.dirty = true;
    } else if (arg && !strcmp(word, "target") && ag.nr_targets < MAX_TARGETS) {
        ag.targets[ag.nr_targets] = strdup(arg);
        ag.nr_targets += ag.targets[ag.nr_targets] != NULL;
    } else if (arg && more && !strcmp(word, "portal") && ag.nr_portals < MAX_PORTALS) {
        struct portal_entry *p = &ag.portals[ag.nr_portals++];

        snprintf(p->address, sizeof(p->address), "%s", arg);
        p->group = (unsigned)strtoul(more, NULL, 10);
    }
}

/* False: end of file. Waits at most @timeout_ms for input. */
static bool read_input(int timeout_ms)
{
    static char buf[LINE_BYTES];
    static size_t len;
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    char *end;
    ssize_t got;

    if (poll(&fd, 1, timeout_ms) <= 0)
        return true;
    got = read(STDIN_FILENO, buf + len, sizeof(buf) - 1 - len);
    if (got <= 0)
        return got < 0 && errno == EINTR;
    len += (size_t)got;
    buf[len] = '\0';
    while ((end = strchr(buf, '\n'))) {
        *end++ = '\0';
        take_line(buf);
        len -= (size_t)(end - buf);
        memmove(buf, end, len + 1);
    }
    if (len == sizeof(buf) - 1)
        len = 0; /* longer than any line of ours */
    return true;
}

static void work(void)
{
    bool ok = true;

    ag.error[0] = '\0';
    if (ag.dirty || !ag.registered)
        ok = register_all();
    if (ok)
        ag.dirty = false;
    if (ok && ag.registered && !renew()) {
        ag.registered = false; /* the server has forgotten us, or is away */
        ok = false;
    }
    if (ok)
        printf("ok %u\n", ag.registered ? ag.nr_targets : 0);
    else
        printf("failed %s\n", ag.error);
    fflush(stdout);
}

int sns_agent_main(const char *server, bool discovery_domains)
{
    char address[300], off[] = "0";
    bool failed = false;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* the daemon's to take, which closes our input */
    signal(SIGTERM, SIG_IGN);
    snprintf(address, sizeof(address), "%s", server);
    isns_config_set("ServerAddress", address);
    isns_config_set("Security", off);
    ag.domains = discovery_domains;
    if (gethostname(ag.entity, sizeof(ag.entity) - 16))
        strcpy(ag.entity, "localhost");
    snprintf(ag.entity + strlen(ag.entity), 16, ":cowtgt-%u", (unsigned)getppid() % 100000);
    while (read_input(failed ? RETRY_MS : ag.registered ? RENEW_MS : -1)) {
        if (ag.nr_targets || ag.registered || ag.dirty)
            work();
        failed = ag.error[0];
    }
    if (ag.registered)
        deregister();
    return 0;
}
#else
int sns_agent_main(const char *server, bool discovery_domains)
{
    (void)server;
    (void)discovery_domains;
    fputs("built without iSNS\n", stderr);
    return 1;
}
#endif
