/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket about itself. Arguments and events are described exactly, from the tables
 * that check and send them; what commands return is "any" (its members may grow).
 */
#include "admin/qmp-meta.h"

#include <errno.h>
#include <stdio.h>

#include "admin/commands.h"
#include "admin/events.h"

json_t *qmp_version(void)
{
    int major = 0, minor = 0, micro = 0;

    sscanf(PACKAGE_VERSION, "%d.%d.%d", &major, &minor, &micro);
    /* QMP clients look for member "qemu" and for nothing else. */
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", major, "minor", minor, "micro",
                     micro, "package", "cowtgt " PACKAGE_VERSION);
}

static json_t *run_capabilities(struct daemon *d, const json_t *args, struct error *err)
{
    const json_t *enable = json_object_get(args, "enable");

    (void)d;
    if (json_array_size(enable)) {
        error_set(err, EINVAL, "Capability '%s' not available",
                  json_string_value(json_array_get(enable, 0)));
        return NULL;
    }
    return json_object();
}

static json_t *run_version(struct daemon *d, const json_t *args, struct error *err)
{
    (void)d;
    (void)args;
    (void)err;
    return qmp_version();
}

static bool add_command_name(const struct command *cmd, void *arg)
{
    json_array_append_new(arg, json_pack("{s:s}", "name", cmd->name));
    return true;
}

static json_t *run_commands(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();

    (void)d;
    (void)args;
    (void)err;
    commands_for_each(add_command_name, list);
    return list;
}

static json_t *run_quit(struct daemon *d, const json_t *args, struct error *err)
{
    (void)args;
    (void)err;
    d->stop(d);
    return json_object();
}

/* ---- query-qmp-schema ------------------------------------------------------------------- */

static const char *const builtin_types[][2] = {
    {"str", "string"}, {"int", "int"}, {"bool", "boolean"}, {"any", "value"}, {NULL, NULL},
};

static const char *const arg_type_names[] = {
    [ARG_STRING] = "str",    [ARG_BOOL] = "bool",  [ARG_SIZE] = "int",
    [ARG_STRINGS] = "[str]", [ARG_OBJECT] = "any", [ARG_OBJECTS] = "[any]",
};

static void add_choices(json_t *schema, const char *type_name, const struct cmd_arg *a)
{
    json_t *values = json_array(), *members = json_array();

    for (const char *const *c = a->choices; *c; c++) {
        json_array_append_new(values, json_string(*c));
        json_array_append_new(members, json_pack("{s:s}", "name", *c));
    }
    json_array_append_new(schema, json_pack("{s:s, s:s, s:o, s:o}", "name", type_name, "meta-type",
                                            "enum", "members", members, "values", values));
}

/* In a schema, a default of null means "optional". */
static json_t *member_entry(const char *name, const char *type, bool optional)
{
    json_t *m = json_pack("{s:s, s:s}", "name", name, "type", type);

    if (optional)
        json_object_set_new(m, "default", json_null());
    return m;
}

static bool add_command_schema(const struct command *cmd, void *arg)
{
    json_t *schema = arg, *members = json_array();
    char object_name[128], enum_name[192];

    snprintf(object_name, sizeof(object_name), "%s-arg", cmd->name);
    for (const struct cmd_arg *a = cmd->args; a && a->name; a++) {
        const char *type = arg_type_names[a->type];

        if (a->choices) {
            snprintf(enum_name, sizeof(enum_name), "%s-%s", cmd->name, a->name);
            add_choices(schema, enum_name, a);
            type = enum_name;
        }
        json_array_append_new(members, member_entry(a->name, type, a->optional));
    }
    json_array_append_new(schema, json_pack("{s:s, s:s, s:o}", "name", object_name, "meta-type",
                                            "object", "members", members));
    json_array_append_new(schema, json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", cmd->name,
                                            "meta-type", "command", "arg-type", object_name,
                                            "ret-type", "any", "allow-oob", 0));
    return true;
}

static void add_event_schema(json_t *schema, const struct event_schema *ev)
{
    json_t *members = json_array();
    char object_name[128];

    snprintf(object_name, sizeof(object_name), "%s-arg", ev->name);
    for (const struct event_member *m = ev->members; m->name; m++)
        json_array_append_new(members, member_entry(m->name, m->type, m->optional));
    json_array_append_new(schema, json_pack("{s:s, s:s, s:o}", "name", object_name, "meta-type",
                                            "object", "members", members));
    json_array_append_new(schema, json_pack("{s:s, s:s, s:s}", "name", ev->name, "meta-type",
                                            "event", "arg-type", object_name));
}

static json_t *run_schema(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *schema = json_array();

    (void)d;
    (void)args;
    (void)err;
    for (int i = 0; builtin_types[i][0]; i++)
        json_array_append_new(schema,
                              json_pack("{s:s, s:s, s:s}", "name", builtin_types[i][0], "meta-type",
                                        "builtin", "json-type", builtin_types[i][1]));
    json_array_append_new(schema, json_pack("{s:s, s:s, s:s}", "name", "[str]", "meta-type",
                                            "array", "element-type", "str"));
    json_array_append_new(schema, json_pack("{s:s, s:s, s:s}", "name", "[any]", "meta-type",
                                            "array", "element-type", "any"));
    commands_for_each(add_command_schema, schema);
    for (const struct event_schema *ev = event_schemas; ev->name; ev++)
        add_event_schema(schema, ev);
    return schema;
}

static const struct cmd_arg capabilities_args[] = {
    {.name = "enable", .type = ARG_STRINGS, .optional = true},
    {.name = NULL},
};

const struct command meta_commands[] = {
    {"qmp_capabilities", "ends the negotiation; first command of a client", capabilities_args,
     run_capabilities},
    {"query-version", "version of the daemon", NULL, run_version},
    {"query-commands", "names of all commands", NULL, run_commands},
    {"query-qmp-schema", "arguments of all commands, members of all events", NULL, run_schema},
    {"quit", "ends the daemon in good order, as SIGTERM does", NULL, run_quit},
    {NULL, NULL, NULL, NULL},
};
