/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The security stage, one step a request. A step that is not complete changes nothing and is
 * answered with nothing; a wrong one ends the login. Invariant: AUTH_DONE with an account
 * required means that the initiator has proven it knows the secret, for a challenge made for this
 * login alone.
 */
#include "target/auth.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/size.h"

static void free_account(struct chap_account *account)
{
    if (account)
        explicit_bzero(account, sizeof(*account));
    free(account);
}

void auth_release(struct auth *a)
{
    if (a->nr_accounts)
        explicit_bzero(a->accounts, a->nr_accounts * sizeof(*a->accounts));
    free(a->accounts);
    free_account(a->outgoing);
    memset(a, 0, sizeof(*a));
}

static bool same_secret(const struct chap_account *a, const struct chap_account *b)
{
    return a->secret_bytes == b->secret_bytes && !memcmp(a->secret, b->secret, a->secret_bytes);
}

static int check_accounts(const struct chap_account *accounts, unsigned nr,
                          const struct chap_account *outgoing, struct error *err)
{
    for (unsigned i = 0; i < nr; i++) {
        const struct chap_account *a = &accounts[i];

        if (!*a->user || !a->secret_bytes || a->secret_bytes > CHAP_SECRET_MAX)
            return error_set(err, EINVAL, "an account needs a name, and a secret of 1 to %d bytes",
                             CHAP_SECRET_MAX);
        /* RFC 7143 12.1.3: else what we answer could be sent back to us */
        if (outgoing && same_secret(a, outgoing))
            return error_set(err, EINVAL,
                             "the target's own secret must differ from that of user '%s'", a->user);
    }
    return 0;
}

int auth_set(struct auth *a, const struct chap_account *accounts, unsigned nr,
             const struct chap_account *outgoing, bool required, struct error *err)
{
    struct auth fresh = {.required = required, .nr_accounts = nr};

    if (check_accounts(accounts, nr, outgoing, err))
        return -err->errnum;
    if (nr)
        fresh.accounts = calloc(nr, sizeof(*fresh.accounts));
    if (outgoing)
        fresh.outgoing = calloc(1, sizeof(*fresh.outgoing));
    if ((nr && !fresh.accounts) || (outgoing && !fresh.outgoing)) {
        free(fresh.accounts);
        free(fresh.outgoing);
        return error_set(err, ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < nr; i++)
        fresh.accounts[i] = accounts[i];
    if (outgoing)
        *fresh.outgoing = *outgoing;
    auth_release(a);
    *a = fresh;
    return 0;
}

static enum auth_verdict refused(const char **why, const char *text)
{
    *why = text;
    return AUTH_REFUSED;
}

static enum auth_verdict bad_request(const char **why, const char *text)
{
    *why = text;
    return AUTH_BAD_REQUEST;
}

static enum auth_verdict choose_method(struct auth_login *l, const struct auth *a,
                                       const struct negotiation *n, struct text_buf *out,
                                       bool leaving, const char **why)
{
    if (!n->auth_offered)
        return leaving && a->required ? refused(why, "it offers no method") : AUTH_OK;
    if (a->required ? !n->auth_chap : !n->auth_none) {
        return refused(why, a->required ? "it does not offer CHAP" : "it insists on a secret");
    }
    text_add(out, "AuthMethod", a->required ? "CHAP" : "None");
    l->state = a->required ? AUTH_METHOD : AUTH_DONE;
    return AUTH_OK;
}

static enum auth_verdict challenge(struct auth_login *l, const struct negotiation *n,
                                   struct text_buf *out, const char **why)
{
    char text[2 * CHAP_DIGEST_MAX + 3];

    if (!*n->chap_a)
        return AUTH_OK;
    l->alg = chap_pick(n->chap_a);
    if (!l->alg)
        return refused(why, "it knows none of our CHAP algorithms");
    if (chap_random(&l->id, 1) || chap_random(l->challenge, chap_digest_bytes(l->alg))) {
        *why = "no random numbers for a challenge";
        return AUTH_NO_RESOURCES;
    }
    chap_encode(l->challenge, chap_digest_bytes(l->alg), text);
    text_add_number(out, "CHAP_A", chap_number(l->alg));
    text_add_number(out, "CHAP_I", l->id);
    text_add(out, "CHAP_C", text);
    l->state = AUTH_CHALLENGED;
    return AUTH_OK;
}

/* An unknown user costs the same time as a wrong secret. */
static enum auth_verdict check_response(const struct auth_login *l, const struct auth *a,
                                        const struct negotiation *n, const char **why)
{
    static const struct chap_account nobody = {.user = "", .secret_bytes = 1};
    uint8_t wanted[CHAP_DIGEST_MAX], got[CHAP_BINARY_MAX];
    size_t len = chap_digest_bytes(l->alg);
    const struct chap_account *account = &nobody;
    bool same;
    int got_bytes = chap_decode(n->chap_r, got, sizeof(got));

    if (got_bytes < 0)
        return bad_request(why, "its CHAP_R is no binary value");
    for (unsigned i = 0; i < a->nr_accounts; i++) {
        if (!strcmp(a->accounts[i].user, n->chap_n))
            account = &a->accounts[i];
    }
    if (chap_response(l->alg, l->id, account, l->challenge, len, wanted)) {
        *why = "the digest can't be computed";
        return AUTH_NO_RESOURCES;
    }
    same = (size_t)got_bytes == len && chap_same(wanted, got, len);
    if (account == &nobody)
        return refused(why, "no such user");
    return same ? AUTH_OK : refused(why, "wrong secret");
}

/* The initiator wants us to prove who we are. */
static enum auth_verdict answer_challenge(const struct auth_login *l, const struct auth *a,
                                          const struct negotiation *n, struct text_buf *out,
                                          const char **why)
{
    uint8_t theirs[CHAP_BINARY_MAX], digest[CHAP_DIGEST_MAX];
    char text[2 * CHAP_DIGEST_MAX + 3];
    size_t ours = chap_digest_bytes(l->alg);
    int len = chap_decode(n->chap_c, theirs, sizeof(theirs));
    uint32_t id;

    if (len < 0 || !text_number(n->chap_i, &id) || id > 255)
        return bad_request(why, "its CHAP_I or CHAP_C is no such value");
    if (!a->outgoing)
        return refused(why, "it wants the target's own secret, and there is none");
    if ((size_t)len == ours && !memcmp(theirs, l->challenge, ours)) /* 12.1.3 */
        return refused(why, "it sent our own challenge back");
    if (chap_response(l->alg, (uint8_t)id, a->outgoing, theirs, (size_t)len, digest)) {
        *why = "the digest can't be computed";
        return AUTH_NO_RESOURCES;
    }
    chap_encode(digest, chap_digest_bytes(l->alg), text);
    text_add(out, "CHAP_N", a->outgoing->user);
    text_add(out, "CHAP_R", text);
    return AUTH_OK;
}

static enum auth_verdict prove(struct auth_login *l, const struct auth *a,
                               const struct negotiation *n, struct text_buf *out, const char **why)
{
    enum auth_verdict v;

    if (!*n->chap_n && !*n->chap_r)
        return AUTH_OK;
    if (!*n->chap_n || !*n->chap_r || !*n->chap_i != !*n->chap_c)
        return bad_request(why, "half of a CHAP answer");
    v = check_response(l, a, n, why);
    if (!v && *n->chap_c)
        v = answer_challenge(l, a, n, out, why);
    if (!v) {
        l->state = AUTH_DONE;
        l->proven = true;
    }
    return v;
}

enum auth_verdict auth_step(struct auth_login *l, const struct auth *a, const struct negotiation *n,
                            struct text_buf *out, bool leaving, const char **why)
{
    enum auth_verdict v = AUTH_OK;

    if (l->state != AUTH_CHALLENGED && !l->proven &&
        (*n->chap_n || *n->chap_r || *n->chap_i || *n->chap_c))
        return bad_request(why, "a CHAP answer before the challenge");
    if (l->state == AUTH_CHALLENGED)
        return prove(l, a, n, out, why);
    if (l->state == AUTH_START)
        v = choose_method(l, a, n, out, leaving, why);
    if (!v && l->state == AUTH_METHOD)
        v = challenge(l, n, out, why);
    else if (!v && l->state != AUTH_DONE && *n->chap_a)
        v = bad_request(why, "CHAP_A before CHAP was agreed on");
    return v;
}

bool auth_may_leave(const struct auth_login *l, const struct auth *a)
{
    if (a->required)
        return l->state == AUTH_DONE && l->proven;
    return l->state == AUTH_START || l->state == AUTH_DONE;
}
