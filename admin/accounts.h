/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CHAP accounts: STATE_DIR/accounts.json, mode 0600, written whole as the state is. Each belongs
 * to a chain or to discovery, and to one direction. A secret is bytes; it is in that file and in
 * memory, and in no message, log or answer.
 */
#ifndef COWTGT_ACCOUNTS_H
#define COWTGT_ACCOUNTS_H

#include <jansson.h>
#include <stdbool.h>
#include "target/target.h"
#include "util/coroutine.h"
#include "util/error.h"
#include "util/list.h"

#define ACCOUNTS_PER_SCOPE_MAX 1024

struct account {
    struct list_head link;
    char *chain;   /* NULL: for discovery sessions */
    bool outgoing; /* what the target proves itself with; at most one a chain */
    struct chap_account chap;
    char *secret_file; /* where the secret came from; NULL: not known */
};

struct accounts {
    const char *dir; /* the state's */
    struct list_head list;
    struct co_mutex changing;
};

/* Blocks (start-up only). A damaged file is an error that names it. */
int accounts_open(const char *dir, struct accounts **out, struct error *err);
void accounts_close(struct accounts *all);

struct account_key {
    const char *chain; /* NULL: discovery */
    const char *user;
    bool outgoing;
};
struct account *accounts_find(struct accounts *all, const struct account_key *key);
/* Coroutine: reads the secret, adds or replaces, saves; on failure all is as it was. */
int co_accounts_add(struct accounts *all, const struct account_key *key, const char *secret_file,
                    struct error *err);
/* Coroutine: 1 if @secret_file holds the secret that the account has, 0 if another, or -errno. */
int co_accounts_compare(struct accounts *all, const struct account_key *key,
                        const char *secret_file, struct error *err);
/* Coroutine. DeviceNotFound in @err. */
int co_accounts_remove(struct accounts *all, const struct account_key *key, struct error *err);
/* Coroutine: all of a chain that is gone. */
int co_accounts_forget(struct accounts *all, const char *chain, struct error *err);
/* Gives the accounts of @chain (NULL: discovery) to @t (NULL then). */
int accounts_apply(struct accounts *all, const char *chain, struct target *t, bool required,
                   struct error *err);

#endif
