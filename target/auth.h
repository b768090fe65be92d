/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who proves what at login: the accounts of a target (or of discovery), and the steps of the
 * security stage (RFC 7143 12.1.3). Pure but for random numbers: keys in, keys and a verdict out.
 */
#ifndef COWTGT_AUTH_H
#define COWTGT_AUTH_H

#include <stdbool.h>
#include <stdint.h>
#include "target/chap.h"
#include "target/negotiate.h"

struct auth {
    bool required; /* nobody comes in without: also when there is no account at all */
    struct chap_account *accounts;
    unsigned nr_accounts;
    struct chap_account *outgoing; /* what we prove ourselves with; NULL: we don't */
};

/* Replaces all of it, copying; on failure it is as it was. */
int auth_set(struct auth *a, const struct chap_account *accounts, unsigned nr,
             const struct chap_account *outgoing, bool required, struct error *err);
void auth_release(struct auth *a);

enum auth_state {
    AUTH_START,
    AUTH_METHOD,     /* CHAP it is; CHAP_A is to come */
    AUTH_CHALLENGED, /* CHAP_N and CHAP_R are to come */
    AUTH_DONE,
};

enum auth_verdict { AUTH_OK, AUTH_REFUSED, AUTH_BAD_REQUEST, AUTH_NO_RESOURCES };

struct auth_login {
    enum auth_state state;
    bool proven; /* by CHAP */
    const struct chap_algorithm *alg;
    uint8_t id;
    uint8_t challenge[CHAP_DIGEST_MAX];
};

/*
 * One request of the security stage: what @n has by now against @a; our keys to @out. @leaving: it
 * wants to go on to the next stage. @why is for the log where the verdict isn't AUTH_OK.
 */
enum auth_verdict auth_step(struct auth_login *l, const struct auth *a, const struct negotiation *n,
                            struct text_buf *out, bool leaving, const char **why);
/* The security stage may be left. */
bool auth_may_leave(const struct auth_login *l, const struct auth *a);

#endif
