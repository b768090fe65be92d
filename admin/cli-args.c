/* SPDX-License-Identifier: BSD-3-Clause */
/* Command lines by the table: parsing, usage, help. */
#include "admin/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/paths.h"
#include "util/size.h"

static int set_number(json_t *args, const struct cli_arg *a, const char *value, struct error *err)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || n > INT64_MAX)
        return error_set(err, EINVAL, "%s: '%s' is no number", a->name, value);
    return json_object_set_new(args, a->key, json_integer((json_int_t)n));
}

static int set_size(json_t *args, const struct cli_arg *a, const char *value, struct error *err)
{
    uint64_t bytes;

    if (size_parse(value, &bytes))
        return error_set(err, EINVAL, "%s: '%s' is no size (a number, with k, M, G or T)", a->name,
                         value);
    return json_object_set_new(args, a->key, json_integer((json_int_t)bytes));
}

static int set_path(json_t *args, const struct cli_arg *a, const char *value, struct error *err)
{
    char path[PATH_MAX];

    if (!strncmp(value, "ram:", 4) && !strcmp(a->key, "image"))
        return json_object_set_new(args, a->key, json_string(value)); /* a RAM disk, no file */
    if (!*value || path_absolute(value, path, sizeof(path)))
        return error_set(err, EINVAL, "%s: '%.200s' is no path", a->name, value);
    if (json_object_set_new(args, a->key, json_string(path)))
        return error_set(err, EINVAL, "%s: the path is no UTF-8", a->name);
    return 0;
}

static int set_text(json_t *args, const struct cli_arg *a, const char *value, struct error *err)
{
    json_t *text = json_string(value), *list;

    if (!text)
        return error_set(err, EINVAL, "%s: the text is no UTF-8", a->name);
    if (a->kind != CLI_LIST)
        return json_object_set_new(args, a->key, text);
    list = json_object_get(args, a->key);
    if (!list) {
        list = json_array();
        json_object_set_new(args, a->key, list);
    }
    return json_array_append_new(list, text);
}

static int set_value(json_t *args, const struct cli_arg *a, const char *value, struct error *err)
{
    switch (a->kind) {
    case CLI_TRUE:
    case CLI_FALSE:
        return json_object_set_new(args, a->key, json_boolean(a->kind == CLI_TRUE));
    case CLI_NUMBER:
        return set_number(args, a, value, err);
    case CLI_SIZE:
        return set_size(args, a, value, err);
    case CLI_PATH:
        return set_path(args, a, value, err);
    case CLI_STRING:
    case CLI_LIST:
        return set_text(args, a, value, err);
    }
    return -EINVAL;
}

static const struct cli_arg *find_option(const struct cli_cmd *cmd, const char *text, size_t len)
{
    for (const struct cli_arg *a = cmd->options; a && a->name; a++) {
        if (strlen(a->name) == len && !strncmp(a->name, text, len))
            return a;
    }
    return NULL;
}

/* "--opt VALUE" or "--opt=VALUE"; uses argv[*i], perhaps the next too. */
static int take_option(const struct cli_cmd *cmd, int argc, char **argv, int *i, json_t *args,
                       struct error *err)
{
    const char *text = argv[*i], *eq = strchr(text, '='), *value = NULL;
    const struct cli_arg *a = find_option(cmd, text, eq ? (size_t)(eq - text) : strlen(text));

    if (!a)
        return error_set(err, EINVAL, "unknown option %s", text);
    if (!a->metavar && eq)
        return error_set(err, EINVAL, "%s takes no value", a->name);
    if (a->metavar) {
        value = eq ? eq + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        if (!value)
            return error_set(err, EINVAL, "%s needs %s", a->name, a->metavar);
    }
    return set_value(args, a, value, err);
}

/* As getopt does: "-pq", "-fraw", "-f raw". */
static int take_letters(const struct cli_cmd *cmd, int argc, char **argv, int *i, json_t *args,
                        struct error *err)
{
    for (const char *letter = argv[*i] + 1; *letter; letter++) {
        const char name[] = {'-', *letter, '\0'}, *value = NULL;
        const struct cli_arg *a = find_option(cmd, name, 2);
        int ret;

        if (!a)
            return error_set(err, EINVAL, "unknown option %s", name);
        if (a->metavar) {
            value = letter[1] ? letter + 1 : *i + 1 < argc ? argv[++*i] : NULL;
            if (!value)
                return error_set(err, EINVAL, "%s needs %s", a->name, a->metavar);
        }
        ret = set_value(args, a, value, err);
        if (ret || value)
            return ret;
    }
    return 0;
}

/* "-1G" is a difference of sizes where a positional is still to come. */
static bool is_option(const char *text, const struct cli_arg *pos)
{
    return text[0] == '-' && text[1] && !(pos && pos->name && text[1] >= '0' && text[1] <= '9');
}

static int check_required(const struct cli_arg *a, const json_t *args, struct error *err)
{
    for (; a && a->name; a++) {
        if (a->required && !json_object_get(args, a->key))
            return error_set(err, EINVAL, "%s%s%s is missing", a->name, a->metavar ? " " : "",
                             a->metavar ? a->metavar : "");
    }
    return 0;
}

json_t *cli_parse(const struct cli_cmd *cmd, int argc, char **argv, struct error *err)
{
    const struct cli_arg *pos = cmd->positionals;
    json_t *args = json_object();
    bool only_positionals = false;
    int ret = 0;

    for (int i = 0; i < argc && !ret; i++) {
        if (!only_positionals && !strcmp(argv[i], "--")) {
            only_positionals = true;
        } else if (!only_positionals && is_option(argv[i], pos)) {
            ret = argv[i][1] == '-' ? take_option(cmd, argc, argv, &i, args, err)
                                    : take_letters(cmd, argc, argv, &i, args, err);
        } else if (pos && pos->name) {
            ret = set_value(args, pos, argv[i], err);
            pos += pos->kind != CLI_LIST;
        } else {
            ret = error_set(err, EINVAL, "unexpected argument '%s'", argv[i]);
        }
    }
    if (!ret && !check_required(cmd->positionals, args, err) &&
        !check_required(cmd->options, args, err))
        return args;
    json_decref(args);
    return NULL;
}

/* ---- help ------------------------------------------------------------------------------------ */

static void print_synopsis(FILE *f, const struct cli_cmd *cmd)
{
    fprintf(f, "%s", cmd->noun);
    if (cmd->verb)
        fprintf(f, " %s", cmd->verb);
    for (const struct cli_arg *a = cmd->positionals; a && a->name; a++)
        fprintf(f, a->required ? " %s" : " [%s]", a->name);
    for (const struct cli_arg *a = cmd->options; a && a->name; a++)
        fprintf(f, a->required ? " %s%s%s%s" : " [%s%s%s]%s", a->name, a->metavar ? " " : "",
                a->metavar ? a->metavar : "", a->kind == CLI_LIST ? "..." : "");
}

void cli_print_usage(const struct cli_cmd *cmd, FILE *f)
{
    fputs("usage: cowtgt [-c SOCKET] [--json] ", f);
    print_synopsis(f, cmd);
    fputc('\n', f);
}

static void print_args(const struct cli_arg *a)
{
    for (; a && a->name; a++)
        printf("      %s%s%s: %s\n", a->name, a->metavar ? " " : "", a->metavar ? a->metavar : "",
               a->help);
}

void cli_print_command_help(const struct cli_cmd *cmd)
{
    cli_print_usage(cmd, stdout);
    printf("    %s\n", cmd->help);
    print_args(cmd->positionals);
    print_args(cmd->options);
}

void cli_print_help(void)
{
    puts("usage: cowtgt [-c SOCKET] [--json] NOUN VERB ...\n"
         "Talks to a cowtgtd; image commands work on files.\n"
         "\n"
         "  -c, --control SOCKET  its control socket\n"
         "      --json            print the reply of the control socket as it came\n"
         "  -h, --help            this; after a command: about it\n"
         "  -V, --version\n");
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun; cmd++) {
        printf("%s%s%s", cmd->noun, cmd->verb ? " " : "", cmd->verb ? cmd->verb : "");
        for (const struct cli_arg *a = cmd->positionals; a && a->name; a++)
            printf(" %s", a->name);
        printf("\n    %s\n", cmd->help);
        print_args(cmd->options);
    }
}

void cli_dump_commands(void)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun; cmd++) {
        printf("%s\t%s\t%s", cmd->noun, cmd->verb ? cmd->verb : "",
               cmd->execute ? cmd->execute : "");
        for (const struct cli_arg *a = cmd->options; a && a->name; a++)
            printf("\t%s%s%s", a->name, a->metavar ? "=" : "", a->metavar ? a->metavar : "");
        putchar('\n');
    }
}
