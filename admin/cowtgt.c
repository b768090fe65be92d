/* SPDX-License-Identifier: BSD-3-Clause */
/* The tool's main: global options, finding the command, connecting, running it. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/cli.h"
#include "admin/paths.h"
#include "admin/qmp-client.h"

int cli_fail(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    fputs("cowtgt: ", stderr);
    cli_put_to(stderr, text ? text : "out of memory");
    fputc('\n', stderr);
    free(text);
    return CLI_FAILED;
}

static int usage(const char *what, const char *arg)
{
    fprintf(stderr, "cowtgt: %s%s (try cowtgt --help)\n", what, arg);
    return CLI_USAGE;
}

/* The whole reply in *reply; CLI_FAILED where there is none. */
static int call(struct cli *cli, const char *name, json_t *args, json_t **reply)
{
    json_t *request = json_pack("{s:s}", "execute", name);
    struct error err = ERROR_INIT;
    int ret;

    if (args && json_object_size(args))
        json_object_set(request, "arguments", args);
    ret = qmp_client_call(cli->qmp, request, reply, &err);
    json_decref(request);
    return ret ? cli_fail("%s", err.msg) : CLI_OK;
}

/* What QEMU's sentence about a job leaves out. */
static const char *way_out(const struct cli *cli, const json_t *error)
{
    bool no_job = !strcmp(cli_str(error, "class"), "DeviceNotActive");

    return no_job && !strcmp(cli->cmd->noun, "job") ? "; cowtgt job list shows those there are"
                                                    : "";
}

static int take_reply(const struct cli *cli, json_t *reply, bool print, json_t **ret)
{
    const json_t *error = json_object_get(reply, "error");

    if (print) {
        json_dumpf(reply, stdout, 0);
        putchar('\n');
    }
    *ret = error ? NULL : json_incref(json_object_get(reply, "return"));
    return error ? cli_fail("%s%s", cli_str(error, "desc"), way_out(cli, error)) : CLI_OK;
}

static int ask(struct cli *cli, const char *name, json_t *args, bool print_good, json_t **ret)
{
    json_t *reply = NULL;
    int status = call(cli, name, args, &reply);

    *ret = NULL;
    if (status)
        return status;
    status =
        take_reply(cli, reply, cli->json && (print_good || json_object_get(reply, "error")), ret);
    json_decref(reply);
    return status;
}

int cli_ask(struct cli *cli, const char *name, json_t *args, json_t **ret)
{
    return ask(cli, name, args, false, ret);
}

int cli_ask_last(struct cli *cli, const char *name, json_t *args, json_t **ret)
{
    return ask(cli, name, args, true, ret);
}

int cli_execute(struct cli *cli, const char *name, json_t *args, json_t **ret)
{
    int status = ask(cli, name, args, true, ret);

    if (cli->json) {
        json_decref(*ret);
        *ret = NULL;
    }
    return status;
}

int cli_run_plain(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *ret;
    int status = cli_execute(cli, cmd->execute, args, &ret);

    json_decref(ret);
    return status;
}

/* argv[0..1] name a command; *words: how many of them it took. */
static const struct cli_cmd *find_command(int argc, char **argv, int *words)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun; cmd++) {
        if (strcmp(cmd->noun, argv[0]))
            continue;
        *words = cmd->verb ? 2 : 1;
        if (!cmd->verb || (argc > 1 && !strcmp(cmd->verb, argv[1])))
            return cmd;
    }
    return NULL;
}

static int unknown_command(int argc, char **argv)
{
    char verbs[256] = "";
    size_t n = 0;

    for (const struct cli_cmd *cmd = cli_commands; cmd->noun; cmd++) {
        if (!strcmp(cmd->noun, argv[0]) && n < sizeof(verbs))
            n += (size_t)snprintf(verbs + n, sizeof(verbs) - n, " %s", cmd->verb);
    }
    if (!n)
        return usage("unknown command: ", argv[0]);
    if (argc > 1)
        fprintf(stderr, "cowtgt: %s has no %s; it has%s\n", argv[0], argv[1], verbs);
    else
        fprintf(stderr, "cowtgt: %s what? One of%s\n", argv[0], verbs);
    return CLI_USAGE;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
        if (!strcmp(argv[i], "--"))
            break;
    }
    return false;
}

static bool works_on_files(const struct cli_cmd *cmd)
{
    return cmd->run == cli_run_image;
}

static bool needs_daemon(const struct cli_cmd *cmd)
{
    return !works_on_files(cmd) && cmd->run != cli_run_completion;
}

static bool is_status(const struct cli_cmd *cmd)
{
    return cmd->run == cli_run_status;
}

/* image check says "corrupt" by what means wrong usage elsewhere, status that all is lost. */
static int usage_status(const struct cli_cmd *cmd)
{
    if (is_status(cmd))
        return CLI_STATUS_UNKNOWN;
    return works_on_files(cmd) && !strcmp(cmd->verb, "check") ? CLI_FAILED : CLI_USAGE;
}

/* @socket NULL: the default one. */
static int connect_daemon(struct cli *cli, const char *socket, struct error *err)
{
    char default_socket[PATH_MAX];

    if (!socket && path_default_socket(default_socket, sizeof(default_socket), err))
        return -err->errnum;
    return qmp_client_connect(socket ? socket : default_socket, &cli->qmp, err);
}

/* Nobody to ask: for a monitor that is as bad as it gets. */
static int no_daemon(const struct cli_cmd *cmd, const struct error *err)
{
    cli_fail("%s", err->msg);
    return is_status(cmd) ? CLI_STATUS_CRITICAL : CLI_FAILED;
}

static int run_command(struct cli *cli, const char *socket, int argc, char **argv)
{
    const struct cli_cmd *cmd;
    struct error err = ERROR_INIT;
    int words, status;
    json_t *args;

    cmd = find_command(argc, argv, &words);
    if (!cmd)
        return unknown_command(argc, argv);
    if (wants_help(argc - words, argv + words)) {
        cli_print_command_help(cmd);
        return CLI_OK;
    }
    args = cli_parse(cmd, argc - words, argv + words, &err);
    if (!args) {
        fprintf(stderr, "cowtgt: %s\n", err.msg);
        cli_print_usage(cmd, stderr);
        return usage_status(cmd);
    }
    if (needs_daemon(cmd) && connect_daemon(cli, socket, &err)) {
        json_decref(args);
        return no_daemon(cmd, &err);
    }
    cli->cmd = cmd;
    status = cmd->run(cli, cmd, args);
    json_decref(args);
    if (cli->qmp)
        qmp_client_close(cli->qmp);
    if (fflush(stdout) || ferror(stdout))
        return cli_fail("can't write the output: %s", strerror(errno));
    return status;
}

int main(int argc, char **argv)
{
    const char *socket = NULL;
    struct cli cli = {0};
    int i;
    for (i = 1; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "-c") || !strcmp(argv[i], "--control")) {
            if (++i == argc)
                return usage(argv[i - 1], " needs SOCKET");
            socket = argv[i];
        } else if (!strcmp(argv[i], "--json")) {
            cli.json = true;
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            cli_print_help();
            return CLI_OK;
        } else if (!strcmp(argv[i], "--version") || !strcmp(argv[i], "-V")) {
            puts("cowtgt " PACKAGE_VERSION);
            return CLI_OK;
        } else if (!strcmp(argv[i], "--dump-commands")) {
            cli_dump_commands();
            return CLI_OK;
        } else if (!strcmp(argv[i], "--complete")) {
            return cli_complete(argc - i - 1, argv + i + 1);
        } else {
            return usage("unknown option: ", argv[i]);
        }
    }
    if (i == argc)
        return usage("what is to be done?", "");
    return run_command(&cli, socket, argc - i, argv + i);
}
