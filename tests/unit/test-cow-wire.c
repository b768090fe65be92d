/* SPDX-License-Identifier: BSD-3-Clause */
/* The COW layer extension's codec: what is encoded comes back, what contradicts itself does not. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/cow-wire.h"
#include "util/size.h"

static struct cowl_page sample_page(void)
{
    struct cowl_page pg = {
        .flags = COWL_READ_ONLY | COWL_SEALED,
        .layer_index = 2,
        .nr_layers = 3,
        .view = COWL_VIEW_DELTA,
        .parent_lun = {0x41, 0x02},
        .granularity_blocks = 128,
        .generation = 0xfffffffe,
        .name = "sn2 \xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x84",
    };

    memset(pg.chain_uuid.b, 0x11, 16);
    memset(pg.layer_uuid.b, 0x22, 16);
    memset(pg.parent_uuid.b, 0x33, 16);
    return pg;
}

/* Decodes from a buffer of exactly @len bytes, so that a sanitizer sees a read behind it. */
static int decode_page(const uint8_t *buf, size_t len, struct cowl_page *pg)
{
    uint8_t *copy = malloc(len ? len : 1);

    memcpy(copy, buf, len);
    int ret = cowl_page_decode(copy, len, pg);

    free(copy);
    return ret;
}

TEST(cow_page, round_trip)
{
    struct cowl_page in = sample_page(), out;
    uint8_t buf[COWL_VPD_MAX_BYTES];
    size_t len = cowl_page_encode(&in, 0, buf);

    CHECK_EQ(len, 82 + strlen(in.name));
    CHECK_EQ(get_be16(buf + 2), len - 4);
    REQUIRE(decode_page(buf, len, &out) == 0);
    CHECK(!memcmp(&in, &out, sizeof(in)));
}

TEST(cow_page, layout_is_the_specified_one)
{
    struct cowl_page pg = sample_page();
    uint8_t buf[COWL_VPD_MAX_BYTES];

    cowl_page_encode(&pg, 0x1f, buf);
    CHECK_EQ(buf[0], 0x1f);
    CHECK_EQ(buf[1], 0xd5);
    CHECK(!memcmp(buf + 4, "COWL\x01\x11", 6));
    CHECK_EQ(get_be16(buf + 10), 2);
    CHECK_EQ(get_be16(buf + 12), 3);
    CHECK_EQ(buf[14], 1);
    CHECK_EQ(buf[16], 0x11);
    CHECK_EQ(buf[32], 0x22);
    CHECK_EQ(buf[48], 0x33);
    CHECK_EQ(buf[64], 0x41);
    CHECK_EQ(get_be32(buf + 72), 128);
    CHECK_EQ(get_be32(buf + 76), 0xfffffffeu);
    CHECK(!memcmp(buf + 82, "sn2 ", 4));
}

TEST(cow_page, longest_name)
{
    struct cowl_page in = sample_page(), out;
    uint8_t buf[COWL_VPD_MAX_BYTES];

    memset(in.name, 'n', COWL_NAME_MAX);
    in.name[COWL_NAME_MAX] = '\0';
    size_t len = cowl_page_encode(&in, 0, buf);

    CHECK_EQ(len, COWL_VPD_MAX_BYTES);
    REQUIRE(decode_page(buf, len, &out) == 0);
    CHECK_STR(out.name, in.name);
}

TEST(cow_page, every_truncation_is_refused)
{
    struct cowl_page in = sample_page(), out;
    uint8_t buf[COWL_VPD_MAX_BYTES];
    size_t len = cowl_page_encode(&in, 0, buf);

    for (size_t n = 0; n < len; n++)
        CHECK_EQ(decode_page(buf, n, &out), -EINVAL);
}

TEST(cow_page, trailing_bytes_are_ignored)
{
    struct cowl_page in = sample_page(), out;
    uint8_t buf[1024];

    memset(buf, 0xee, sizeof(buf));
    cowl_page_encode(&in, 0, buf);
    REQUIRE(decode_page(buf, sizeof(buf), &out) == 0);
    CHECK_STR(out.name, in.name);
}

TEST(cow_page, wrong_fixed_fields_are_refused)
{
    static const struct {
        unsigned offset;
        uint8_t value;
    } wrong[] = {{1, 0x83}, {4, 'X'}, {7, 0}, {8, 0}, {8, 2}, {14, 3}, {80, 1}, {2, 0xff}};
    struct cowl_page in = sample_page(), out;

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        uint8_t buf[COWL_VPD_MAX_BYTES];
        size_t len = cowl_page_encode(&in, 0, buf);

        buf[wrong[i].offset] = wrong[i].value;
        CHECK_EQ(decode_page(buf, len, &out), -EINVAL);
    }
}

TEST(cow_page, name_comes_out_as_utf8_without_nul)
{
    static const struct {
        const char *wire;
        size_t len;
        const char *text;
    } names[] = {
        {"a\0b", 3, "a?b"},
        {"\xc3", 1, "?"},
        {"\xc0\xaf", 2, "??"},
        {"\xed\xa0\x80", 3, "???"},
        {"\xff\xfex", 3, "??x"},
        {"\xf4\x90\x80\x80", 4, "????"},
        {"\xe2\x82\xac", 3, "\xe2\x82\xac"},
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct cowl_page in = sample_page(), out;
        uint8_t buf[COWL_VPD_MAX_BYTES];

        in.name[0] = '\0';
        cowl_page_encode(&in, 0, buf);
        memcpy(buf + 82, names[i].wire, names[i].len);
        put_be16(buf + 80, (uint16_t)names[i].len);
        put_be16(buf + 2, (uint16_t)(78 + names[i].len));
        REQUIRE(decode_page(buf, 82 + names[i].len, &out) == 0);
        CHECK_STR(out.name, names[i].text);
    }
}

/* ---- GET LAYER STATUS ---- */

static const struct cowl_extent sample[] = {
    {100, 28, COWL_DATA, 0},
    {128, 0xffffff00, COWL_UNDECIDED, COWL_NO_DEPTH},
    {128 + 0xffffff00ull, 1, COWL_ZERO, 3},
    {129 + 0xffffff00ull, 7, COWL_COMPRESSED, 1},
};
#define CAPACITY (136 + 0xffffff00ull)

static int decode_status(const uint8_t *buf, size_t len, uint64_t lba, struct cowl_extent *ext,
                         unsigned max, uint64_t *next)
{
    uint8_t *copy = malloc(len ? len : 1);
    uint32_t generation;

    memcpy(copy, buf, len);
    int ret = cowl_status_decode(copy, len, lba, CAPACITY, &generation, next, ext, max);

    free(copy);
    return ret;
}

TEST(layer_status, round_trip)
{
    uint8_t buf[16 + 16 * 4];
    struct cowl_extent out[8];
    uint32_t generation = 0;
    uint64_t next = 0;
    size_t len = cowl_status_encode(buf, 77, CAPACITY, sample, 4);

    CHECK_EQ(len, sizeof(buf));
    CHECK_EQ(get_be32(buf), len - 4);
    REQUIRE(cowl_status_decode(buf, len, 100, CAPACITY, &generation, &next, out, 8) == 4);
    CHECK_EQ(generation, 77);
    CHECK_EQ(next, CAPACITY);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(out[i].lba, sample[i].lba);
        CHECK_EQ(out[i].blocks, sample[i].blocks);
        CHECK_EQ(out[i].state, sample[i].state);
        CHECK_EQ(out[i].depth, sample[i].depth);
    }
}

TEST(layer_status, a_truncated_answer_gives_its_whole_descriptors)
{
    uint8_t buf[16 + 16 * 4];
    struct cowl_extent out[8];
    uint64_t next;

    cowl_status_encode(buf, 1, CAPACITY, sample, 4);
    for (size_t len = 0; len < sizeof(buf); len++) {
        int want = len < 16 ? -EINVAL : (int)((len - 16) / 16);

        CHECK_EQ(decode_status(buf, len, 100, out, 8, &next), want);
        if (want > 0)
            CHECK_EQ(next, sample[want - 1].lba + sample[want - 1].blocks);
    }
}

TEST(layer_status, stores_no_more_than_asked)
{
    uint8_t buf[16 + 16 * 4];
    struct cowl_extent out[2];
    uint64_t next;

    cowl_status_encode(buf, 1, CAPACITY, sample, 4);
    CHECK_EQ(decode_status(buf, sizeof(buf), 100, out, 2, &next), 2);
    CHECK_EQ(next, sample[2].lba);
}

TEST(layer_status, hostile_descriptors_are_refused)
{
    static const struct cowl_extent bad[] = {
        {101, 28, COWL_DATA, 0}, /* not where it was asked */
        {99, 28, COWL_DATA, 0},
        {100, 0, COWL_DATA, 0},              /* empty */
        {100, 28, 4, 0},                     /* no such state */
        {100, 28, COWL_DATA, COWL_NO_DEPTH}, /* data of no layer */
        {100, 28, COWL_UNDECIDED, 0},        /* undecided by a layer */
    };
    struct cowl_extent out[8];
    uint64_t next;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t buf[32];
        size_t len = cowl_status_encode(buf, 1, CAPACITY, &bad[i], 1);

        CHECK_EQ(decode_status(buf, len, 100, out, 8, &next), -EINVAL);
    }
}

TEST(layer_status, nothing_goes_past_the_capacity)
{
    struct cowl_extent e = {CAPACITY - 5, 6, COWL_DATA, 0}, out[2];
    uint8_t buf[48];
    uint64_t next;
    size_t len = cowl_status_encode(buf, 1, CAPACITY + 1, &e, 1);

    CHECK_EQ(decode_status(buf, len, CAPACITY - 5, out, 2, &next), -EINVAL);
    e.blocks = 5;
    len = cowl_status_encode(buf, 1, CAPACITY, &e, 1);
    CHECK_EQ(decode_status(buf, len, CAPACITY - 5, out, 2, &next), 1);
    CHECK_EQ(decode_status(buf, len, CAPACITY, out, 2, &next), -EINVAL);
    CHECK_EQ(decode_status(buf, len, UINT64_MAX, out, 2, &next), -EINVAL);

    /* One more behind the end. */
    struct cowl_extent two[2] = {e, {CAPACITY, 1, COWL_ZERO, 0}};

    len = cowl_status_encode(buf, 1, CAPACITY, two, 2);
    CHECK_EQ(decode_status(buf, len, CAPACITY - 5, out, 2, &next), -EINVAL);
}

TEST(layer_status, next_lba_has_to_fit)
{
    uint8_t buf[32];
    struct cowl_extent out[2];
    uint64_t next;
    size_t len = cowl_status_encode(buf, 1, 127, sample, 1);

    CHECK_EQ(decode_status(buf, len, 100, out, 2, &next), -EINVAL);
    len = cowl_status_encode(buf, 1, CAPACITY + 1, sample, 1);
    CHECK_EQ(decode_status(buf, len, 100, out, 2, &next), -EINVAL);
}

TEST(layer_status, wild_lengths_and_random_bytes_never_read_past_the_end)
{
    struct cowl_extent out[16];
    uint64_t next;
    uint32_t seed = 12345;

    for (int round = 0; round < 20000; round++) {
        uint8_t buf[16 + 16 * 4];
        size_t len = cowl_status_encode(buf, 1, CAPACITY, sample, 4);

        for (int k = 0; k < 3; k++) {
            seed = seed * 1664525 + 1013904223;
            buf[seed >> 8 & 63] = (uint8_t)(seed >> 24);
        }
        seed = seed * 1664525 + 1013904223;
        len = seed % (len + 1);
        int n = decode_status(buf, len, 100, out, 16, &next);

        CHECK(n == -EINVAL || (n >= 0 && n <= 4));
        for (int i = 0; i < n; i++)
            CHECK(out[i].blocks && out[i].lba + out[i].blocks <= CAPACITY);
    }
}

TEST(layer_status, cdb)
{
    uint8_t cdb[16];

    cowl_status_cdb(cdb, 0x0102030405060708ull, 0x10000, 9);
    CHECK(!memcmp(cdb, "\xc5\0\1\2\3\4\5\6\7\x08\0\1\0\0\x09\0", 16));
}
