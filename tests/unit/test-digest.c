/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C: the examples of RFC 3720 B.4. */
#include <string.h>

#include "target/digest.h"
#include "tests/unit/ctest.h"

static void check_wire(const void *data, size_t bytes, const char *expected)
{
    uint8_t wire[4];

    digest_put(wire, digest_of(data, bytes, 0));
    CHECK(!memcmp(wire, expected, 4));
    CHECK_EQ(digest_get(wire), digest_of(data, bytes, 0));
}

TEST(digest, zeros)
{
    uint8_t d[32] = {0};

    check_wire(d, sizeof(d), "\xaa\x36\x91\x8a");
}

TEST(digest, ones)
{
    uint8_t d[32];

    memset(d, 0xff, sizeof(d));
    check_wire(d, sizeof(d), "\x43\xab\xa8\x62");
}

TEST(digest, ascending)
{
    uint8_t d[32];

    for (int i = 0; i < 32; i++)
        d[i] = (uint8_t)i;
    check_wire(d, sizeof(d), "\x4e\x79\xdd\x46");
}

TEST(digest, descending)
{
    uint8_t d[32];

    for (int i = 0; i < 32; i++)
        d[i] = (uint8_t)(31 - i);
    check_wire(d, sizeof(d), "\x5c\xdb\x3f\x11");
}

TEST(digest, read_10_command)
{
    static const uint8_t d[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };

    check_wire(d, sizeof(d), "\x56\x3a\x96\xd9");
}

TEST(digest, pieces_give_the_same_as_the_whole)
{
    uint8_t d[100];
    uint32_t whole, state = DIGEST_BEGIN;

    for (int i = 0; i < 100; i++)
        d[i] = (uint8_t)(i * 7);
    whole = digest_of(d, sizeof(d), 0);
    for (int i = 0; i < 100; i += 10)
        state = digest_update(state, d + i, 10);
    CHECK_EQ(digest_end(state), whole);
}

TEST(digest, padding_counts_as_zeros)
{
    static const uint8_t padded[8] = {1, 2, 3, 4, 5, 0, 0, 0};

    CHECK_EQ(digest_of(padded, 5, 3), digest_of(padded, 8, 0));
}
