/* SPDX-License-Identifier: BSD-3-Clause */
/* Byte positions inside iovecs: pieces, ends, empty entries. */
#include <errno.h>
#include <string.h>

#include "lun-backends/block.h"
#include "tests/unit/ctest.h"

static char a[4], b[1], c[5];
static struct iovec three[4];

static void fill(void)
{
    memcpy(a, "abcd", 4);
    memcpy(b, "e", 1);
    memcpy(c, "fghij", 5);
    three[0] = (struct iovec){a, 4};
    three[1] = (struct iovec){NULL, 0};
    three[2] = (struct iovec){b, 1};
    three[3] = (struct iovec){c, 5};
}

TEST(iov, bytes_sums_all_entries)
{
    fill();
    CHECK_EQ(iov_bytes(three, 4), 10);
    CHECK_EQ(iov_bytes(three, 0), 0);
}

TEST(iov, to_buf_reads_every_range)
{
    char out[11];

    fill();
    for (size_t from = 0; from <= 10; from++) {
        for (size_t n = 0; from + n <= 10; n++) {
            memset(out, '.', sizeof(out));
            iov_to_buf(three, 4, from, out, n);
            CHECK_EQ(memcmp(out, &"abcdefghij"[from], n), 0);
            CHECK_EQ(out[n], '.');
        }
    }
}

TEST(iov, from_buf_writes_every_range_and_nothing_else)
{
    for (size_t from = 0; from <= 10; from++) {
        for (size_t n = 0; from + n <= 10; n++) {
            char want[10], got[10];

            fill();
            memcpy(want, "abcdefghij", 10);
            memcpy(want + from, "0123456789", n);
            iov_from_buf(three, 4, from, "0123456789", n);
            iov_to_buf(three, 4, 0, got, 10);
            CHECK_EQ(memcmp(want, got, 10), 0);
        }
    }
}

TEST(iov, positions_past_the_end_touch_nothing)
{
    char got[10];

    fill();
    iov_zero(three, 4, 10, 5);
    iov_from_buf(three, 4, 12, "xxxx", 4);
    iov_to_buf(three, 4, 0, got, 10);
    CHECK_EQ(memcmp(got, "abcdefghij", 10), 0);
}

TEST(iov, zero_clears_a_range)
{
    char got[10];

    fill();
    iov_zero(three, 4, 3, 3);
    iov_to_buf(three, 4, 0, got, 10);
    CHECK_EQ(memcmp(got, "abc\0\0\0ghij", 10), 0);
}

TEST(iov, slice_cuts_without_empty_entries)
{
    struct iovec out[4];

    fill();
    CHECK_EQ(iov_slice(three, 4, 2, 5, out, 4), 3);
    CHECK(out[0].iov_base == a + 2 && out[0].iov_len == 2);
    CHECK(out[1].iov_base == b && out[1].iov_len == 1);
    CHECK(out[2].iov_base == c && out[2].iov_len == 2);
}

TEST(iov, slice_says_when_there_is_no_room)
{
    struct iovec out[2];

    fill();
    CHECK_EQ(iov_slice(three, 4, 2, 5, out, 2), -E2BIG);
    CHECK_EQ(iov_slice(three, 4, 4, 6, out, 2), 2);
}

TEST(iov, is_zero_finds_any_byte)
{
    char buf[100] = {0};
    struct iovec two[2] = {{buf, 37}, {buf + 37, 63}};

    CHECK(buf_is_zero(buf, 0));
    CHECK(iov_is_zero(two, 2));
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] = 1;
        CHECK(!buf_is_zero(buf, sizeof(buf)));
        CHECK(buf_is_zero(buf, i));
        CHECK(!iov_is_zero(two, 2));
        buf[i] = 0;
    }
}
