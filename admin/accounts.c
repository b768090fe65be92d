/* SPDX-License-Identifier: BSD-3-Clause */
/* The accounts file and what is in it; see accounts.h. */
#define LOG_AREA "accounts"
#include "admin/accounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/json-util.h"
#include "admin/secret.h"
#include "admin/state.h"
#include "util/log.h"

#define FILE_NAME        "accounts.json"
#define FILE_VERSION     1
#define STRONG_MIN_BYTES 12 /* RFC 7143 9.2.1: 96 bits */

static void free_account(struct account *a)
{
    if (!a)
        return;
    list_del(&a->link);
    free(a->chain);
    free(a->secret_file);
    explicit_bzero(a, sizeof(*a));
    free(a);
}

static struct account *new_account(const char *chain, bool outgoing, const char *user)
{
    struct account *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    list_init(&a->link);
    a->outgoing = outgoing;
    snprintf(a->chap.user, sizeof(a->chap.user), "%s", user);
    a->chain = chain ? strdup(chain) : NULL;
    if (!chain || a->chain)
        return a;
    free_account(a);
    return NULL;
}

static bool same_scope(const struct account *a, const char *chain)
{
    return chain ? a->chain && !strcmp(a->chain, chain) : !a->chain;
}

struct account *accounts_find(struct accounts *all, const struct account_key *key)
{
    struct account *a;

    list_for_each_entry (a, &all->list, link) {
        if (same_scope(a, key->chain) && a->outgoing == key->outgoing &&
            !strcmp(a->chap.user, key->user))
            return a;
    }
    return NULL;
}

static unsigned count(struct accounts *all, const char *chain, bool outgoing)
{
    struct account *a;
    unsigned n = 0;

    list_for_each_entry (a, &all->list, link)
        n += same_scope(a, chain) && a->outgoing == outgoing;
    return n;
}

/* ---- the file ------------------------------------------------------------------------- */

static void to_hex(const uint8_t *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
    out[2 * len] = '\0';
}

static bool from_hex(const char *text, struct chap_account *chap)
{
    size_t digits = strlen(text);

    if (!digits || digits % 2 || digits > 2 * sizeof(chap->secret) ||
        strspn(text, "0123456789abcdef") != digits)
        return false;
    for (size_t i = 0; i < digits / 2; i++) {
        unsigned byte;

        sscanf(text + 2 * i, "%2x", &byte);
        chap->secret[i] = (uint8_t)byte;
    }
    chap->secret_bytes = digits / 2;
    return true;
}

static json_t *account_to_json(const struct account *a)
{
    char hex[2 * CHAP_SECRET_MAX + 1];
    json_t *j;

    to_hex(a->chap.secret, a->chap.secret_bytes, hex);
    j = json_pack("{s:s, s:s, s:b}", "user", a->chap.user, "secret", hex, "outgoing", a->outgoing);
    explicit_bzero(hex, sizeof(hex));
    if (j && a->chain)
        json_object_set_new(j, "chain", json_string(a->chain));
    if (j && a->secret_file)
        json_object_set_new(j, "secret-file", json_text(a->secret_file));
    return j;
}

static char *to_text(const struct accounts *all)
{
    json_t *list = json_array(), *root;
    struct account *a;
    int bad = 0;
    char *text;

    list_for_each_entry (a, &all->list, link)
        bad |= json_array_append_new(list, account_to_json(a));
    root = json_pack("{s:i, s:o}", "version", FILE_VERSION, "accounts", list);
    text = bad || !root ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}

static int co_save(struct accounts *all, struct error *err)
{
    char *text = to_text(all);
    int ret = -ENOMEM;

    if (text) {
        ret = co_state_write(all->dir, FILE_NAME, text);
        explicit_bzero(text, strlen(text));
        free(text);
    }
    return ret ? error_set(err, -ret, "can't save the accounts in %s: %s", all->dir, strerror(-ret))
               : 0;
}

static int load_account(struct accounts *all, json_t *j, struct error *err)
{
    const char *user, *secret, *chain = NULL, *file = NULL;
    struct account *a;
    json_error_t jerr;
    int outgoing;

    if (json_unpack_ex(j, &jerr, JSON_STRICT, "{s:s, s:s, s:b, s?s, s?s}", "user", &user, "secret",
                       &secret, "outgoing", &outgoing, "chain", &chain, "secret-file", &file))
        return error_set(err, EINVAL, "%s", jerr.text);
    if (!*user || strlen(user) > CHAP_NAME_MAX)
        return error_set(err, EINVAL, "a user's name has 1 to %d bytes", CHAP_NAME_MAX);
    a = new_account(chain, outgoing, user);
    if (!a)
        return error_set(err, ENOMEM, "out of memory");
    list_add_tail(&all->list, &a->link);
    a->secret_file = file ? strdup(file) : NULL;
    if (!from_hex(secret, &a->chap))
        return error_set(err, EINVAL, "the secret of user '%s' is not valid", user);
    return 0;
}

static int load(struct accounts *all, const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), version;
    json_t *root, *list, *item;
    struct stat st;
    json_error_t jerr;
    size_t i;

    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(err, errno, "%s", strerror(errno));
    if (!fstat(fd, &st) && st.st_mode & 077 && fchmod(fd, 0600))
        log_warn("%s: others than its owner may read it", path);
    root = json_loadfd(fd, JSON_REJECT_DUPLICATES, &jerr);
    close(fd);
    if (!root)
        return error_set(err, EINVAL, "line %d: it is no JSON", jerr.line);
    if (json_unpack_ex(root, &jerr, JSON_STRICT, "{s:i, s:o}", "version", &version, "accounts",
                       &list))
        error_set(err, EINVAL, "%s", jerr.text);
    else if (version != FILE_VERSION || !json_is_array(list))
        error_set(err, EINVAL, "version %d is not known", version);
    else
        json_array_foreach (list, i, item) {
            if (load_account(all, item, err))
                break;
        }
    json_decref(root);
    return *err->msg ? -EINVAL : 0;
}

int accounts_open(const char *dir, struct accounts **out, struct error *err)
{
    struct accounts *all = calloc(1, sizeof(*all));
    char path[PATH_MAX];
    int ret;

    if (!all)
        return error_set(err, ENOMEM, "out of memory");
    list_init(&all->list);
    co_mutex_init(&all->changing);
    all->dir = dir;
    snprintf(path, sizeof(path), "%s/" FILE_NAME, dir);
    ret = load(all, path, err);
    if (ret) {
        error_prefix(err,
                     "the accounts file %s is damaged (repair it, or move it away: what asked "
                     "for a secret then lets nobody in)",
                     path);
        accounts_close(all);
        return ret;
    }
    *out = all;
    return 0;
}

void accounts_close(struct accounts *all)
{
    if (!all)
        return;
    while (!list_empty(&all->list))
        free_account(list_first_entry(&all->list, struct account, link));
    free(all);
}

/* ---- changes ---------------------------------------------------------------------------- */

static int co_read_secret(const char *path, struct chap_account *chap, struct error *err)
{
    char text[CHAP_SECRET_MAX + 2];
    int ret = co_secret_read(path, text, sizeof(text), err);

    if (ret)
        return ret;
    chap->secret_bytes = strlen(text);
    if (chap->secret_bytes <= CHAP_SECRET_MAX)
        memcpy(chap->secret, text, chap->secret_bytes);
    else
        ret = error_set(err, EINVAL, "secret file %s: longer than %d bytes", path, CHAP_SECRET_MAX);
    explicit_bzero(text, sizeof(text));
    if (!ret && chap->secret_bytes < STRONG_MIN_BYTES)
        log_warn("secret file %s: %zu bytes can be guessed from a login that is listened to; use "
                 "%d or more",
                 path, chap->secret_bytes, STRONG_MIN_BYTES);
    return ret;
}

/* RFC 7143 12.1.3: else an answer of ours could be sent back to us as theirs. */
static int check_new(struct accounts *all, const struct account *fresh, struct error *err)
{
    struct account *a;

    if (fresh->outgoing && count(all, fresh->chain, true) &&
        !accounts_find(all, &(struct account_key){fresh->chain, fresh->chap.user, true}))
        return error_set_class(err, ERR_DEVICE_IN_USE, EEXIST,
                               "there is an outgoing account already: remove it first");
    if (count(all, fresh->chain, fresh->outgoing) >= ACCOUNTS_PER_SCOPE_MAX)
        return error_set(err, ENOSPC, "no more than %d accounts", ACCOUNTS_PER_SCOPE_MAX);
    list_for_each_entry (a, &all->list, link) {
        if (same_scope(a, fresh->chain) && a->outgoing != fresh->outgoing &&
            a->chap.secret_bytes == fresh->chap.secret_bytes &&
            !memcmp(a->chap.secret, fresh->chap.secret, a->chap.secret_bytes))
            return error_set(err, EINVAL,
                             "user '%s' has the same secret: the two directions need two",
                             a->chap.user);
    }
    return 0;
}

static int co_add(struct accounts *all, const struct account_key *key, struct account *fresh,
                  struct error *err)
{
    struct account *old = accounts_find(all, key);

    if (check_new(all, fresh, err))
        return -err->errnum;
    if (old)
        list_del(&old->link);
    list_add_tail(&all->list, &fresh->link);
    if (!co_save(all, err)) {
        free_account(old);
        return 0;
    }
    list_del(&fresh->link);
    list_init(&fresh->link);
    if (old)
        list_add_tail(&all->list, &old->link);
    return -err->errnum;
}

int co_accounts_add(struct accounts *all, const struct account_key *key, const char *secret_file,
                    struct error *err)
{
    struct account *fresh;
    int ret;

    if (!*key->user || strlen(key->user) > CHAP_NAME_MAX)
        return error_set(err, EINVAL, "a user's name has 1 to %d bytes", CHAP_NAME_MAX);
    fresh = new_account(key->chain, key->outgoing, key->user);
    if (!fresh)
        return error_set(err, ENOMEM, "out of memory");
    fresh->secret_file = strdup(secret_file);
    ret = co_read_secret(secret_file, &fresh->chap, err);
    if (!ret) {
        co_mutex_lock(&all->changing);
        ret = co_add(all, key, fresh, err);
        co_mutex_unlock(&all->changing);
    }
    if (ret)
        free_account(fresh);
    return ret;
}

int co_accounts_compare(struct accounts *all, const struct account_key *key,
                        const char *secret_file, struct error *err)
{
    struct chap_account read;
    struct account *a;
    int ret = co_read_secret(secret_file, &read, err);

    if (ret)
        return ret;
    a = accounts_find(all, key);
    ret = a && a->chap.secret_bytes == read.secret_bytes &&
          !memcmp(a->chap.secret, read.secret, read.secret_bytes);
    explicit_bzero(&read, sizeof(read));
    return ret;
}

int co_accounts_remove(struct accounts *all, const struct account_key *key, struct error *err)
{
    struct account *a;
    int ret = 0;

    co_mutex_lock(&all->changing);
    a = accounts_find(all, key);
    if (a) {
        list_del(&a->link);
        ret = co_save(all, err);
        list_init(&a->link);
        if (ret)
            list_add_tail(&all->list, &a->link);
        else
            free_account(a);
    } else {
        ret =
            error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
                            "there is no such account; cowtgt account list shows those there are");
    }
    co_mutex_unlock(&all->changing);
    return ret;
}

int co_accounts_forget(struct accounts *all, const char *chain, struct error *err)
{
    struct account *a, *tmp;
    bool any = false;
    int ret = 0;

    co_mutex_lock(&all->changing);
    list_for_each_entry_safe (a, tmp, &all->list, link) {
        if (same_scope(a, chain)) {
            free_account(a);
            any = true;
        }
    }
    if (any)
        ret = co_save(all, err);
    co_mutex_unlock(&all->changing);
    return ret;
}

int accounts_apply(struct accounts *all, const char *chain, struct target *t, bool required,
                   struct error *err)
{
    unsigned n = count(all, chain, false), i = 0;
    struct chap_account *list = n ? calloc(n, sizeof(*list)) : NULL;
    const struct chap_account *outgoing = NULL;
    struct account *a;
    int ret;

    if (n && !list)
        return error_set(err, ENOMEM, "out of memory");
    list_for_each_entry (a, &all->list, link) {
        if (!same_scope(a, chain))
            continue;
        if (a->outgoing)
            outgoing = &a->chap;
        else
            list[i++] = a->chap;
    }
    ret = target_set_accounts(t, list, n, outgoing, required || n, err);
    if (n)
        explicit_bzero(list, n * sizeof(*list));
    free(list);
    return ret;
}
