/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * query-config: all that was asked for, in the form that the tool's config save and apply have;
 * no secrets, but where they came from. What only those need is here, too: chain-access,
 * portal-add, portal-remove. A member at its default is left out.
 */
#define LOG_AREA "daemon"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/accounts.h"
#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "lun-backends/image-settings.h"
#include "util/log.h"

#define CONFIG_VERSION 1
#define ACCESS_MAX     1024

/* ---- query-config ------------------------------------------------------------------------- */

static json_t *accounts_of(const struct daemon *d, const char *chain)
{
    json_t *list = json_array(), *j;
    struct account *a;

    list_for_each_entry (a, &d->accounts->list, link) {
        if (chain ? !a->chain || strcmp(a->chain, chain) : a->chain != NULL)
            continue;
        j = json_pack("{s:s}", "user", a->chap.user);
        if (a->secret_file)
            json_put(j, "secret-file", json_text(a->secret_file));
        if (a->outgoing)
            json_put(j, "outgoing", json_true());
        json_array_append_new(list, j);
    }
    return list;
}

static void put_list(json_t *j, const char *name, json_t *list)
{
    if (json_array_size(list))
        json_put(j, name, list);
    else
        json_decref(list);
}

static void put_text(json_t *j, const char *name, const char *text, const char *otherwise)
{
    if (text && (!otherwise || strcmp(text, otherwise)))
        json_put(j, name, json_text(text));
}

static void put_flag(json_t *j, const char *name, bool flag)
{
    if (flag)
        json_put(j, name, json_true());
}

static json_t *strings(const struct string_list *l)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < l->nr; i++)
        json_array_append_new(list, json_text(l->items[i]));
    return list;
}

static json_t *groups(const struct number_list *l)
{
    json_t *list = json_array();
    char text[24];

    for (unsigned i = 0; i < l->nr; i++) {
        snprintf(text, sizeof(text), "%llu", (unsigned long long)l->items[i]);
        json_array_append_new(list, json_string(text));
    }
    return list;
}

/* A record's text without its zeros, which are no limit. */
static json_t *limits(const char *text)
{
    json_t *j = text ? json_loads(text, 0, NULL) : NULL, *value;
    const char *key;
    void *tmp;

    json_object_foreach_safe (j, tmp, key, value) {
        if (json_is_integer(value) && !json_integer_value(value))
            json_object_del(j, key);
    }
    return j;
}

/* Of the layers: each with its "lun". */
static json_t *lun_limits(const struct string_list *l)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < l->nr; i++) {
        char *text;
        unsigned long lun = strtoul(l->items[i], &text, 10);
        json_t *j = *text == '=' ? limits(text + 1) : NULL;

        if (!j)
            continue;
        json_put(j, "lun", json_integer((json_int_t)lun));
        json_array_append_new(list, j);
    }
    return list;
}

/* A pull that still needs its source is asked for as a pull; after that it is a writable image. */
static json_t *pull_of(const struct chain_record *rec)
{
    char *into = strdup(rec->path ? rec->path : "/"), *slash = strrchr(into, '/');
    json_t *j;

    if (!rec->map_path && slash) /* a block device is named itself */
        slash[slash == into ? 1 : 0] = '\0';
    j = json_pack("{s:s, s:o}", "url", rec->source_url, "into", json_text(into));
    free(into);
    if (rec->source_user) { /* iscsi://USER@HOST... */
        char url[1400];

        snprintf(url, sizeof(url), "iscsi://%s@%s", rec->source_user,
                 rec->source_url + strlen("iscsi://"));
        json_put(j, "url", json_text(url));
    }
    put_text(j, "source-secret-file", rec->source_secret_file, NULL);
    put_text(j, "format", rec->keep_layers ? NULL : rec->format, NULL);
    put_text(j, "base", rec->base_path, NULL);
    put_flag(j, "keep-layers", rec->keep_layers);
    put_flag(j, "source-digests", rec->source_digests);
    if (!rec->stream)
        json_put(j, "stream", json_false());
    if (!rec->copy_on_read)
        json_put(j, "copy-on-read", json_false());
    if (rec->speed_bytes)
        json_put(j, "speed", json_integer((json_int_t)rec->speed_bytes));
    if (rec->source_timeout_s != DEFAULT_SOURCE_TIMEOUT_S)
        json_put(j, "source-timeout", json_integer((json_int_t)rec->source_timeout_s));
    return j;
}

static void put_export(json_t *j, const struct chain_record *rec)
{
    put_text(j, "image", rec->path, NULL);
    put_text(j, "format", rec->format, NULL);
    put_flag(j, "writable", rec->writable);
    put_text(j, "view", rec->view, "flat");
    put_text(j, "cache", rec->cache, NULL);
    put_flag(j, "probe-backing", rec->probe_backing);
    put_flag(j, "removable", rec->removable);
    if (rec->block_bytes && rec->block_bytes != 512)
        json_put(j, "block-size", json_integer((json_int_t)rec->block_bytes));
}

static json_t *layer_files(const struct chain *c)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < c->nr_layers; i++)
        json_array_append_new(list, json_text(c->layers[i].filename));
    return list;
}

/* "now" is what only a comparison needs: it is no part of what was asked for. */
static json_t *chain_config(const struct chain *c)
{
    const struct chain_record *rec = c->rec;
    json_t *j = json_pack("{s:s, s:s}", "name", rec->name, "target", rec->target), *part;

    if (rec->source_url)
        json_put(j, "pull", pull_of(rec));
    else
        put_export(j, rec);
    put_list(j, "allow", strings(&rec->allowed));
    put_list(j, "mask", strings(&rec->masks));
    put_list(j, "portal-group", groups(&rec->portal_groups));
    json_put(j, "accounts", accounts_of(c->d, rec->name)); /* none: that is meant */
    if (rec->redirect_to)
        json_put(j, "redirect",
                 json_pack("{s:s, s:b}", "to", rec->redirect_to, "permanently",
                           rec->redirect_permanently));
    part = image_settings_json(&c->settings);
    if (json_object_size(part))
        json_put(j, "settings", json_incref(part));
    json_decref(part);
    part = limits(rec->throttle);
    if (part)
        json_put(j, "throttle", part);
    put_list(j, "lun-throttle", lun_limits(&rec->lun_throttles));
    json_put(j, "now", json_pack("{s:s, s:o}", "kind", rec->kind, "layers", layer_files(c)));
    return j;
}

/* One of the command line. */
static bool is_fixed(const struct daemon *d, const char *name)
{
    for (unsigned i = 0; i < d->nr_fixed_portals; i++) {
        const char *fixed = portal_name_at(d->fixed_portals[i]);

        if (fixed && !strcmp(fixed, name))
            return true;
    }
    return false;
}

struct portal_walk {
    const struct daemon *d;
    json_t *list;
};

static bool add_portal(const struct portal_info *p, void *arg)
{
    struct portal_walk *w = arg;
    json_t *j = json_pack("{s:s}", "portal", p->name);

    put_text(j, "advertise", p->advertise, NULL);
    if (p->group != 1)
        json_put(j, "group", json_integer(p->group));
    put_flag(j, "fixed", is_fixed(w->d, p->name));
    json_array_append_new(w->list, j);
    return true;
}

static json_t *run_query(struct daemon *d, const json_t *args, struct error *err)
{
    struct portal_walk w = {.d = d, .list = json_array()};
    json_t *chains = json_array();
    struct chain *c;

    (void)args;
    (void)err;
    portal_for_each(add_portal, &w);
    list_for_each_entry (c, &d->chains, link)
        json_array_append_new(chains, chain_config(c));
    return json_pack("{s:i, s:o, s:o, s:o}", "version", CONFIG_VERSION, "portals", w.list,
                     "discovery-accounts", accounts_of(d, NULL), "chains", chains);
}

/* ---- chain-access ------------------------------------------------------------------------- */

static const struct cmd_arg access_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "allow", .type = ARG_STRINGS, .optional = true},
    {.name = "portal-group", .type = ARG_STRINGS, .optional = true},
    {.name = NULL},
};

static int to_lists(const json_t *args, struct string_list *allowed, struct number_list *tags,
                    struct error *err)
{
    const json_t *item;
    size_t i;

    if (json_array_size(json_object_get(args, "allow")) > ACCESS_MAX ||
        json_array_size(json_object_get(args, "portal-group")) > ACCESS_MAX)
        return error_set(err, E2BIG, "more than %d of them", ACCESS_MAX);
    json_array_foreach (json_object_get(args, "allow"), i, item) {
        if (target_check_allow(json_string_value(item), err))
            return -err->errnum;
        if (string_list_add(allowed, json_string_value(item)))
            return error_set(err, ENOMEM, "out of memory");
    }
    json_array_foreach (json_object_get(args, "portal-group"), i, item) {
        const char *text = json_string_value(item);
        char *end;
        unsigned long tag = strtoul(text, &end, 10);

        if (*text < '0' || *text > '9' || *end || !tag || tag > UINT16_MAX)
            return error_set(err, EINVAL,
                             "'%.40s' is no portal group: use a number from 1 to 65535", text);
        if (number_list_add(tags, tag))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

/* On disk first; the lists are the chain's afterwards, or what they replaced is in them. */
static int co_set_access(struct chain *c, struct string_list *allowed, struct number_list *tags,
                         struct error *err)
{
    struct string_list old_allowed = c->rec->allowed;
    struct number_list old_tags = c->rec->portal_groups;

    c->rec->allowed = *allowed;
    c->rec->portal_groups = *tags;
    if (co_state_save(c->d->state, err)) {
        c->rec->allowed = old_allowed;
        c->rec->portal_groups = old_tags;
        return -err->errnum;
    }
    *allowed = old_allowed;
    *tags = old_tags;
    if (!c->target)
        return 0;
    if (target_set_allowed(c->target, c->rec->allowed.items, c->rec->allowed.nr, err))
        return -err->errnum;
    return target_set_portal_groups(c->target, c->rec->portal_groups.items,
                                    c->rec->portal_groups.nr, err);
}

static json_t *run_access(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);
    struct string_list allowed = {0};
    struct number_list tags = {0};
    int ret;

    if (!c || chain_claim(c, "it is being changed who may log in", err))
        return NULL;
    ret = to_lists(args, &allowed, &tags, err);
    if (!ret)
        ret = co_set_access(c, &allowed, &tags, err);
    string_list_release(&allowed);
    number_list_release(&tags);
    chain_release(c);
    return ret ? NULL : json_object();
}

/* ---- portals --------------------------------------------------------------------------------- */

static const struct cmd_arg portal_args[] = {
    {.name = "portal", .type = ARG_STRING},
    {.name = NULL},
};

/* The list without what is at the address of @without (NULL: all of it), and with @more. */
static int co_keep_portals(struct daemon *d, const char *without, const char *more,
                           struct error *err)
{
    struct string_list fresh = {0}, old = d->state->portals;
    int ret = 0;

    for (unsigned i = 0; i < old.nr && !ret; i++) {
        size_t len = strcspn(old.items[i], ",");

        if (!without || strlen(without) != len || strncmp(old.items[i], without, len))
            ret = string_list_add(&fresh, old.items[i]);
    }
    if (!ret && more)
        ret = string_list_add(&fresh, more);
    if (ret) {
        string_list_release(&fresh);
        return error_set(err, ENOMEM, "out of memory");
    }
    d->state->portals = fresh;
    ret = co_state_save(d->state, err);
    if (ret) {
        d->state->portals = old;
        old = fresh;
    }
    string_list_release(&old);
    return ret;
}

struct portal_count {
    unsigned nr;
    char last[64]; /* name of the one opened last */
};

static bool count_portal(const struct portal_info *p, void *arg)
{
    struct portal_count *n = arg;

    n->nr++;
    snprintf(n->last, sizeof(n->last), "%s", p->name);
    return true;
}

static json_t *run_portal_add(struct daemon *d, const json_t *args, struct error *err)
{
    const char *text = arg_string(args, "portal"), *comma = strchr(text, ',');
    struct error ignored = ERROR_INIT;
    struct portal_count n = {0};
    char kept[1024];

    if (portal_open(text, err))
        return NULL;
    portal_for_each(count_portal, &n);
    snprintf(kept, sizeof(kept), "%s%s", n.last, comma ? comma : "");
    /* The default portal is there because nothing else was said: now it would go. */
    if (!d->nr_fixed_portals && !d->state->portals.nr && portal_name_at(DEFAULT_PORTAL) &&
        string_list_add(&d->state->portals, DEFAULT_PORTAL))
        error_set(err, ENOMEM, "out of memory");
    else if (!co_keep_portals(d, NULL, kept, err))
        return json_pack("{s:s}", "portal", n.last);
    portal_close(n.last, &ignored);
    return NULL;
}

static json_t *run_portal_remove(struct daemon *d, const json_t *args, struct error *err)
{
    const char *text = arg_string(args, "portal"), *open = portal_name_at(text);
    struct portal_count n = {0};
    char name[64];

    if (!open) {
        error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
                        "there is no portal \"%.80s\"; cowtgt portal list shows those there are",
                        text);
        return NULL;
    }
    snprintf(name, sizeof(name), "%s", open);
    if (is_fixed(d, name)) {
        error_set_class(err, ERR_NOT_SUPPORTED, EPERM,
                        "portal %s is on the daemon's command line: take it away there", name);
        return NULL;
    }
    portal_for_each(count_portal, &n);
    if (n.nr == 1) {
        error_set(err, EPERM, "%s is the last portal: add another one first", name);
        return NULL;
    }
    if (co_keep_portals(d, name, NULL, err) || portal_close(name, err))
        return NULL;
    return json_object();
}

const struct command config_commands[] = {
    {"query-config", "all that was asked for, as config save and apply have it", NULL, run_query},
    {"chain-access", "who may log in, and at which portal groups: exactly these", access_args,
     run_access},
    {"portal-add", "listens at one more address, after a restart too", portal_args, run_portal_add},
    {"portal-remove", "stops listening there; open sessions stay", portal_args, run_portal_remove},
    {NULL, NULL, NULL, NULL},
};
