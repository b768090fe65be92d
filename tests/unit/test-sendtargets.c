/* SPDX-License-Identifier: BSD-3-Clause */
/* The answer to SendTargets, byte for byte. */
#include <stdlib.h>
#include <string.h>

#include "discovery/sendtargets.h"
#include "tests/unit/ctest.h"

static const char *const two[] = {"192.0.2.1:3260", "[2001:db8::1]:860"};
static const char *const one[] = {"127.0.0.1:3261"};
static const struct sendtargets_entry entries[] = {
    {"iqn.2026-11.com.example:a", two, 2, 1},
    {"iqn.2026-11.com.example:b", one, 1, 7},
};

static void check_answer(const char *which, const char *expected, size_t expected_len)
{
    char *text = NULL;
    size_t len = 0;

    CHECK_EQ(sendtargets_format(entries, 2, which, &text, &len), 0);
    CHECK_EQ(len, expected_len);
    CHECK(len == expected_len && (!len || !memcmp(text, expected, len)));
    free(text);
}

static const char answer_a[] = "TargetName=iqn.2026-11.com.example:a\0"
                               "TargetAddress=192.0.2.1:3260,1\0"
                               "TargetAddress=[2001:db8::1]:860,1";
static const char answer_b[] = "TargetName=iqn.2026-11.com.example:b\0"
                               "TargetAddress=127.0.0.1:3261,7";

TEST(sendtargets, all)
{
    char both[sizeof(answer_a) + sizeof(answer_b)];

    memcpy(both, answer_a, sizeof(answer_a));
    memcpy(both + sizeof(answer_a), answer_b, sizeof(answer_b));
    check_answer("All", both, sizeof(both));
    check_answer(NULL, both, sizeof(both));
}

TEST(sendtargets, one_by_name)
{
    check_answer("iqn.2026-11.com.example:b", answer_b, sizeof(answer_b));
}

TEST(sendtargets, unknown_name_gives_nothing)
{
    check_answer("iqn.2026-11.com.example:none", "", 0);
    check_answer("iqn.2026-11.com.example:", "", 0);
}

TEST(sendtargets, appends)
{
    char *text = strdup("x");
    size_t len = 1;

    CHECK_EQ(sendtargets_format(entries + 1, 1, NULL, &text, &len), 0);
    CHECK_EQ(len, 1 + sizeof(answer_b));
    CHECK(text[0] == 'x' && !memcmp(text + 1, answer_b, sizeof(answer_b)));
    free(text);
}
