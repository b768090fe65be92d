/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CHAP: values decoded, algorithms picked, and the security stage of a login. Input: texts, each
 * with two bytes for its length before it; each is decoded by itself, and is one request of a
 * login that asks for a secret. Nobody gets in: the challenge is random.
 */
#include <stdlib.h>
#include <string.h>

#include "target/auth.h"
#include "tests/fuzz/fuzz.h"

#define OUT_MAX_BYTES 16384

static void decode(const uint8_t *at, size_t len)
{
    uint8_t out[CHAP_BINARY_MAX], *exact;
    char *text = malloc(len + 1);
    int n;

    FUZZ_REQUIRE(text);
    memcpy(text, at, len);
    text[len] = 0;
    n = chap_decode(text, out, sizeof(out));
    FUZZ_REQUIRE(n <= (int)sizeof(out));
    if (n > 0) { /* a buffer of just that size is enough, a smaller one is not overrun */
        exact = malloc((size_t)n);
        FUZZ_REQUIRE(exact && chap_decode(text, exact, (size_t)n) == n);
        FUZZ_REQUIRE(chap_decode(text, exact, (size_t)n - 1) < 0);
        free(exact);
    }
    chap_pick(text);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chap_account alice = {.user = "alice", .secret_bytes = 12, .secret = "twelve bytes"};
    struct chap_account own = {.user = "target", .secret_bytes = 12, .secret = "other twelve"};
    struct auth a = {.required = true, .accounts = &alice, .nr_accounts = 1, .outgoing = &own};
    struct fuzz_bytes in = {data, data + size};
    struct auth_login login = {0};
    struct negotiation n;
    bool refused = false;

    negotiation_init(&n);
    while (!refused && fuzz_left(&in) > 2) {
        size_t len = fuzz_u16(&in), got;
        const uint8_t *at = fuzz_take(&in, len, &got);
        char *text = fuzz_exact(at, got);
        const char *why = NULL;
        struct text_buf out;

        decode(at, got);
        text_init(&out, OUT_MAX_BYTES);
        refused = negotiate_text(&n, NEG_SECURITY, text, got, &out) ||
                  auth_step(&login, &a, &n, &out, false, &why) != AUTH_OK;
        FUZZ_REQUIRE(out.len <= OUT_MAX_BYTES && !login.proven && !auth_may_leave(&login, &a));
        text_release(&out);
        free(text);
    }
    return 0;
}
