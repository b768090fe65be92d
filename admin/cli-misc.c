/* SPDX-License-Identifier: BSD-3-Clause */
/* Discovery, sessions, events, raw requests. */
#include "admin/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/qmp-client.h"

/* ---- discover ----------------------------------------------------------------------------- */

/* HOST, HOST:PORT, [V6], [V6]:PORT; a bare V6 address has more than one colon. */
static int split_host_port(const char *text, json_t *args)
{
    const char *colon = strrchr(text, ':'), *end = text + strlen(text);
    char *rest;
    long port;

    if (*text == '[') {
        end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return -EINVAL;
        colon = end[1] ? end + 1 : NULL;
        text++;
    } else if (colon && strchr(text, ':') == colon) {
        end = colon;
    } else {
        colon = NULL;
    }
    if (colon) {
        port = strtol(colon + 1, &rest, 10);
        if (!colon[1] || *rest || port < 1 || port > 65535)
            return -EINVAL;
        json_object_set_new(args, "port", json_integer(port));
    }
    if (end == text)
        return -EINVAL;
    return json_object_set_new(args, "host", json_stringn(text, (size_t)(end - text)));
}

static void put_found_lun(const json_t *lun)
{
    const json_t *layer = json_object_get(lun, "layer");

    printf("  LUN %lld  ", cli_int(lun, "lun"));
    if (!cli_bool(lun, "disk")) {
        puts("not a disk");
        return;
    }
    cli_put_size(cli_int(lun, "virtual-size"));
    fputs("  ", stdout);
    cli_put(cli_str(lun, "vendor"));
    putchar(' ');
    cli_put(cli_str(lun, "product"));
    if (layer) {
        printf("  layer %lld of %lld '", cli_int(layer, "index") + 1, cli_int(layer, "layers"));
        cli_put(cli_str(layer, "name"));
        printf("', view %s%s%s%s", cli_str(layer, "view"),
               cli_bool(layer, "sealed") ? ", sealed" : "",
               cli_bool(layer, "read-only") ? ", read-only" : "",
               cli_bool(layer, "streaming") ? ", a stream runs into it" : "");
        if (cli_bool(layer, "parent-remote"))
            fputs(", its parent lives elsewhere", stdout);
    }
    putchar('\n');
}

/* The layers of a chain as a tree: each under the one whose parent it is. */
static void put_found_tree(const json_t *luns)
{
    const json_t *lun, *next = NULL;
    int depth = 0;
    size_t i;

    json_array_foreach (luns, i, lun) {
        const json_t *layer = json_object_get(lun, "layer");

        if (cli_int(lun, "lun") && cli_bool(layer, "top"))
            next = lun;
    }
    for (; next && depth < 1100; depth++) {
        const json_t *layer = json_object_get(next, "layer");
        const char *parent = cli_str(layer, "parent-uuid");

        printf("    %*s%s", depth < 12 ? 3 * depth : 36, "", depth ? "└─ " : "");
        cli_put(cli_str(layer, "name"));
        printf(" (LUN %lld)\n", cli_int(next, "lun"));
        next = NULL;
        json_array_foreach (luns, i, lun) {
            const json_t *l = json_object_get(lun, "layer");

            if (*parent && cli_int(lun, "lun") && !strcmp(cli_str(l, "uuid"), parent))
                next = lun;
        }
    }
}

int cli_run_discover(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    char *text = strdup(cli_str(args, "host"));
    json_t *list, *target, *lun;
    size_t i, k;
    int status;

    if (!text || split_host_port(text, args)) {
        free(text);
        return cli_fail("'%s' is no HOST[:PORT]", cli_str(args, "host"));
    }
    free(text);
    status = cli_execute(cli, cmd->execute, args, &list);
    json_array_foreach (list, i, target) {
        const json_t *luns = json_object_get(target, "luns");

        cli_put(cli_str(target, "target"));
        fputs("  ", stdout);
        cli_put(cli_str(target, "portal"));
        putchar('\n');
        json_array_foreach (luns, k, lun)
            put_found_lun(lun);
        put_found_tree(luns);
        if (json_object_get(target, "error")) {
            fputs("  ", stdout);
            cli_put(cli_str(target, "error"));
            putchar('\n');
        }
    }
    json_decref(list);
    return status;
}

/* ---- sessions -------------------------------------------------------------------------------- */

int cli_run_session_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list, *s;
    int status = cli_execute(cli, cmd->execute, args, &list);
    size_t i;

    json_array_foreach (list, i, s) {
        printf("%lld  ", cli_int(s, "id"));
        cli_put(cli_str(s, "initiator"));
        printf("  from %s  ", cli_str(s, "peer"));
        cli_put(json_object_get(s, "target") ? cli_str(s, "target") : "(discovery)");
        printf("  digests %s/%s  InitialR2T %s  ImmediateData %s  segments %lld/%lld  "
               "bursts %lld/%lld  %lld commands\n",
               cli_bool(s, "header-digest") ? "header" : "-",
               cli_bool(s, "data-digest") ? "data" : "-", cli_bool(s, "initial-r2t") ? "yes" : "no",
               cli_bool(s, "immediate-data") ? "yes" : "no", cli_int(s, "max-recv-segment"),
               cli_int(s, "max-xmit-segment"), cli_int(s, "first-burst"), cli_int(s, "max-burst"),
               cli_int(s, "commands"));
    }
    json_decref(list);
    return status;
}

/* ---- events --------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void put_event(const json_t *event)
{
    const json_t *stamp = json_object_get(event, "timestamp");
    time_t seconds = (time_t)cli_int(stamp, "seconds");
    const char *key;
    json_t *value;
    struct tm tm;
    char *text;

    localtime_r(&seconds, &tm);
    printf("%02d:%02d:%02d.%03lld %s", tm.tm_hour, tm.tm_min, tm.tm_sec,
           cli_int(stamp, "microseconds") / 1000, cli_str(event, "event"));
    json_object_foreach (json_object_get(event, "data"), key, value) {
        text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        printf(" %s=%s", key, text ? text : "?");
        free(text);
    }
    putchar('\n');
}

int cli_run_event_follow(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    struct sigaction sa = {.sa_handler = on_interrupt};
    struct error err = ERROR_INIT;
    json_t *event;
    int ret;

    (void)cmd;
    (void)args;
    sigaction(SIGINT, &sa, NULL);
    while (!interrupted) {
        event = NULL;
        ret = qmp_client_event(cli->qmp, -1, &event, &err);
        if (ret < 0)
            return cli_fail("%s", err.msg);
        if (!ret)
            continue;
        if (cli->json) {
            json_dumpf(event, stdout, 0);
            putchar('\n');
        } else {
            put_event(event);
        }
        json_decref(event);
        if (fflush(stdout))
            return CLI_FAILED; /* whoever read this has gone */
    }
    return CLI_OK;
}

/* ---- raw ------------------------------------------------------------------------------------ */

int cli_run_qmp(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_error_t jerr;
    json_t *request = json_loads(cli_str(args, "json"), JSON_DECODE_ANY, &jerr), *reply = NULL;
    struct error err = ERROR_INIT;
    int status = CLI_OK;

    (void)cmd;
    if (!request)
        return cli_fail("that is no JSON: %s", jerr.text);
    if (qmp_client_call(cli->qmp, request, &reply, &err)) {
        json_decref(request);
        return cli_fail("%s", err.msg);
    }
    json_decref(request);
    json_dumpf(reply, stdout, JSON_INDENT(2));
    putchar('\n');
    if (json_object_get(reply, "error"))
        status = cli_fail("%s", cli_str(json_object_get(reply, "error"), "desc"));
    json_decref(reply);
    return status;
}
