/* SPDX-License-Identifier: BSD-3-Clause */
/* What a target says of its blocks and of itself: GET LBA STATUS answers, designators. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/remote-int.h"
#include "util/byteorder.h"

#define CAPACITY 1000

struct desc {
    uint64_t lba;
    uint32_t blocks;
    uint8_t status;
};

static size_t encode(uint8_t *buf, const struct desc *d, unsigned n)
{
    memset(buf, 0, 8);
    put_be32(buf, 4 + 16 * n);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = buf + 8 + (size_t)16 * i;

        memset(p, 0, 16);
        put_be64(p, d[i].lba);
        put_be32(p + 8, d[i].blocks);
        p[12] = d[i].status;
    }
    return 8 + (size_t)16 * n;
}

TEST(lba_status, states_and_bytes)
{
    static const struct desc d[] = {{10, 5, 0}, {15, 1, 1}, {16, 984, 2}};
    uint8_t buf[64];
    struct blk_extent ext[4];

    REQUIRE(remote_lba_status_decode(buf, encode(buf, d, 3), 10, CAPACITY, 4096, ext, 4) == 3);
    CHECK_EQ(ext[0].offset_bytes, 10 * 4096);
    CHECK_EQ(ext[0].length_bytes, 5 * 4096);
    CHECK_EQ(ext[0].state, BLK_ST_DATA);
    CHECK_EQ(ext[1].state, BLK_ST_ZERO);
    CHECK_EQ(ext[2].state, BLK_ST_ZERO);
    CHECK_EQ(ext[2].offset_bytes + ext[2].length_bytes, CAPACITY * 4096);
}

TEST(lba_status, an_unknown_status_is_data)
{
    static const struct desc d[] = {{0, 5, 7}};
    uint8_t buf[32];
    struct blk_extent ext[4];

    REQUIRE(remote_lba_status_decode(buf, encode(buf, d, 1), 0, CAPACITY, 512, ext, 4) == 1);
    CHECK_EQ(ext[0].state, BLK_ST_DATA);
}

TEST(lba_status, hostile_answers_are_refused)
{
    static const struct desc bad[][2] = {
        {{9, 5, 0}, {14, 1, 0}},          /* starts elsewhere */
        {{10, 0, 0}, {10, 1, 0}},         /* empty */
        {{10, 991, 1}, {1001, 1, 0}},     /* past the end */
        {{10, 0xffffffff, 1}, {9, 1, 0}}, /* far past it */
        {{10, 5, 1}, {16, 1, 0}},         /* a gap */
        {{10, 5, 1}, {14, 1, 0}},         /* an overlap */
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t buf[64];
        struct blk_extent ext[4];

        CHECK_EQ(remote_lba_status_decode(buf, encode(buf, bad[i], 2), 10, CAPACITY, 512, ext, 4),
                 -EINVAL);
    }
}

TEST(lba_status, truncation_never_reads_past_the_end)
{
    static const struct desc d[] = {{10, 5, 0}, {15, 1, 1}};
    uint8_t buf[64];
    struct blk_extent ext[4];
    size_t len = encode(buf, d, 2);

    for (size_t n = 0; n <= len; n++) {
        uint8_t *copy = malloc(n ? n : 1);

        memcpy(copy, buf, n);
        CHECK_EQ(remote_lba_status_decode(copy, n, 10, CAPACITY, 512, ext, 4),
                 n < 8 ? -EINVAL : (int)((n - 8) / 16));
        free(copy);
    }
}

TEST(clip, to_the_range_asked_for_and_joined)
{
    struct blk_extent ext[] = {
        {0, 1000, BLK_ST_DATA, 0, false},    {1000, 1000, BLK_ST_DATA, 0, false},
        {2000, 1000, BLK_ST_ZERO, 1, false}, {3000, 1000, BLK_ST_ZERO, 2, false},
        {4000, 1000, BLK_ST_DATA, 0, false},
    };

    REQUIRE(remote_clip_extents(ext, 5, 500, 3000) == 3);
    CHECK_EQ(ext[0].offset_bytes, 500);
    CHECK_EQ(ext[0].length_bytes, 1500);
    CHECK_EQ(ext[1].length_bytes, 1000);
    CHECK_EQ(ext[2].offset_bytes, 3000);
    CHECK_EQ(ext[2].length_bytes, 500);
}

static size_t add_designator(uint8_t *page, size_t pos, uint8_t code_set, uint8_t assoc_type,
                             const char *id, uint8_t len)
{
    page[pos] = code_set;
    page[pos + 1] = assoc_type;
    page[pos + 2] = 0;
    page[pos + 3] = len;
    memcpy(page + pos + 4, id, len);
    return pos + 4 + len;
}

TEST(designator, naa_of_the_unit_is_preferred)
{
    uint8_t page[128] = {0, 0x83}, id[16];
    size_t len = add_designator(page, 4, 2, 0x01, "VENDOR  serial", 14);

    len = add_designator(page, len, 1, 0x93, "\x50PORTNAA", 8); /* of the target port */
    len = add_designator(page, len, 1, 0x03, "\x60UNITNAA", 8);
    REQUIRE(lun_designator(page, len, id));
    CHECK(!memcmp(id, "\x60UNITNAA\0\0\0\0\0\0\0", 16));
}

TEST(designator, long_ones_are_folded_and_differ)
{
    uint8_t page[128] = {0, 0x83}, a[16], b[16];
    size_t len = add_designator(page, 4, 2, 0x01, "VENDOR  a long serial number 1", 30);

    REQUIRE(lun_designator(page, len, a));
    page[len - 1] = '2';
    REQUIRE(lun_designator(page, len, b));
    CHECK(memcmp(a, b, 16));
}

TEST(designator, none_in_truncated_or_empty_pages)
{
    uint8_t page[64] = {0, 0x83}, id[16];
    size_t len = add_designator(page, 4, 1, 0x03, "\x60UNITNAA", 8);

    for (size_t n = 0; n < len; n++) {
        uint8_t *copy = malloc(n ? n : 1);

        memcpy(copy, page, n);
        CHECK(!lun_designator(copy, n, id));
        free(copy);
    }
}
