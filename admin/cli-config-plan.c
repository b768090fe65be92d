/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The difference between a daemon and a configuration; see cli-config.h. A chain never stands open
 * in between: accounts come with it, and new ones come before old ones go.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/cli-config-plan.h"
#include "util/size.h"

#define DEFAULT_PORT ":3260"

const char *config_text(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));

    return s ? s : "";
}

json_t *config_step(struct config_plan *p, const char *execute, json_t *args, const char *fmt, ...)
{
    json_t *step = json_object();
    char says[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(says, sizeof(says), fmt, ap);
    va_end(ap);
    json_object_set_new(step, "says", json_string(says));
    if (execute)
        json_object_set_new(step, "execute", json_string(execute));
    if (args)
        json_object_set_new(step, "arguments", args);
    json_array_append_new(p->steps, step);
    return step;
}

static json_t *named(const json_t *list, const char *key, const char *name)
{
    json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (!strcmp(config_text(item, key), name))
            return item;
    }
    return NULL;
}

static bool has_text(const json_t *list, const char *text)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (!strcmp(json_string_value(item), text))
            return true;
    }
    return false;
}

/* Lists of strings, in any order; NULL is an empty one. */
static bool same_set(const json_t *a, const json_t *b)
{
    const json_t *item;
    size_t i;

    if (json_array_size(a) != json_array_size(b))
        return false;
    json_array_foreach (a, i, item) {
        if (!has_text(b, json_string_value(item)))
            return false;
    }
    return true;
}

/* ---- portals -------------------------------------------------------------------------------- */

/* As the daemon writes addresses: with a port, IPv6 in brackets and in its short form. */
static void whole_address(const char *text, const char *port, char *out, size_t len)
{
    char host[256];
    struct in6_addr v6;
    const char *end = strchr(text, ']');
    const char *colon = *text == '[' ? (end && end[1] == ':' ? end + 1 : NULL) : strchr(text, ':');

    if (*text != '[' && colon && strchr(colon + 1, ':'))
        colon = NULL;
    snprintf(host, sizeof(host), "%.*s", (int)(colon ? colon - text : (long)strlen(text)), text);
    if (*host == '[' && host[strlen(host) - 1] == ']') {
        host[strlen(host) - 1] = '\0';
        memmove(host, host + 1, strlen(host));
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        char ip[INET6_ADDRSTRLEN];

        inet_ntop(AF_INET6, &v6, ip, sizeof(ip));
        snprintf(host, sizeof(host), "[%s]", ip);
    }
    snprintf(out, len, "%s%s", host, colon ? colon : port);
}

static bool same_portal(const json_t *now, const json_t *wanted, const char *address)
{
    const json_t *group = json_object_get(wanted, "group"), *was = json_object_get(now, "group");
    char advertise[512] = "";

    if (json_object_get(wanted, "advertise"))
        whole_address(config_text(wanted, "advertise"), strrchr(address, ':'), advertise,
                      sizeof(advertise));
    return !strcmp(config_text(now, "advertise"), advertise) &&
           (was ? json_integer_value(was) : 1) == (group ? json_integer_value(group) : 1);
}

static void remove_portal(struct config_plan *p, const json_t *now, const char *address)
{
    if (json_is_true(json_object_get(now, "fixed")))
        config_step(p, NULL, NULL, "portal %s stays as it is: it is on the daemon's command line",
                    address);
    else
        config_step(p, "portal-remove", json_pack("{s:s}", "portal", address),
                    "stop listening on %s", address);
}

static void add_portal(struct config_plan *p, const json_t *wanted, const char *address)
{
    const char *advertise = config_text(wanted, "advertise");
    json_int_t group = json_integer_value(json_object_get(wanted, "group"));
    char text[600], number[32] = "";

    if (group)
        snprintf(number, sizeof(number), ",group=%lld", (long long)group);
    snprintf(text, sizeof(text), "%s%s%.400s%s", address, *advertise ? ",advertise=" : "",
             advertise, number);
    config_step(p, "portal-add", json_pack("{s:s}", "portal", text), "listen on %s", text);
}

/* One whose options change goes and comes; the last that goes does so when others are there. */
static void plan_portals(struct config_plan *p, const json_t *now, const json_t *wanted)
{
    json_t *addresses = json_array();
    const json_t *item;
    char address[300];
    size_t i;

    json_array_foreach (wanted, i, item) {
        const json_t *has;

        whole_address(config_text(item, "portal"), DEFAULT_PORT, address, sizeof(address));
        json_array_append_new(addresses, json_string(address));
        has = named(now, "portal", address);
        if (has && same_portal(has, item, address))
            continue;
        if (has)
            remove_portal(p, has, address);
        if (!has || !json_is_true(json_object_get(has, "fixed")))
            add_portal(p, item, address);
    }
    json_array_foreach (now, i, item) {
        if (!has_text(addresses, config_text(item, "portal")))
            remove_portal(p, item, config_text(item, "portal"));
    }
    json_decref(addresses);
}

/* ---- accounts ------------------------------------------------------------------------------- */

static bool is_outgoing(const json_t *account)
{
    return json_is_true(json_object_get(account, "outgoing"));
}

static const json_t *find_account(const json_t *list, const json_t *account)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (!strcmp(config_text(item, "user"), config_text(account, "user")) &&
            is_outgoing(item) == is_outgoing(account))
            return item;
    }
    return NULL;
}

/* @chain NULL: for discovery. */
static json_t *account_args(const json_t *account, const char *chain)
{
    json_t *args = json_pack("{s:s}", "user", config_text(account, "user"));

    if (chain)
        json_object_set_new(args, "chain", json_string(chain));
    else
        json_object_set_new(args, "discovery", json_true());
    if (is_outgoing(account))
        json_object_set_new(args, "outgoing", json_true());
    return args;
}

static int plan_account(struct config_plan *p, const char *chain, const json_t *has,
                        const json_t *account)
{
    const char *file = config_text(account, "secret-file"), *user = config_text(account, "user");
    const char *whose = chain ? chain : "discovery";
    json_t *args, *step;

    if (json_is_true(json_object_get(has, "just-given")) || (!*file && has))
        return 0;
    if (!*file)
        return error_set(p->err, EINVAL,
                         "account '%.80s' of %s: there is none yet, so it needs a 'secret-file'",
                         user, whose);
    args = account_args(account, chain);
    json_object_set_new(args, "secret-file", json_string(file));
    step = config_step(p, "account-add", args, "%s: %s user %s with the secret in %s", whose,
                       has ? "change" : "add", user, file);
    if (has) {
        json_t *same = json_deep_copy(args);

        json_object_del(same, "discovery");
        json_object_set_new(step, "unless-same", same);
    }
    return 0;
}

static void remove_accounts(struct config_plan *p, const char *chain, const json_t *now,
                            const json_t *wanted, bool outgoing)
{
    const json_t *item;
    json_t *args;
    size_t i;

    json_array_foreach (now, i, item) {
        if (is_outgoing(item) != outgoing || find_account(wanted, item))
            continue;
        args = account_args(item, chain);
        json_object_set_new(args, "open", json_true());
        config_step(p, "account-remove", args, "%s: take user %s away", chain ? chain : "discovery",
                    config_text(item, "user"));
    }
}

/* There is one outgoing account at most: the old one goes first. Of others it goes last. */
static int plan_accounts(struct config_plan *p, const char *chain, const json_t *now,
                         const json_t *wanted)
{
    const json_t *item;
    size_t i;

    remove_accounts(p, chain, now, wanted, true);
    json_array_foreach (wanted, i, item) {
        if (plan_account(p, chain, find_account(now, item), item))
            return -p->err->errnum;
    }
    remove_accounts(p, chain, now, wanted, false);
    return 0;
}

/* ---- what changes in use ------------------------------------------------------------------ */

static void plan_access(struct config_plan *p, const char *name, const json_t *now,
                        const json_t *wanted)
{
    json_t *allow = json_object_get(wanted, "allow");
    json_t *groups = json_object_get(wanted, "portal-group"), *args;

    if (same_set(json_object_get(now, "allow"), allow) &&
        same_set(json_object_get(now, "portal-group"), groups))
        return;
    args = json_pack("{s:s}", "name", name);
    if (allow)
        json_object_set(args, "allow", allow);
    if (groups)
        json_object_set(args, "portal-group", groups);
    config_step(p, "chain-access", args, "%s: change who may log in, and where", name);
}

static size_t initiator_bytes(const char *mask)
{
    return strcspn(mask, "=");
}

static bool masks_initiator(const json_t *list, const char *mask)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        const char *other = json_string_value(item);

        if (initiator_bytes(other) == initiator_bytes(mask) &&
            !strncmp(other, mask, initiator_bytes(mask)))
            return true;
    }
    return false;
}

static void plan_masks(struct config_plan *p, const char *name, const json_t *now,
                       const json_t *wanted)
{
    const json_t *item;
    size_t i;

    json_array_foreach (wanted, i, item) {
        const char *mask = json_string_value(item);
        const char *luns = mask + initiator_bytes(mask);

        if (!has_text(now, mask))
            config_step(p, "lun-mask",
                        json_pack("{s:s, s:s%, s:s}", "name", name, "initiator", mask,
                                  initiator_bytes(mask), "luns", *luns ? luns + 1 : ""),
                        "%s: LUN mask %s", name, mask);
    }
    json_array_foreach (now, i, item) {
        const char *mask = json_string_value(item);

        if (!masks_initiator(wanted, mask))
            config_step(
                p, "lun-unmask",
                json_pack("{s:s, s:s%}", "name", name, "initiator", mask, initiator_bytes(mask)),
                "%s: no LUN mask for %.*s", name, (int)initiator_bytes(mask), mask);
    }
}

static void plan_redirect(struct config_plan *p, const char *name, const json_t *now,
                          const json_t *wanted)
{
    bool same = !strcmp(config_text(now, "to"), config_text(wanted, "to")) &&
                json_is_true(json_object_get(now, "permanently")) ==
                    json_is_true(json_object_get(wanted, "permanently"));
    json_t *args;

    if (same)
        return;
    args = wanted ? json_deep_copy(wanted) : json_object();
    json_object_set_new(args, "name", json_string(name));
    config_step(p, "chain-redirect", args,
                wanted ? "%s: send logins to %s" : "%s: logins stay here%s", name,
                config_text(wanted, "to"));
}

static void setting(json_t *list, const char *key, const json_t *value)
{
    char text[256];

    if (json_is_integer(value))
        snprintf(text, sizeof(text), "%s=%lld", key, (long long)json_integer_value(value));
    else
        snprintf(text, sizeof(text), "%s=%s", key,
                 json_is_boolean(value) ? (json_is_true(value) ? "on" : "off")
                 : value                ? json_string_value(value)
                                        : "");
    json_array_append_new(list, json_string(text));
}

static void plan_settings(struct config_plan *p, const char *name, json_t *now, json_t *wanted)
{
    json_t *list = json_array(), *value;
    const char *key;
    char *says;

    json_object_foreach (wanted, key, value) {
        if (!json_equal(json_object_get(now, key), value))
            setting(list, key, value);
    }
    json_object_foreach (now, key, value) {
        if (!json_object_get(wanted, key))
            setting(list, key, NULL);
    }
    if (json_array_size(list)) {
        says = json_dumps(list, JSON_COMPACT);
        config_step(p, "chain-set", json_pack("{s:s, s:O}", "name", name, "settings", list),
                    "%s: settings %.300s", name, says ? says : "");
        free(says);
    }
    json_decref(list);
}

static int plan_changes(struct config_plan *p, const json_t *now, const json_t *wanted)
{
    const char *name = config_text(wanted, "name");
    const json_t *accounts = json_object_get(wanted, "accounts");

    plan_access(p, name, now, wanted);
    plan_masks(p, name, json_object_get(now, "mask"), json_object_get(wanted, "mask"));
    if (accounts && plan_accounts(p, name, json_object_get(now, "accounts"), accounts))
        return -p->err->errnum;
    plan_redirect(p, name, json_object_get(now, "redirect"), json_object_get(wanted, "redirect"));
    plan_settings(p, name, json_object_get(now, "settings"), json_object_get(wanted, "settings"));
    config_plan_limits(p, now, wanted);
    return 0;
}

/* ---- chains ------------------------------------------------------------------------------- */

/* What an export takes at its start, and what it is when it is not said; NULL: whatever it is. */
static const struct fixed {
    const char *name;
    const char *otherwise; /* JSON */
} fixed[] = {
    {"target", NULL},       {"format", NULL},      {"writable", "false"},
    {"view", "\"flat\""},   {"cache", "\"auto\""}, {"probe-backing", "false"},
    {"removable", "false"}, {"block-size", "512"},
};

/* The member that differs though it can't change in use; NULL: none. */
static const char *fixed_difference(const json_t *now, const json_t *wanted)
{
    bool pull = json_object_get(wanted, "pull") != NULL;
    const json_t *layers = json_object_get(json_object_get(now, "now"), "layers");

    if (pull != !json_object_get(wanted, "image"))
        return "image";
    if (pull && strcmp(config_text(json_object_get(now, "now"), "kind"), "pull"))
        return "pull";
    /* A live snapshot has put new layers above the image: that is how it goes. */
    if (!pull && strcmp(config_text(now, "image"), config_text(wanted, "image")) &&
        !has_text(layers, config_text(wanted, "image")))
        return "image";
    for (size_t i = 0; i < (pull ? 1 : ARRAY_LEN(fixed)); i++) {
        const struct fixed *f = &fixed[i];
        json_t *otherwise = f->otherwise ? json_loads(f->otherwise, JSON_DECODE_ANY, NULL) : NULL;
        const json_t *has = json_object_get(now, f->name), *want = json_object_get(wanted, f->name);
        bool same = f->otherwise ? json_equal(has ? has : otherwise, want ? want : otherwise)
                                 : !want || json_equal(has, want);

        json_decref(otherwise);
        if (!same && (strcmp(f->name, "format") ||
                      !strcmp(config_text(now, "image"), config_text(wanted, "image"))))
            return f->name;
    }
    return NULL;
}

static void copy_members(json_t *to, const json_t *from, const char *const *names)
{
    for (; *names; names++) {
        if (json_object_get(from, *names))
            json_object_set(to, *names, json_object_get(from, *names));
    }
}

/* The first account comes with the chain: it never stands open. */
static json_t *first_account(const json_t *wanted)
{
    json_t *item;
    size_t i;

    json_array_foreach (json_object_get(wanted, "accounts"), i, item) {
        if (!is_outgoing(item))
            return item;
    }
    return NULL;
}

static int plan_new(struct config_plan *p, const json_t *wanted)
{
    static const char *const access[] = {"name", "target", "allow", "mask", "portal-group", NULL};
    static const char *const image[] = {"image",         "format",    "writable",   "view", "cache",
                                        "probe-backing", "removable", "block-size", NULL};
    const json_t *pull = json_object_get(wanted, "pull"), *account = first_account(wanted);
    json_t *args = pull ? json_deep_copy(pull) : json_object(), *now;
    const char *name = config_text(wanted, "name");
    int ret;

    copy_members(args, wanted, access);
    if (!pull)
        copy_members(args, wanted, image);
    if (account && !json_object_get(account, "secret-file")) {
        json_decref(args);
        return error_set(p->err, EINVAL, "chain %s: account '%.80s' needs a 'secret-file'", name,
                         config_text(account, "user"));
    }
    if (account) {
        json_object_set(args, "user", json_object_get(account, "user"));
        json_object_set(args, "secret-file", json_object_get(account, "secret-file"));
    }
    config_step(p, pull ? "chain-pull" : "chain-export", args, "%s: %s %s", name,
                pull ? "pull" : "export",
                pull ? config_text(pull, "url") : config_text(wanted, "image"));
    now = json_object(); /* as it is after that */
    copy_members(now, wanted, access);
    if (account)
        json_object_set_new(
            now, "accounts",
            json_pack("[{s:s, s:b}]", "user", config_text(account, "user"), "just-given", 1));
    ret = plan_changes(p, now, wanted);
    json_decref(now);
    return ret;
}

static json_t *remove_args(const struct config_plan *p, const char *name)
{
    return json_pack("{s:s, s:b}", "name", name, "force", p->opts->force);
}

static int plan_chain(struct config_plan *p, const json_t *now, const json_t *wanted)
{
    const char *name = config_text(wanted, "name");
    const char *differs = now ? fixed_difference(now, wanted) : NULL;

    if (!now)
        return plan_new(p, wanted);
    if (!differs)
        return plan_changes(p, now, wanted);
    if (!p->opts->replace)
        return error_set(p->err, EBUSY,
                         "chain %s: its '%s' is another, which can't change while it is served: "
                         "--replace takes it down and serves it anew",
                         name, differs);
    config_step(p, "chain-remove", remove_args(p, name), "%s: stop serving it, '%s' is another",
                name, differs);
    return plan_new(p, wanted);
}

static void plan_surplus(struct config_plan *p, const json_t *now, const json_t *wanted)
{
    const json_t *c;
    size_t i;

    json_array_foreach (now, i, c) {
        const char *name = config_text(c, "name");

        if (named(wanted, "name", name))
            continue;
        if (p->opts->prune)
            config_step(p, "chain-remove", remove_args(p, name), "%s: stop serving it", name);
        else
            config_step(p, NULL, NULL, "%s stays, though the file does not have it (--prune)",
                        name);
    }
}

int config_plan(const json_t *now, const json_t *wanted, const struct config_opts *opts,
                json_t *steps, struct error *err)
{
    struct config_plan p = {.opts = opts, .steps = steps, .err = err};
    const json_t *chains = json_object_get(wanted, "chains"), *c;
    const json_t *accounts = json_object_get(wanted, "discovery-accounts");
    size_t i;

    if (json_object_get(wanted, "portals"))
        plan_portals(&p, json_object_get(now, "portals"), json_object_get(wanted, "portals"));
    if (accounts && plan_accounts(&p, NULL, json_object_get(now, "discovery-accounts"), accounts))
        return -err->errnum;
    if (chains)
        plan_surplus(&p, json_object_get(now, "chains"), chains);
    json_array_foreach (chains, i, c) {
        if (plan_chain(&p, named(json_object_get(now, "chains"), "name", config_text(c, "name")),
                       c))
            return -err->errnum;
    }
    return 0;
}
