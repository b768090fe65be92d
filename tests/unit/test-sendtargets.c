/* SPDX-License-Identifier: BSD-3-Clause */
/* The answer to SendTargets, byte for byte. */
#include <stdlib.h>
#include <string.h>

#include "discovery/sendtargets.h"
#include "tests/unit/ctest.h"

static const uint64_t seven[] = {6, 7}, one_group[] = {1}, nowhere[] = {9};
static const struct sendtargets_portal portals[] = {
    {"192.0.2.1:3260", 1},
    {"disk.example.com:3261", 7},
    {"[2001:db8::1]:860", 1},
};
static const struct sendtargets_entry entries[] = {
    {"iqn.2026-11.com.example:a", one_group, 1},
    {"iqn.2026-11.com.example:b", seven, 2},
    {"iqn.2026-11.com.example:c", nowhere, 1},
};

static void check_answer(const char *which, const char *expected, size_t expected_len)
{
    char *text = NULL;
    size_t len = 0;

    CHECK_EQ(sendtargets_format(entries, 3, portals, 3, which, &text, &len), 0);
    CHECK_EQ(len, expected_len);
    CHECK(len == expected_len && (!len || !memcmp(text, expected, len)));
    free(text);
}

static const char answer_a[] = "TargetName=iqn.2026-11.com.example:a\0"
                               "TargetAddress=192.0.2.1:3260,1\0"
                               "TargetAddress=[2001:db8::1]:860,1";
static const char answer_b[] = "TargetName=iqn.2026-11.com.example:b\0"
                               "TargetAddress=disk.example.com:3261,7";

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

TEST(sendtargets, bound_to_no_group_means_all)
{
    static const struct sendtargets_entry free_one = {"iqn.2026-11.com.example:f", NULL, 0};
    static const char expected[] = "TargetName=iqn.2026-11.com.example:f\0"
                                   "TargetAddress=192.0.2.1:3260,1\0"
                                   "TargetAddress=disk.example.com:3261,7\0"
                                   "TargetAddress=[2001:db8::1]:860,1";
    char *text = NULL;
    size_t len = 0;

    CHECK_EQ(sendtargets_format(&free_one, 1, portals, 3, NULL, &text, &len), 0);
    CHECK_EQ(len, sizeof(expected));
    CHECK(len == sizeof(expected) && !memcmp(text, expected, len));
    free(text);
}

TEST(sendtargets, no_portal_of_its_groups_is_left_out)
{
    check_answer("iqn.2026-11.com.example:c", "", 0);
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

    CHECK_EQ(sendtargets_format(entries + 1, 1, portals, 3, NULL, &text, &len), 0);
    CHECK_EQ(len, 1 + sizeof(answer_b));
    CHECK(text[0] == 'x' && !memcmp(text + 1, answer_b, sizeof(answer_b)));
    free(text);
}
