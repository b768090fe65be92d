/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands of the control socket: one table feeds dispatch, argument checks, query-commands
 * and query-qmp-schema. A handler runs in a coroutine of its client and sees only arguments that
 * fit its schema.
 */
#ifndef COWTGT_COMMANDS_H
#define COWTGT_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>
#include "admin/daemon.h"
#include "util/error.h"

enum arg_type {
    ARG_STRING,
    ARG_BOOL,
    ARG_SIZE, /* integer >= 0 */
    ARG_STRINGS,
    ARG_OBJECT, /* what is in it is the handler's to check */
    ARG_OBJECTS,
};

struct cmd_arg {
    const char *name; /* NULL ends a list */
    enum arg_type type;
    bool optional;
    const char *const *choices; /* of a string; ends with NULL */
};

struct command {
    const char *name; /* NULL ends a table */
    const char *help;
    const struct cmd_arg *args; /* NULL: none */
    /* A new reference (an empty object if there is nothing to say), or NULL with @err. */
    json_t *(*co_run)(struct daemon *d, const json_t *args, struct error *err);
};

extern const struct command chain_commands[];
extern const struct command account_commands[];
extern const struct command job_commands[];
extern const struct command block_commands[];
extern const struct command filter_commands[];
extern const struct command inject_commands[];
extern const struct command live_commands[];
extern const struct command copy_commands[];
extern const struct command log_commands[];
extern const struct command config_commands[];
extern const struct command mask_commands[];
extern const struct command query_commands[];
extern const struct command throttle_commands[];
extern const struct command meta_commands[];

/* All commands in the order of the tables; fn returns false to stop. */
void commands_for_each(bool (*fn)(const struct command *cmd, void *arg), void *arg);

/* control_ops: opaque is the struct daemon. */
json_t *commands_greeting(void *opaque);
json_t *commands_co_answer(json_t *request, const struct error *err, bool *negotiated,
                           void *opaque);

/* For objects inside arguments; a list of arguments is their schema. */
int args_check(const struct cmd_arg *schema, const json_t *args, struct error *err);
/* Arguments that have passed the schema. */
const char *arg_string(const json_t *args, const char *name); /* NULL: not given */
bool arg_bool(const json_t *args, const char *name, bool otherwise);
uint64_t arg_size(const json_t *args, const char *name, uint64_t otherwise);

#endif
