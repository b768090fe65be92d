/* SPDX-License-Identifier: BSD-3-Clause */
/* Is it a configuration? One table an object; see cli-config.h. */
#include <errno.h>
#include <string.h>

#include "admin/cli-config.h"
#include "util/size.h"

#define CONFIG_VERSION 1

enum type { T_TEXT, T_PATH, T_BOOL, T_NUMBER, T_TEXTS, T_OBJECT, T_OBJECTS, T_ANY };

struct member {
    const char *name; /* NULL ends a list */
    enum type type;
    bool required;
    const struct member *members; /* of objects; NULL: any */
};

static const struct member account[] = {
    {"user", T_TEXT, true, NULL},
    {"secret-file", T_PATH, false, NULL},
    {"outgoing", T_BOOL, false, NULL},
    {NULL, T_ANY, false, NULL},
};

static const struct member portal[] = {
    {"portal", T_TEXT, true, NULL},   {"advertise", T_TEXT, false, NULL},
    {"group", T_NUMBER, false, NULL}, {"fixed", T_BOOL, false, NULL},
    {NULL, T_ANY, false, NULL},
};

static const struct member redirect[] = {
    {"to", T_TEXT, true, NULL},
    {"permanently", T_BOOL, false, NULL},
    {NULL, T_ANY, false, NULL},
};

static const struct member pull[] = {
    {"url", T_TEXT, true, NULL},
    {"into", T_PATH, true, NULL},
    {"source-secret-file", T_PATH, false, NULL},
    {"quiesced", T_BOOL, false, NULL},
    {"format", T_TEXT, false, NULL},
    {"keep-layers", T_BOOL, false, NULL},
    {"base", T_TEXT, false, NULL},
    {"stream", T_BOOL, false, NULL},
    {"copy-on-read", T_BOOL, false, NULL},
    {"speed", T_NUMBER, false, NULL},
    {"source-timeout", T_NUMBER, false, NULL},
    {"source-digests", T_BOOL, false, NULL},
    {NULL, T_ANY, false, NULL},
};

static const struct member chain[] = {
    {"name", T_TEXT, true, NULL},
    {"target", T_TEXT, false, NULL},
    {"image", T_TEXT, false, NULL},
    {"pull", T_OBJECT, false, pull},
    {"format", T_TEXT, false, NULL},
    {"writable", T_BOOL, false, NULL},
    {"view", T_TEXT, false, NULL},
    {"cache", T_TEXT, false, NULL},
    {"probe-backing", T_BOOL, false, NULL},
    {"removable", T_BOOL, false, NULL},
    {"block-size", T_NUMBER, false, NULL},
    {"allow", T_TEXTS, false, NULL},
    {"mask", T_TEXTS, false, NULL},
    {"portal-group", T_TEXTS, false, NULL},
    {"accounts", T_OBJECTS, false, account},
    {"redirect", T_OBJECT, false, redirect},
    {"settings", T_OBJECT, false, NULL},
    {"throttle", T_OBJECT, false, NULL},
    {"lun-throttle", T_OBJECTS, false, NULL},
    {NULL, T_ANY, false, NULL},
};

static const struct member file[] = {
    {"version", T_NUMBER, true, NULL},
    {"portals", T_OBJECTS, false, portal},
    {"discovery-accounts", T_OBJECTS, false, account},
    {"chains", T_OBJECTS, false, chain},
    {NULL, T_ANY, false, NULL},
};

static const char *const type_names[] = {
    [T_TEXT] = "a string",
    [T_PATH] = "an absolute path",
    [T_BOOL] = "true or false",
    [T_NUMBER] = "a number, 0 or more",
    [T_TEXTS] = "a list of strings",
    [T_OBJECT] = "an object",
    [T_OBJECTS] = "a list of objects",
};

static bool fits(const json_t *v, enum type type)
{
    const json_t *item;
    size_t i;

    switch (type) {
    case T_TEXT:
        return json_is_string(v);
    case T_PATH:
        return json_is_string(v) && *json_string_value(v) == '/';
    case T_BOOL:
        return json_is_boolean(v);
    case T_NUMBER:
        return json_is_integer(v) && json_integer_value(v) >= 0;
    case T_OBJECT:
        return json_is_object(v);
    case T_TEXTS:
    case T_OBJECTS:
        json_array_foreach (v, i, item) {
            if (type == T_TEXTS ? !json_is_string(item) : !json_is_object(item))
                return false;
        }
        return json_is_array(v);
    case T_ANY:
        return true;
    }
    return false;
}

static int check_object(const json_t *obj, const struct member *members, const char *place,
                        struct error *err);

static int check_member(const json_t *v, const struct member *m, const char *place,
                        struct error *err)
{
    const json_t *item;
    char inside[128];
    size_t i;

    if (!fits(v, m->type))
        return error_set(err, EINVAL, "%s'%s' is not %s", place, m->name, type_names[m->type]);
    if (!m->members)
        return 0;
    if (m->type == T_OBJECT) {
        snprintf(inside, sizeof(inside), "%.80s%s: ", place, m->name);
        return check_object(v, m->members, inside, err);
    }
    json_array_foreach (v, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));

        snprintf(inside, sizeof(inside), "%.40s%s[%zu]%s%.40s: ", place, m->name, i,
                 name ? " " : "", name ? name : "");
        if (check_object(item, m->members, inside, err))
            return -err->errnum;
    }
    return 0;
}

static const struct member *find(const struct member *members, const char *name)
{
    for (; members->name; members++) {
        if (!strcmp(members->name, name))
            return members;
    }
    return NULL;
}

static int check_object(const json_t *obj, const struct member *members, const char *place,
                        struct error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)obj, key, value) {
        const struct member *m = find(members, key);

        if (!m)
            return error_set(err, EINVAL, "%s'%.60s' is not known", place, key);
        if (check_member(value, m, place, err))
            return -err->errnum;
    }
    for (const struct member *m = members; m->name; m++) {
        if (m->required && !json_object_get(obj, m->name))
            return error_set(err, EINVAL, "%s'%s' is missing", place, m->name);
    }
    return 0;
}

static int check_lun_throttles(const json_t *chain, const char *name, struct error *err)
{
    const json_t *list = json_object_get(chain, "lun-throttle"), *t, *other;
    size_t i, k;

    json_array_foreach (list, i, t) {
        const json_t *lun = json_object_get(t, "lun");

        if (json_integer_value(lun) < 1 || json_integer_value(lun) > UINT16_MAX)
            return error_set(
                err, EINVAL,
                "chain %.64s: lun-throttle[%zu] needs a 'lun', the number of a layer's "
                "LUN",
                name, i);
        json_array_foreach (list, k, other) {
            if (k < i && json_equal(lun, json_object_get(other, "lun")))
                return error_set(err, EINVAL, "chain %.64s: lun-throttle has LUN %d twice", name,
                                 (int)json_integer_value(lun));
        }
    }
    return 0;
}

static int check_chains(const json_t *list, struct error *err)
{
    const json_t *c, *other;
    size_t i, k;

    json_array_foreach (list, i, c) {
        const char *name = json_string_value(json_object_get(c, "name"));

        if (!json_object_get(c, "image") == !json_object_get(c, "pull"))
            return error_set(err, EINVAL, "chain %.64s: it needs either 'image' or 'pull'", name);
        if (check_lun_throttles(c, name, err))
            return -err->errnum;
        json_array_foreach (list, k, other) {
            if (k < i && !strcmp(name, json_string_value(json_object_get(other, "name"))))
                return error_set(err, EINVAL, "chain %.64s is there twice", name);
        }
    }
    return 0;
}

int config_check(const json_t *wanted, struct error *err)
{
    if (!json_is_object(wanted))
        return error_set(err, EINVAL, "a configuration is a JSON object");
    if (check_object(wanted, file, "", err))
        return -err->errnum;
    if (json_integer_value(json_object_get(wanted, "version")) != CONFIG_VERSION)
        return error_set(err, EINVAL, "'version' is not %d, the one that is known here",
                         CONFIG_VERSION);
    return check_chains(json_object_get(wanted, "chains"), err);
}
