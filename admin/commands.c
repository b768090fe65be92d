/* SPDX-License-Identifier: BSD-3-Clause */
/* QMP's framing of requests and answers, checks against the schema, dispatch. */
#define LOG_AREA "control"
#include "admin/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "admin/json-util.h"
#include "admin/qmp-meta.h"
#include "util/log.h"
#include "util/size.h"

static const struct command *const tables[] = {
    meta_commands,  chain_commands, account_commands, live_commands,   job_commands,
    block_commands, query_commands, filter_commands,  inject_commands, throttle_commands,
    mask_commands,  log_commands,   config_commands,  copy_commands,
};

void commands_for_each(bool (*fn)(const struct command *cmd, void *arg), void *arg)
{
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (const struct command *c = tables[t]; c->name; c++) {
            if (!fn(c, arg))
                return;
        }
    }
}

static const struct command *find_command(const char *name)
{
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (const struct command *c = tables[t]; c->name; c++) {
            if (!strcmp(c->name, name))
                return c;
        }
    }
    return NULL;
}

const char *arg_string(const json_t *args, const char *name)
{
    return json_string_value(json_object_get(args, name));
}

bool arg_bool(const json_t *args, const char *name, bool otherwise)
{
    const json_t *v = json_object_get(args, name);

    return v ? json_is_true(v) : otherwise;
}

uint64_t arg_size(const json_t *args, const char *name, uint64_t otherwise)
{
    const json_t *v = json_object_get(args, name);

    return v ? (uint64_t)json_integer_value(v) : otherwise;
}

/* ---- arguments against the schema ----------------------------------------------------- */

static int check_choice(const struct cmd_arg *a, const char *value, struct error *err)
{
    char known[200] = "";
    size_t len = 0;

    for (const char *const *c = a->choices; *c; c++) {
        if (!strcmp(*c, value))
            return 0;
        if (len < sizeof(known))
            len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "", *c);
    }
    return error_set(err, EINVAL, "Parameter '%s' does not accept value '%s', only %s", a->name,
                     value, known);
}

static int wrong_type(const struct cmd_arg *a, const char *expected, struct error *err)
{
    return error_set(err, EINVAL, "Invalid parameter type for '%s', expected: %s", a->name,
                     expected);
}

static int check_items(const struct cmd_arg *a, const json_t *v, struct error *err)
{
    bool objects = a->type == ARG_OBJECTS;
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return wrong_type(a, "array", err);
    json_array_foreach (v, i, item) {
        if (!(objects ? json_is_object(item) : json_is_string(item)))
            return error_set(err, EINVAL, "Invalid parameter type for '%s[%zu]', expected: %s",
                             a->name, i, objects ? "object" : "string");
    }
    return 0;
}

static int check_arg(const struct cmd_arg *a, const json_t *v, struct error *err)
{
    switch (a->type) {
    case ARG_STRING:
        if (!json_is_string(v))
            return wrong_type(a, "string", err);
        return a->choices ? check_choice(a, json_string_value(v), err) : 0;
    case ARG_BOOL:
        return json_is_boolean(v) ? 0 : wrong_type(a, "boolean", err);
    case ARG_SIZE:
        if (!json_is_integer(v))
            return wrong_type(a, "integer", err);
        if (json_integer_value(v) < 0)
            return error_set(err, EINVAL, "Parameter '%s' expects a non-negative value", a->name);
        return 0;
    case ARG_OBJECT:
        return json_is_object(v) ? 0 : wrong_type(a, "object", err);
    case ARG_STRINGS:
    case ARG_OBJECTS:
        return check_items(a, v, err);
    }
    return -EINVAL;
}

static bool has_arg(const struct cmd_arg *schema, const char *name)
{
    for (const struct cmd_arg *a = schema; a && a->name; a++) {
        if (!strcmp(a->name, name))
            return true;
    }
    return false;
}

int args_check(const struct cmd_arg *schema, const json_t *args, struct error *err)
{
    const char *key;
    json_t *value;

    for (const struct cmd_arg *a = schema; a && a->name; a++) {
        const json_t *v = json_object_get(args, a->name);

        if (!v && !a->optional)
            return error_set(err, EINVAL, "Parameter '%s' is missing", a->name);
        if (v && check_arg(a, v, err))
            return -err->errnum;
    }
    json_object_foreach ((json_t *)args, key, value) {
        if (!has_arg(schema, key))
            return error_set(err, EINVAL, "Parameter '%s' is unexpected", key);
    }
    return 0;
}

/* ---- requests ------------------------------------------------------------------------- */

static int check_request(const json_t *req, struct error *err)
{
    const json_t *execute = json_object_get(req, "execute");
    const char *key;
    json_t *value;

    if (!json_is_object(req))
        return error_set(err, EINVAL, "QMP input must be a JSON object");
    json_object_foreach ((json_t *)req, key, value) {
        if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id"))
            return error_set(err, EINVAL, "QMP input member '%s' is unexpected", key);
    }
    if (!execute)
        return error_set(err, EINVAL, "QMP input lacks member 'execute'");
    if (!json_is_string(execute))
        return error_set(err, EINVAL, "QMP input member 'execute' must be a string");
    value = json_object_get(req, "arguments");
    if (value && !json_is_object(value))
        return error_set(err, EINVAL, "QMP input member 'arguments' must be an object");
    return 0;
}

/* qmp_capabilities first, once, and nothing before it; as QEMU answers. */
static int check_negotiation(const char *name, bool negotiated, struct error *err)
{
    bool is_caps = !strcmp(name, "qmp_capabilities");

    if (!negotiated && !is_caps)
        return error_set_class(err, ERR_COMMAND_NOT_FOUND, EPERM,
                               "Expecting capabilities negotiation with 'qmp_capabilities'");
    if (negotiated && is_caps)
        return error_set_class(err, ERR_COMMAND_NOT_FOUND, EALREADY,
                               "Capabilities negotiation is already complete, command ignored");
    return 0;
}

static json_t *co_execute(struct daemon *d, const json_t *req, bool *negotiated, struct error *err)
{
    const char *name = json_string_value(json_object_get(req, "execute"));
    const json_t *given = json_object_get(req, "arguments");
    const struct command *cmd = find_command(name);
    json_t *args, *ret = NULL;

    if (check_negotiation(name, *negotiated, err))
        return NULL;
    if (!cmd) {
        error_set_class(err, ERR_COMMAND_NOT_FOUND, ENOSYS, "The command %s has not been found",
                        name);
        return NULL;
    }
    args = given ? json_incref((json_t *)given) : json_object();
    if (!args_check(cmd->args, args, err)) {
        log_debug("command %s", name);
        ret = cmd->co_run(d, args, err);
    }
    json_decref(args);
    if (ret && !strcmp(name, "qmp_capabilities"))
        *negotiated = true;
    return ret;
}

static json_t *error_reply(const struct error *err)
{
    return json_pack("{s:{s:s, s:o}}", "error", "class", error_class_name(err->class), "desc",
                     json_text(err->msg));
}

json_t *commands_co_answer(json_t *request, const struct error *input_err, bool *negotiated,
                           void *opaque)
{
    struct error err = ERROR_INIT;
    json_t *ret = NULL, *reply, *id;

    if (!request)
        return error_reply(input_err);
    if (!check_request(request, &err))
        ret = co_execute(opaque, request, negotiated, &err);
    reply = ret ? json_pack("{s:o}", "return", ret) : error_reply(&err);
    id = json_object_get(request, "id");
    if (id)
        json_object_set(reply, "id", id);
    return reply;
}

json_t *commands_greeting(void *opaque)
{
    (void)opaque;
    return json_pack("{s:{s:o, s:[]}}", "QMP", "version", qmp_version(), "capabilities");
}
