/* SPDX-License-Identifier: BSD-3-Clause */
/* CHAP: encodings, responses against known answers, and every step of the exchange. */
#include <errno.h>
#include <string.h>

#include "target/auth.h"
#include "tests/unit/ctest.h"

static void account(struct chap_account *a, const char *user, const char *secret)
{
    memset(a, 0, sizeof(*a));
    strcpy(a->user, user);
    a->secret_bytes = strlen(secret);
    memcpy(a->secret, secret, a->secret_bytes);
}

TEST(chap, hexadecimal_is_decoded)
{
    uint8_t out[4];

    CHECK_EQ(chap_decode("0x00Ff10", out, sizeof(out)), 3);
    CHECK(!memcmp(out, "\x00\xff\x10", 3));
    CHECK_EQ(chap_decode("0Xabc", out, sizeof(out)), 2);
    CHECK(!memcmp(out, "\x0a\xbc", 2));
}

TEST(chap, base64_is_decoded)
{
    uint8_t out[8];

    CHECK_EQ(chap_decode("0bAQIDBA==", out, sizeof(out)), 4);
    CHECK(!memcmp(out, "\1\2\3\4", 4));
    CHECK_EQ(chap_decode("0B+/+/", out, sizeof(out)), 3);
    CHECK(!memcmp(out, "\xfb\xff\xbf", 3));
}

TEST(chap, what_is_no_binary_value_is_refused)
{
    static const char *const bad[] = {
        "",       "0",      "x00", "0x",     "0x0g",    "0b",        "0bAQI",     "0bAQ=I",
        "0b====", "0bAR==", "12",  "0b*AAA", "0bAQIDB", "0xaabbcc ", "0bAAAAAAAA"};
    uint8_t out[4];

    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        CHECK_EQ(chap_decode(bad[i], out, sizeof(out)), -EINVAL);
    CHECK_EQ(chap_decode("0x0011223344", out, sizeof(out)), -EINVAL);
}

TEST(chap, responses_are_digests_of_number_secret_and_challenge)
{
    static const struct {
        const char *algorithm, *response; /* by coreutils and openssl of "\x2a" "secret" "abc" */
    } known[] = {
        {"5", "0x1d8c808220bd27655971eee5cfc9242b"},
        {"6", "0x7706b01f40e0a2d4f0b3dcaaa5292440a9bde3e5"},
        {"7", "0xbc6c8a20ce9727c6ea7be4e901cd07d186f30176cdd1e122c26939576e81dc9a"},
        {"8", "0x62fc6cdd69c8cd3b8e9ff865ab3f09dbff536e0c865a8d5386c02e373aaed5ef"},
    };
    struct chap_account a;

    account(&a, "u", "secret");
    for (unsigned i = 0; i < 4; i++) {
        const struct chap_algorithm *alg = chap_pick(known[i].algorithm);
        uint8_t out[CHAP_DIGEST_MAX];
        char text[2 * CHAP_DIGEST_MAX + 3];

        REQUIRE(alg);
        CHECK_EQ(chap_response(alg, 42, &a, (const uint8_t *)"abc", 3, out), 0);
        chap_encode(out, chap_digest_bytes(alg), text);
        CHECK_STR(text, known[i].response);
    }
}

TEST(chap, the_first_known_algorithm_is_taken)
{
    CHECK_EQ(chap_number(chap_pick("1,300,7,5")), 7);
    CHECK(!chap_pick(""));
    CHECK(!chap_pick("4,99999999999999999999,x,,"));
}

/* ---- the exchange --------------------------------------------------------------------------- */

struct scene {
    struct auth a;
    struct auth_login l;
    struct negotiation n;
    struct text_buf out;
    const char *why;
};

static void begin(struct scene *s, bool required, bool outgoing)
{
    struct chap_account in, own;
    struct error err = ERROR_INIT;

    memset(s, 0, sizeof(*s));
    negotiation_init(&s->n);
    text_init(&s->out, TEXT_MAX_BYTES);
    account(&in, "alice", "a secret of hers");
    account(&own, "target", "one of its own");
    CHECK_EQ(auth_set(&s->a, &in, required, outgoing ? &own : NULL, required, &err), 0);
}

static void end(struct scene *s)
{
    auth_release(&s->a);
    text_release(&s->out);
}

static enum auth_verdict step(struct scene *s)
{
    text_release(&s->out);
    return auth_step(&s->l, &s->a, &s->n, &s->out, false, &s->why);
}

static void challenge(struct scene *s)
{
    s->n.auth_offered = s->n.auth_chap = true;
    CHECK_EQ(step(s), AUTH_OK);
    CHECK(!auth_may_leave(&s->l, &s->a));
    strcpy(s->n.chap_a, "7");
    CHECK_EQ(step(s), AUTH_OK);
    CHECK(!auth_may_leave(&s->l, &s->a));
}

static void respond(struct scene *s, const char *user, const char *secret)
{
    struct chap_account a;
    uint8_t out[CHAP_DIGEST_MAX];

    account(&a, user, secret);
    chap_response(s->l.alg, s->l.id, &a, s->l.challenge, 32, out);
    strcpy(s->n.chap_n, user);
    chap_encode(out, 32, s->n.chap_r);
}

TEST(auth, the_right_secret_opens)
{
    struct scene s;

    begin(&s, true, false);
    challenge(&s);
    respond(&s, "alice", "a secret of hers");
    CHECK_EQ(step(&s), AUTH_OK);
    CHECK(auth_may_leave(&s.l, &s.a));
    end(&s);
}

TEST(auth, a_wrong_secret_or_user_does_not)
{
    static const char *const tries[][2] = {
        {"alice", "a secret of her"}, {"bob", "a secret of hers"}, {"alice", ""}};

    for (unsigned i = 0; i < 3; i++) {
        struct scene s;

        begin(&s, true, false);
        challenge(&s);
        respond(&s, tries[i][0], tries[i][1]);
        CHECK_EQ(step(&s), AUTH_REFUSED);
        CHECK(!auth_may_leave(&s.l, &s.a));
        end(&s);
    }
}

TEST(auth, without_accounts_nobody_passes_where_one_is_required)
{
    struct error err = ERROR_INIT;
    struct scene s;

    begin(&s, true, false);
    CHECK_EQ(auth_set(&s.a, NULL, 0, NULL, true, &err), 0);
    CHECK(!auth_may_leave(&s.l, &s.a));
    challenge(&s);
    respond(&s, "", "");
    strcpy(s.n.chap_n, "nobody");
    CHECK_EQ(step(&s), AUTH_REFUSED);
    end(&s);
}

TEST(auth, none_is_enough_where_nothing_is_required)
{
    struct scene s;

    begin(&s, false, false);
    CHECK(auth_may_leave(&s.l, &s.a));
    s.n.auth_offered = s.n.auth_chap = s.n.auth_none = true;
    CHECK_EQ(step(&s), AUTH_OK);
    CHECK_STR(s.out.data, "AuthMethod=None");
    CHECK(auth_may_leave(&s.l, &s.a));
    end(&s);
}

TEST(auth, none_does_not_become_enough_when_accounts_come)
{
    struct chap_account a;
    struct error err = ERROR_INIT;
    struct scene s;

    begin(&s, false, false);
    s.n.auth_offered = s.n.auth_none = true;
    CHECK_EQ(step(&s), AUTH_OK);
    account(&a, "alice", "a secret of hers");
    CHECK_EQ(auth_set(&s.a, &a, 1, NULL, true, &err), 0);
    CHECK(!auth_may_leave(&s.l, &s.a));
    end(&s);
}

TEST(auth, the_target_proves_itself_when_asked)
{
    struct chap_account own;
    uint8_t wanted[CHAP_DIGEST_MAX];
    char text[128], expected[256] = "CHAP_R=";
    struct scene s;

    begin(&s, true, true);
    challenge(&s);
    respond(&s, "alice", "a secret of hers");
    strcpy(s.n.chap_i, "9");
    strcpy(s.n.chap_c, "0x0102");
    CHECK_EQ(step(&s), AUTH_OK);
    account(&own, "target", "one of its own");
    chap_response(s.l.alg, 9, &own, (const uint8_t *)"\1\2", 2, wanted);
    chap_encode(wanted, 32, text);
    strcat(expected, text);
    CHECK_STR(s.out.data, "CHAP_N=target");
    CHECK_STR(s.out.data + strlen(s.out.data) + 1, expected);
    end(&s);
}

TEST(auth, nothing_is_proven_to_who_has_not_proven_itself)
{
    struct scene s;

    begin(&s, true, true);
    challenge(&s);
    respond(&s, "alice", "wrong");
    strcpy(s.n.chap_i, "9");
    strcpy(s.n.chap_c, "0x0102");
    CHECK_EQ(step(&s), AUTH_REFUSED);
    CHECK_EQ(s.out.len, 0);
    end(&s);
}

TEST(auth, a_reflected_challenge_is_refused)
{
    struct scene s;

    begin(&s, true, true);
    challenge(&s);
    respond(&s, "alice", "a secret of hers");
    strcpy(s.n.chap_i, "9");
    chap_encode(s.l.challenge, 32, s.n.chap_c);
    CHECK_EQ(step(&s), AUTH_REFUSED);
    CHECK_EQ(s.out.len, 0);
    end(&s);
}

TEST(auth, answers_before_the_challenge_are_refused)
{
    struct scene s;

    begin(&s, true, false);
    s.n.auth_offered = s.n.auth_chap = true;
    strcpy(s.n.chap_n, "alice");
    strcpy(s.n.chap_r, "0x00");
    CHECK_EQ(step(&s), AUTH_BAD_REQUEST);
    end(&s);
}

TEST(auth, one_secret_for_both_directions_is_refused)
{
    struct error err = ERROR_INIT;
    struct chap_account in, own;
    struct auth a = {0};

    account(&in, "alice", "the same for both");
    account(&own, "target", "the same for both");
    CHECK(auth_set(&a, &in, 1, &own, true, &err) < 0);
    CHECK(!a.accounts);
}
