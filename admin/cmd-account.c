/* SPDX-License-Identifier: BSD-3-Clause */
/* account-add, account-remove, query-accounts, chain-redirect. */
#define LOG_AREA "accounts"
#include <errno.h>
#include <string.h>

#include "admin/accounts.h"
#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "util/log.h"

static const struct cmd_arg add_args[] = {
    {.name = "user", .type = ARG_STRING},
    {.name = "secret-file", .type = ARG_STRING},
    {.name = "chain", .type = ARG_STRING, .optional = true},
    {.name = "discovery", .type = ARG_BOOL, .optional = true},
    {.name = "outgoing", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static const struct cmd_arg compare_args[] = {
    {.name = "user", .type = ARG_STRING},
    {.name = "secret-file", .type = ARG_STRING},
    {.name = "chain", .type = ARG_STRING, .optional = true},
    {.name = "outgoing", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static const struct cmd_arg remove_args[] = {
    {.name = "user", .type = ARG_STRING},
    {.name = "chain", .type = ARG_STRING, .optional = true},
    {.name = "discovery", .type = ARG_BOOL, .optional = true},
    {.name = "outgoing", .type = ARG_BOOL, .optional = true},
    {.name = "open", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

/* Whose account is meant; with a chain, *@chain is claimed until end_change(). */
static int begin_change(struct daemon *d, const json_t *args, struct account_key *key,
                        struct chain **chain, struct error *err)
{
    bool discovery = arg_bool(args, "discovery", false);

    *key = (struct account_key){
        .chain = arg_string(args, "chain"),
        .user = arg_string(args, "user"),
        .outgoing = arg_bool(args, "outgoing", false),
    };
    *chain = NULL;
    if (!key->chain == !discovery)
        return error_set(err, EINVAL, "say for which chain, or that it is for discovery");
    if (discovery)
        return 0;
    *chain = chain_lookup(d, key->chain, err);
    if (!*chain)
        return -err->errnum;
    return chain_claim(*chain, "its accounts are being changed", err);
}

static int apply(struct daemon *d, const struct chain *c, struct error *err)
{
    if (!c)
        return accounts_apply(d->accounts, NULL, NULL, false, err);
    return c->target ? accounts_apply(d->accounts, c->rec->name, c->target, c->rec->auth, err) : 0;
}

static void end_change(struct chain *c)
{
    if (c)
        chain_release(c);
}

/* The record says that a secret is asked for, so that a lost accounts file opens no door. */
static int co_note(struct daemon *d, struct chain *c, bool auth, struct error *err)
{
    bool was;

    if (!c || c->rec->auth == auth)
        return 0;
    was = c->rec->auth;
    c->rec->auth = auth;
    if (!co_state_save(d->state, err))
        return 0;
    c->rec->auth = was;
    return -err->errnum;
}

static json_t *run_add(struct daemon *d, const json_t *args, struct error *err)
{
    const char *secret_file = arg_string(args, "secret-file");
    struct account_key key;
    struct chain *c;
    int ret;

    if (*secret_file != '/') {
        error_set(err, EINVAL, "secret file: '%.200s' is no absolute path", secret_file);
        return NULL;
    }
    if (begin_change(d, args, &key, &c, err))
        return NULL;
    ret = co_accounts_add(d->accounts, &key, secret_file, err);
    if (!ret && !key.outgoing)
        ret = co_note(d, c, true, err);
    if (!ret)
        ret = apply(d, c, err);
    end_change(c);
    return ret ? NULL : json_object();
}

/* So that who applies a configuration knows whether an account is to be changed. */
static json_t *run_compare(struct daemon *d, const json_t *args, struct error *err)
{
    const char *secret_file = arg_string(args, "secret-file");
    const struct account_key key = {
        .chain = arg_string(args, "chain"),
        .user = arg_string(args, "user"),
        .outgoing = arg_bool(args, "outgoing", false),
    };
    int ret;

    if (*secret_file != '/') {
        error_set(err, EINVAL, "secret file: '%.200s' is no absolute path", secret_file);
        return NULL;
    }
    ret = co_accounts_compare(d->accounts, &key, secret_file, err);
    return ret < 0 ? NULL : json_pack("{s:b}", "same", ret);
}

static bool is_last(struct accounts *all, const struct account_key *key)
{
    struct account *a;

    list_for_each_entry (a, &all->list, link) {
        if (!a->outgoing && !a->chain == !key->chain &&
            (!key->chain || !strcmp(a->chain, key->chain)) && strcmp(a->chap.user, key->user))
            return false;
    }
    return true;
}

static json_t *run_remove(struct daemon *d, const json_t *args, struct error *err)
{
    struct account_key key;
    struct chain *c;
    bool last;
    int ret;

    if (begin_change(d, args, &key, &c, err))
        return NULL;
    last = !key.outgoing && is_last(d->accounts, &key);
    if (last && accounts_find(d->accounts, &key) && !arg_bool(args, "open", false))
        ret = error_set(err, EPERM,
                        "it is the last account, and without one everybody may log in: say --open "
                        "if that is meant, or add another first");
    else
        ret = co_accounts_remove(d->accounts, &key, err);
    if (!ret && last)
        ret = co_note(d, c, false, err);
    if (!ret)
        ret = apply(d, c, err);
    end_change(c);
    return ret ? NULL : json_object();
}

static json_t *run_query(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array(), *j;
    struct account *a;

    (void)args;
    (void)err;
    list_for_each_entry (a, &d->accounts->list, link) {
        j = json_pack("{s:s, s:b, s:b}", "user", a->chap.user, "discovery", !a->chain, "outgoing",
                      a->outgoing);
        if (a->chain)
            json_object_set_new(j, "chain", json_string(a->chain));
        if (a->secret_file)
            json_object_set_new(j, "secret-file", json_text(a->secret_file));
        json_array_append_new(list, j);
    }
    return list;
}

int co_chain_first_account(struct chain *c, const char *user, const char *secret_file,
                           struct error *err)
{
    struct account_key key = {.chain = c->rec->name, .user = user};
    int ret = co_accounts_forget(c->d->accounts, c->rec->name, err);

    if (ret || !user)
        return ret;
    c->rec->auth = true;
    return co_accounts_add(c->d->accounts, &key, secret_file, err);
}

/* ---- chain-redirect ---------------------------------------------------------------------- */

static const struct cmd_arg redirect_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "to", .type = ARG_STRING, .optional = true},
    {.name = "permanently", .type = ARG_BOOL, .optional = true},
    {.name = NULL},
};

static int co_redirect(struct chain *c, const char *to, bool permanently, struct error *err)
{
    if (!c->target)
        return error_set_class(err, ERR_DEVICE_NOT_ACTIVE, ENODEV, "chain '%s' is not served",
                               c->rec->name);
    if (target_redirect(c->target, to, permanently, err))
        return -err->errnum;
    c->rec->redirect_permanently = permanently;
    if (record_set(&c->rec->redirect_to, to))
        return error_set(err, ENOMEM, "out of memory");
    return co_state_save(c->d->state, err);
}

static json_t *run_redirect(struct daemon *d, const json_t *args, struct error *err)
{
    const char *to = arg_string(args, "to");
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);
    int ret;

    if (!c || chain_claim(c, "its logins are being redirected", err))
        return NULL;
    ret = co_redirect(c, to, arg_bool(args, "permanently", false), err);
    if (!ret)
        log_notice("chain %s: logins %s%s", c->rec->name, to ? "are sent to " : "stay here",
                   to ? to : "");
    chain_release(c);
    return ret ? NULL : json_object();
}

const struct command account_commands[] = {
    {"account-add", "a user and secret that initiators log in with", add_args, run_add},
    {"account-compare", "does a file hold the secret of an account?", compare_args, run_compare},
    {"account-remove", "takes an account away; open sessions stay", remove_args, run_remove},
    {"query-accounts", "all accounts, without their secrets", NULL, run_query},
    {"chain-redirect", "sends logins to another address", redirect_args, run_redirect},
    {NULL, NULL, NULL, NULL},
};
