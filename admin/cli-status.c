/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * status: for people, and by its first line and exit status for a monitor. The statuses are those
 * of monitoring plugins, so that Nagios, Icinga and the like run it as it is.
 */
#include "admin/cli.h"

#include <string.h>

static int status_of(const json_t *d)
{
    const char *health = cli_str(d, "health");

    return !strcmp(health, "ok")         ? CLI_STATUS_OK
           : !strcmp(health, "degraded") ? CLI_STATUS_DEGRADED
                                         : CLI_STATUS_CRITICAL;
}

static void put_problem(const json_t *p)
{
    printf("chain %s: ", cli_str(p, "chain"));
    cli_put(cli_str(p, "what"));
}

/* The worst problem is part of the line: it is all that many monitors show. */
static void put_summary(const json_t *d)
{
    const json_t *p;
    size_t i;

    printf("%s: %lld chains, %lld sessions", cli_str(d, "health"), cli_int(d, "chains"),
           cli_int(d, "sessions"));
    json_array_foreach (json_object_get(d, "problems"), i, p) {
        if (strcmp(cli_str(p, "health"), cli_str(d, "health")))
            continue;
        fputs("; ", stdout);
        put_problem(p);
        break;
    }
    putchar('\n');
}

static void put_portals(const json_t *portals)
{
    const json_t *p;
    size_t i;

    json_array_foreach (portals, i, p)
        printf("portal %s, group %lld%s%s\n", cli_str(p, "portal"), cli_int(p, "group"),
               json_object_get(p, "advertise") ? ", known as " : "", cli_str(p, "advertise"));
}

int cli_run_portal_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list;
    int status = cli_execute(cli, cmd->execute, args, &list);

    put_portals(list);
    json_decref(list);
    return status;
}

static void put_details(const json_t *d)
{
    const json_t *p;
    size_t i;

    json_array_foreach (json_object_get(d, "problems"), i, p) {
        printf("%s: ", cli_str(p, "health"));
        put_problem(p);
        putchar('\n');
    }
    printf("%s, process %lld, up %lld s\n", cli_str(json_object_get(d, "version"), "package"),
           cli_int(d, "pid"), cli_int(d, "uptime-seconds"));
    put_portals(json_object_get(d, "portals"));
    printf("file engine %s\nstate in ", cli_str(d, "aio"));
    cli_put(cli_str(d, "state-dir"));
    putchar('\n');
}

int cli_run_status(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *d, *reply;
    int status = cli_ask(cli, cmd->execute, args, &d);

    if (!d)
        return status ? CLI_STATUS_CRITICAL : CLI_OK;
    status = status_of(d);
    if (cli->json) {
        reply = json_pack("{s:O}", "return", d);
        json_dumpf(reply, stdout, 0);
        putchar('\n');
        json_decref(reply);
    } else {
        put_summary(d);
        put_details(d);
    }
    json_decref(d);
    return status;
}
