/* SPDX-License-Identifier: BSD-3-Clause */
/* key=value text: well-formed or refused as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target/text.h"
#include "tests/unit/ctest.h"

/* Number of pairs, or the error. Works on a heap copy without a byte to spare. */
static int count(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);
    struct text_iter it = {copy, copy + len};
    const char *key, *value;
    int n = 0, rc;

    memcpy(copy, text, len);
    while ((rc = text_next(&it, &key, &value)) > 0)
        n++;
    free(copy);
    return rc ? rc : n;
}
#define COUNT(s) count(s, sizeof(s) - 1)

TEST(text, pairs_in_order)
{
    char text[] = "A=1\0Bee=two=2\0C=";
    struct text_iter it = {text, text + sizeof(text)};
    const char *key, *value;

    REQUIRE(text_next(&it, &key, &value) == 1);
    CHECK_STR(key, "A");
    CHECK_STR(value, "1");
    REQUIRE(text_next(&it, &key, &value) == 1);
    CHECK_STR(key, "Bee");
    CHECK_STR(value, "two=2");
    REQUIRE(text_next(&it, &key, &value) == 1);
    CHECK_STR(key, "C");
    CHECK_STR(value, "");
    CHECK_EQ(text_next(&it, &key, &value), 0);
}

TEST(text, empty_and_padded)
{
    CHECK_EQ(COUNT(""), 0);
    CHECK_EQ(COUNT("\0\0\0"), 0);
    CHECK_EQ(COUNT("\0A=1\0\0\0"), 1);
}

TEST(text, unterminated_is_refused)
{
    CHECK_EQ(COUNT("A=1"), -EINVAL);
    CHECK_EQ(COUNT("A=1\0B"), -EINVAL);
}

TEST(text, without_key_or_equals_sign_is_refused)
{
    CHECK_EQ(COUNT("A\0"), -EINVAL);
    CHECK_EQ(COUNT("=1\0"), -EINVAL);
    CHECK_EQ(COUNT("A b=1\0"), -EINVAL);
    CHECK_EQ(COUNT("A\x80=1\0"), -EINVAL);
}

TEST(text, lengths_are_bounded)
{
    char text[TEXT_KEY_MAX + TEXT_VALUE_MAX + 4];

    memset(text, 'x', sizeof(text));
    text[TEXT_KEY_MAX] = '=';
    text[TEXT_KEY_MAX + 1 + TEXT_VALUE_MAX] = 0;
    CHECK_EQ(count(text, TEXT_KEY_MAX + TEXT_VALUE_MAX + 2), 1);
    text[TEXT_KEY_MAX + 1 + TEXT_VALUE_MAX] = 'x';
    text[TEXT_KEY_MAX + 2 + TEXT_VALUE_MAX] = 0;
    CHECK_EQ(count(text, TEXT_KEY_MAX + TEXT_VALUE_MAX + 3), -EINVAL);
    text[TEXT_KEY_MAX + 9] = ','; /* a list of shorter ones */
    CHECK_EQ(count(text, TEXT_KEY_MAX + TEXT_VALUE_MAX + 3), 1);
    memset(text, 'x', sizeof(text));
    text[TEXT_KEY_MAX + 1] = '=';
    text[TEXT_KEY_MAX + 2] = 0;
    CHECK_EQ(count(text, TEXT_KEY_MAX + 3), -EINVAL);
}

TEST(text, numbers)
{
    uint32_t v = 0;

    CHECK(text_number("0", &v) && v == 0);
    CHECK(text_number("262144", &v) && v == 262144);
    CHECK(text_number("0x40000", &v) && v == 262144);
    CHECK(text_number("0Xff", &v) && v == 255);
    CHECK(text_number("4294967295", &v) && v == UINT32_MAX);
    CHECK(!text_number("4294967296", &v));
    CHECK(!text_number("99999999999999999999999", &v));
    CHECK(!text_number("", &v) && !text_number("0x", &v) && !text_number("-1", &v));
    CHECK(!text_number(" 1", &v) && !text_number("1 ", &v) && !text_number("1k", &v));
}

TEST(text, booleans)
{
    bool b = false;

    CHECK(text_bool("Yes", &b) && b);
    CHECK(text_bool("No", &b) && !b);
    CHECK(!text_bool("yes", &b) && !text_bool("", &b) && !text_bool("1", &b));
}

TEST(text, list_elements_are_whole_words)
{
    CHECK(text_list_has("CHAP,None", "None"));
    CHECK(text_list_has("None", "None"));
    CHECK(!text_list_has("NoneSuch,CHAP", "None"));
    CHECK(!text_list_has("", "None"));
    CHECK(!text_list_has("CHAP,", "None"));
}

TEST(text, building_stops_at_its_bound)
{
    struct text_buf b;

    text_init(&b, 16);
    text_add(&b, "Key", "Value");
    CHECK_EQ(b.len, 10);
    CHECK(b.data && !memcmp(b.data, "Key=Value", 10));
    CHECK(!b.failed);
    text_add_number(&b, "Number", 12345);
    CHECK(b.failed);
    CHECK(b.len <= 16);
    text_release(&b);
    CHECK(!b.failed && !b.data && b.max_bytes == 16);
}
