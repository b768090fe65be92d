/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cowtgt, the tool: one table of commands feeds dispatch, --help and --dump-commands (from which
 * man page and completion are checked). What talks to a daemon links util/ and jansson only; the
 * image commands, in a library of their own, work on files with lun-backends/.
 */
#ifndef COWTGT_CLI_H
#define COWTGT_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include "util/error.h"

struct qmp_client;

struct cli {
    bool json;
    const struct cli_cmd *cmd; /* what is run */
    struct qmp_client *qmp;
};

enum cli_kind {
    CLI_TRUE,  /* a flag: key = true */
    CLI_FALSE, /* a flag: key = false */
    CLI_STRING,
    CLI_PATH, /* made absolute: the daemon has another current directory */
    CLI_SIZE, /* with k M G T */
    CLI_NUMBER,
    CLI_LIST, /* repeatable */
};

struct cli_arg {
    const char *name;    /* "--format", "-f", or "NAME" of a positional; NULL ends a list */
    const char *metavar; /* of an option that takes a value */
    enum cli_kind kind;
    const char *key; /* in the arguments of the control command */
    const char *help;
    bool required; /* must be given; a positional that need not is the last one */
};

/* Statuses of the tool. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };
/* Those of "status", as monitoring plugins have them. */
enum {
    CLI_STATUS_OK = 0,
    CLI_STATUS_DEGRADED = 1,
    CLI_STATUS_CRITICAL = 2,
    CLI_STATUS_UNKNOWN = 3,
};

struct cli_cmd {
    const char *noun, *verb; /* verb NULL: the noun alone */
    const char *help;
    const char *execute;                         /* the control command */
    const struct cli_arg *positionals, *options; /* NULL: none */
    int (*run)(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
};

extern const struct cli_cmd cli_commands[]; /* noun NULL ends it */

/* argv -> arguments of the control command; NULL with @err (a usage error). */
json_t *cli_parse(const struct cli_cmd *cmd, int argc, char **argv, struct error *err);
void cli_print_help(void);
void cli_print_usage(const struct cli_cmd *cmd, FILE *f);
void cli_print_command_help(const struct cli_cmd *cmd);
/* NOUN, VERB, control command and options of each, tab-separated; for tests and completion. */
void cli_dump_commands(void);

/* The words that can stand for the last of @argv, which may be empty; a line each. */
int cli_complete(int argc, char **argv);

/* Executes; the return value is in *ret, a new reference. Prints errors, with --json as a reply. */
int cli_ask(struct cli *cli, const char *name, json_t *args, json_t **ret);
/* The same for what the user asked for: with --json the reply is printed and *ret is NULL, the
 * caller has nothing left to show. */
int cli_execute(struct cli *cli, const char *name, json_t *args, json_t **ret);
/* The last question of a command that asks several: with --json the reply is printed. */
int cli_ask_last(struct cli *cli, const char *name, json_t *args, json_t **ret);
/* One line on standard error, what others have named escaped in it; returns CLI_FAILED. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- showing things ---------------------------------------------------------------------- */
/* Prints what others have named: control characters escaped. */
void cli_put(const char *text);
void cli_put_to(FILE *f, const char *text);
void cli_put_size(long long bytes);
/* A setting's value as it is given: on, off, a number or text. */
void cli_put_setting(const json_t *value);
/* The array element whose @key is @value, borrowed; NULL. */
json_t *cli_find(const json_t *list, const char *key, const char *value);
double cli_real(const json_t *obj, const char *key);
const char *cli_str(const json_t *obj, const char *key); /* "" if it is not there */
long long cli_int(const json_t *obj, const char *key);
bool cli_bool(const json_t *obj, const char *key);

/* ---- runners ------------------------------------------------------------------------------ */
int cli_run_plain(struct cli *cli, const struct cli_cmd *cmd, json_t *args); /* done, no output */
int cli_run_chain_export(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_chain_pull(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_chain_snapshot(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_chain_mirror(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_chain_commit(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_chain_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_chain_show(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_job_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_job_show(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_job_wait(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_job_cancel(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_throttle_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_discover(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_session_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_event_follow(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_account_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_config(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_portal_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_completion(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_log_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_status(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
int cli_run_qmp(struct cli *cli, const struct cli_cmd *cmd, json_t *args);
/* By cmd->verb. In libimage.a; all the others are in libcli.a. */
int cli_run_image(struct cli *cli, const struct cli_cmd *cmd, json_t *args);

/* cli-image.c */
extern const struct cli_arg image_file_pos[], image_create_pos[], image_convert_pos[],
    image_compare_pos[], image_resize_pos[], image_update_pos[];
extern const struct cli_arg image_create_options[], image_info_options[], image_map_options[],
    image_check_options[], image_convert_options[], image_rebase_options[], image_commit_options[],
    image_compare_options[], image_resize_options[], image_update_options[];

#endif
