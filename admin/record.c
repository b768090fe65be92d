/* SPDX-License-Identifier: BSD-3-Clause */
/* Chain records: one table of fields feeds saving, loading and freeing. */
#include "admin/record.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/size.h"

enum field_type { F_STRING, F_BOOL, F_U64, F_UUID, F_STRINGS, F_NUMBERS };

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    bool optional; /* may be absent */
};

#define FIELD(name_, type_, member_)                                                   \
    {                                                                                  \
        .name = name_, .type = type_, .offset = offsetof(struct chain_record, member_) \
    }
#define OPTIONAL(name_, type_, member_)                                                 \
    {                                                                                   \
        .name = name_, .type = type_, .offset = offsetof(struct chain_record, member_), \
        .optional = true                                                                \
    }

static const struct field fields[] = {
    FIELD("name", F_STRING, name),
    FIELD("kind", F_STRING, kind),
    FIELD("uuid", F_UUID, uuid),
    FIELD("generation", F_U64, generation),
    FIELD("target", F_STRING, target),
    FIELD("allowed", F_STRINGS, allowed),
    OPTIONAL("portal-groups", F_NUMBERS, portal_groups),
    OPTIONAL("masks", F_STRINGS, masks),
    OPTIONAL("auth", F_BOOL, auth),
    OPTIONAL("redirect-to", F_STRING, redirect_to),
    OPTIONAL("redirect-permanently", F_BOOL, redirect_permanently),
    FIELD("writable", F_BOOL, writable),
    FIELD("view", F_STRING, view),
    FIELD("path", F_STRING, path),
    FIELD("format", F_STRING, format),
    FIELD("probe-backing", F_BOOL, probe_backing),
    OPTIONAL("cache", F_STRING, cache),
    FIELD("layer-formats", F_STRINGS, layer_formats),
    OPTIONAL("block-size", F_U64, block_bytes),
    OPTIONAL("removable", F_BOOL, removable),
    OPTIONAL("reservations", F_STRINGS, reservations),
    OPTIONAL("mode-parameters", F_STRINGS, mode_parameters),
    OPTIONAL("layer-paths", F_STRINGS, layer_paths),
    OPTIONAL("layer-luns", F_NUMBERS, layer_luns),
    OPTIONAL("next-lun", F_U64, next_lun),
    OPTIONAL("commit-base", F_STRING, commit_base),
    OPTIONAL("commit-top", F_STRING, commit_top),
    OPTIONAL("copy-to", F_STRING, copy_to),
    OPTIONAL("unclean", F_BOOL, unclean),
    OPTIONAL("map-path", F_STRING, map_path),
    OPTIONAL("source-url", F_STRING, source_url),
    OPTIONAL("source-user", F_STRING, source_user),
    OPTIONAL("source-secret-file", F_STRING, source_secret_file),
    FIELD("source-has-cowl", F_BOOL, source_has_cowl),
    OPTIONAL("source-unsealed", F_BOOL, source_unsealed),
    FIELD("source-layer", F_UUID, source_layer),
    FIELD("source-naa", F_UUID, source_naa),
    FIELD("source-bytes", F_U64, source_bytes),
    FIELD("source-timeout", F_U64, source_timeout_s),
    OPTIONAL("source-digests", F_BOOL, source_digests),
    FIELD("copy-on-read", F_BOOL, copy_on_read),
    FIELD("stream", F_BOOL, stream),
    FIELD("stream-paused", F_BOOL, stream_paused),
    FIELD("speed", F_U64, speed_bytes),
    OPTIONAL("stream-on-error", F_STRING, stream_on_error),
    OPTIONAL("stream-throttle-group", F_STRING, stream_group),
    OPTIONAL("hold-key", F_U64, hold_key),
    OPTIONAL("hold-url", F_STRING, hold_url),
    OPTIONAL("hold-user", F_STRING, hold_user),
    OPTIONAL("hold-secret-file", F_STRING, hold_secret_file),
    OPTIONAL("hold-luns", F_NUMBERS, hold_luns),
    OPTIONAL("hold-layers", F_STRINGS, hold_layers),
    OPTIONAL("drop-luns", F_NUMBERS, drop_luns),
    OPTIONAL("source-generation", F_U64, source_generation),
    OPTIONAL("base-path", F_STRING, base_path),
    OPTIONAL("base-format", F_STRING, base_format),
    OPTIONAL("base-layers", F_U64, base_layers),
    OPTIONAL("keep-layers", F_BOOL, keep_layers),
    OPTIONAL("kept-luns", F_NUMBERS, kept_luns),
    OPTIONAL("kept-bytes", F_NUMBERS, kept_bytes),
    OPTIONAL("kept-clusters", F_NUMBERS, kept_cluster),
    OPTIONAL("kept-uuids", F_STRINGS, kept_uuids),
    OPTIONAL("kept-paths", F_STRINGS, kept_paths),
    OPTIONAL("kept-formats", F_STRINGS, kept_formats),
    OPTIONAL("stream-top", F_STRING, stream_top),
    OPTIONAL("stream-base", F_STRING, stream_base),
    OPTIONAL("settings", F_STRINGS, settings),
    OPTIONAL("throttle", F_STRING, throttle),
    OPTIONAL("lun-throttles", F_STRINGS, lun_throttles),
};

static void *member(struct chain_record *rec, const struct field *f)
{
    return (char *)rec + f->offset;
}

bool record_is_pull(const struct chain_record *rec)
{
    return !strcmp(rec->kind, "pull");
}

bool chain_name_ok(const char *name)
{
    size_t len = strlen(name);

    if (!len || len > CHAIN_NAME_MAX || *name == '.' || *name == '-')
        return false;
    for (const char *p = name; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            return false;
    }
    return true;
}

int string_list_add(struct string_list *l, const char *text)
{
    char **items = reallocarray(l->items, l->nr + 1, sizeof(*items));

    if (!items)
        return -ENOMEM;
    l->items = items;
    items[l->nr] = strdup(text);
    if (!items[l->nr])
        return -ENOMEM;
    l->nr++;
    return 0;
}

void string_list_release(struct string_list *l)
{
    for (unsigned i = 0; i < l->nr; i++)
        free(l->items[i]);
    free(l->items);
    memset(l, 0, sizeof(*l));
}

int number_list_add(struct number_list *l, uint64_t number)
{
    uint64_t *items = reallocarray(l->items, l->nr + 1, sizeof(*items));

    if (!items)
        return -ENOMEM;
    l->items = items;
    items[l->nr++] = number;
    return 0;
}

void number_list_release(struct number_list *l)
{
    free(l->items);
    memset(l, 0, sizeof(*l));
}

int record_set(char **member, const char *text)
{
    char *copy = NULL;

    if (text) {
        copy = strdup(text);
        if (!copy)
            return -ENOMEM;
    }
    free(*member);
    *member = copy;
    return 0;
}

void record_forget_kept(struct chain_record *rec)
{
    rec->keep_layers = false;
    number_list_release(&rec->kept_luns);
    number_list_release(&rec->kept_bytes);
    number_list_release(&rec->kept_cluster);
    string_list_release(&rec->kept_uuids);
    string_list_release(&rec->kept_paths);
    string_list_release(&rec->kept_formats);
}

void record_forget_source(struct chain_record *rec)
{
    rec->stream = rec->stream_paused = false;
    rec->base_layers = rec->source_generation = 0;
    record_set(&rec->source_url, NULL);
    record_set(&rec->source_user, NULL);
    record_set(&rec->source_secret_file, NULL);
    record_set(&rec->base_path, NULL);
    record_set(&rec->base_format, NULL);
    record_forget_kept(rec);
}

struct chain_record *record_new(const char *kind, const char *name)
{
    struct chain_record *rec = calloc(1, sizeof(*rec));

    if (!rec)
        return NULL;
    list_init(&rec->link);
    if (record_set(&rec->kind, kind) || record_set(&rec->name, name)) {
        record_free(rec);
        return NULL;
    }
    return rec;
}

/* A mode that a newer version wrote: auto. */
enum file_cache record_cache(const struct chain_record *rec)
{
    enum file_cache cache = FILE_CACHE_AUTO;

    if (rec->cache)
        file_cache_from_name(rec->cache, &cache);
    return cache;
}

void record_free(struct chain_record *rec)
{
    if (!rec)
        return;
    list_del(&rec->link);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (fields[i].type == F_STRING)
            free(*(char **)member(rec, &fields[i]));
        else if (fields[i].type == F_STRINGS)
            string_list_release(member(rec, &fields[i]));
        else if (fields[i].type == F_NUMBERS)
            number_list_release(member(rec, &fields[i]));
    }
    free(rec);
}

static json_t *strings_to_json(const struct string_list *l)
{
    json_t *j = json_array();

    for (unsigned i = 0; i < l->nr; i++)
        json_array_append_new(j, json_string(l->items[i]));
    return j;
}

static json_t *numbers_to_json(const struct number_list *l)
{
    json_t *j = json_array();

    for (unsigned i = 0; i < l->nr; i++)
        json_array_append_new(j, json_integer((json_int_t)l->items[i]));
    return j;
}

static json_t *field_to_json(const struct field *f, const void *m)
{
    char text[UUID_STRLEN];

    switch (f->type) {
    case F_STRING:
        return json_string(*(char *const *)m);
    case F_BOOL:
        return json_boolean(*(const bool *)m);
    case F_U64:
        return json_integer((json_int_t) * (const uint64_t *)m);
    case F_UUID:
        uuid_to_text(m, text);
        return json_string(text);
    case F_STRINGS:
        return strings_to_json(m);
    case F_NUMBERS:
        return numbers_to_json(m);
    }
    return NULL;
}

json_t *record_to_json(const struct chain_record *rec)
{
    json_t *j = json_object();

    for (size_t i = 0; j && i < ARRAY_LEN(fields); i++) {
        const void *m = (const char *)rec + fields[i].offset;

        if (fields[i].type == F_STRING && !*(char *const *)m)
            continue;
        if (json_object_set_new(j, fields[i].name, field_to_json(&fields[i], m))) {
            json_decref(j);
            return NULL;
        }
    }
    return j;
}

static int strings_from_json(struct string_list *l, const json_t *j)
{
    const json_t *item;
    size_t i;

    json_array_foreach (j, i, item) {
        if (!json_is_string(item))
            return -EINVAL;
        if (string_list_add(l, json_string_value(item)))
            return -ENOMEM;
    }
    return json_is_array(j) ? 0 : -EINVAL;
}

static int numbers_from_json(struct number_list *l, const json_t *j)
{
    const json_t *item;
    size_t i;

    json_array_foreach (j, i, item) {
        if (!json_is_integer(item) || json_integer_value(item) < 0)
            return -EINVAL;
        if (number_list_add(l, (uint64_t)json_integer_value(item)))
            return -ENOMEM;
    }
    return json_is_array(j) ? 0 : -EINVAL;
}

static int field_from_json(const struct field *f, const json_t *j, void *m)
{
    switch (f->type) {
    case F_STRING:
        return json_is_string(j) ? record_set(m, json_string_value(j)) : -EINVAL;
    case F_BOOL:
        *(bool *)m = json_is_true(j);
        return json_is_boolean(j) ? 0 : -EINVAL;
    case F_U64:
        *(uint64_t *)m = (uint64_t)json_integer_value(j);
        return json_is_integer(j) && json_integer_value(j) >= 0 ? 0 : -EINVAL;
    case F_UUID:
        return json_is_string(j) && uuid_from_text(m, json_string_value(j)) ? 0 : -EINVAL;
    case F_STRINGS:
        return strings_from_json(m, j);
    case F_NUMBERS:
        return numbers_from_json(m, j);
    }
    return -EINVAL;
}

static int check_record(const struct chain_record *rec, struct error *err)
{
    if (!chain_name_ok(rec->name))
        return error_set(err, EINVAL, "\"%s\" is no name of a chain", rec->name);
    if (strcmp(rec->kind, "export") && strcmp(rec->kind, "pull"))
        return error_set(err, EINVAL, "kind \"%s\" is not known", rec->kind);
    if (rec->generation > UINT32_MAX)
        return error_set(err, EINVAL, "member \"generation\" does not fit 32 bits");
    if (rec->kept_luns.nr != rec->kept_bytes.nr || rec->kept_luns.nr != rec->kept_cluster.nr ||
        rec->kept_luns.nr != rec->kept_uuids.nr || rec->kept_luns.nr != rec->kept_paths.nr ||
        rec->kept_luns.nr != rec->kept_formats.nr)
        return error_set(err, EINVAL, "members \"kept-...\" differ in length");
    if (rec->layer_paths.nr != rec->layer_luns.nr)
        return error_set(err, EINVAL,
                         "members \"layer-paths\" and \"layer-luns\" differ in length");
    if (rec->hold_luns.nr != rec->hold_layers.nr)
        return error_set(err, EINVAL, "members \"hold-luns\" and \"hold-layers\" differ in length");
    if ((rec->hold_luns.nr || rec->drop_luns.nr) && (!rec->hold_key || !rec->hold_url))
        return error_set(err, EINVAL, "LUNs are held without \"hold-key\" or \"hold-url\"");
    return 0;
}

struct chain_record *record_from_json(const json_t *j, struct error *err)
{
    struct chain_record *rec = calloc(1, sizeof(*rec));
    const char *key;
    json_t *value;

    if (!rec) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    list_init(&rec->link);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const struct field *f = &fields[i];
        const json_t *m = json_object_get(j, f->name);

        if (!m && f->optional)
            continue;
        if (!m || field_from_json(f, m, member(rec, f))) {
            error_set(err, EINVAL, "member \"%s\" is %s", f->name, m ? "not valid" : "missing");
            goto bad;
        }
    }
    json_object_foreach ((json_t *)j, key, value) {
        bool known = false;

        for (size_t i = 0; i < ARRAY_LEN(fields); i++)
            known = known || !strcmp(fields[i].name, key);
        if (!known) {
            error_set(err, EINVAL, "member \"%s\" is not known", key);
            goto bad;
        }
    }
    if (check_record(rec, err))
        goto bad;
    return rec;
bad:
    record_free(rec);
    return NULL;
}
