/* SPDX-License-Identifier: BSD-3-Clause */
/* What is UTF-8 and what is not. */
#include "tests/unit/ctest.h"

#include "util/size.h"
#include "util/utf8.h"

static const struct {
    const char *text;
    size_t len, sequence;
} cases[] = {
    {"a", 1, 1},
    {"\0", 1, 0},
    {"\xc3\xa9", 2, 2},
    {"\xe2\x82\xac", 3, 3},
    {"\xf0\x9f\x98\x80", 4, 4},
    {"\xe2\x82\xac", 2, 0},         /* cut off */
    {"\xe9t\xe9", 3, 0},            /* Latin-1 */
    {"\xa9", 1, 0},                 /* goes on with nothing before it */
    {"\xc0\xaf", 2, 0},             /* not the shortest form */
    {"\xed\xa0\x80", 3, 0},         /* a surrogate */
    {"\xf4\x90\x80\x80", 4, 0},     /* above U+10FFFF */
    {"\xf8\x88\x80\x80\x80", 5, 0}, /* five bytes */
};

TEST(utf8, sequence_is_rfc_3629s)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_EQ(utf8_sequence((const uint8_t *)cases[i].text, cases[i].len), cases[i].sequence);
}

TEST(utf8, text_is_valid_when_all_of_it_is)
{
    CHECK(utf8_is_valid(""));
    CHECK(utf8_is_valid("/srv/\xc3\xa9t\xc3\xa9.qcow2"));
    CHECK(!utf8_is_valid("/srv/\xe9t\xe9.qcow2"));
    CHECK(!utf8_is_valid("/srv/\xe2\x82"));
}
