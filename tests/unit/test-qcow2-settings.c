/* SPDX-License-Identifier: BSD-3-Clause */
/* cowtgt's settings in an image: their bytes. */
#include <errno.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "tests/unit/ctest.h"

static const struct qcow2_settings all = {
    .set = QCOW2_SET_ALL,
    .copy_on_read = true,
    .prefetch = false,
    .prefetch_delay_s = 17,
    .max_rate = UINT64_C(0x123456789abcdef0),
    .metadata_cache = 4 << 20,
    .label = "0123456789012345678901234567890123456789012345678901234567890123",
};

TEST(qcow2_settings, come_back_as_they_were)
{
    uint8_t buf[QCOW2_SETTINGS_BYTES];
    struct qcow2_settings s;
    uint32_t len = qcow2_settings_encode(&all, buf);

    CHECK_EQ(len, QCOW2_SETTINGS_BYTES);
    REQUIRE(qcow2_settings_decode(buf, len, &s) == 0);
    CHECK_EQ(s.set, all.set);
    CHECK(s.copy_on_read && !s.prefetch);
    CHECK_EQ(s.prefetch_delay_s, 17);
    CHECK_EQ(s.max_rate, all.max_rate);
    CHECK_EQ(s.metadata_cache, all.metadata_cache);
    CHECK_STR(s.label, all.label);
}

TEST(qcow2_settings, bytes_are_those_of_the_document)
{
    static const uint8_t want[36] = {
        1, 4, 0, 0x3b, 0, 1, [11] = 17, [27] = 0x40, [32] = 'v', 'm', '-', '1'};
    struct qcow2_settings s = all;
    uint8_t buf[QCOW2_SETTINGS_BYTES];

    s.set &= ~(unsigned)QCOW2_SET_PREFETCH_DELAY;
    s.max_rate = 0;
    s.metadata_cache = UINT64_C(0x40) << 32;
    strcpy(s.label, "vm-1");
    CHECK_EQ(qcow2_settings_encode(&s, buf), 36);
    CHECK(!memcmp(buf, want, sizeof(want)));
}

TEST(qcow2_settings, a_label_that_is_not_set_takes_no_room)
{
    struct qcow2_settings s = all;
    uint8_t buf[QCOW2_SETTINGS_BYTES];

    s.set &= ~(unsigned)QCOW2_SET_LABEL;
    CHECK_EQ(qcow2_settings_encode(&s, buf), 32);
}

TEST(qcow2_settings, damaged_bytes_are_refused)
{
    uint8_t buf[QCOW2_SETTINGS_BYTES];
    struct qcow2_settings s;
    uint32_t len = qcow2_settings_encode(&all, buf);

    for (uint32_t n = 0; n < len; n++)
        CHECK(qcow2_settings_decode(buf, n, &s) == -EINVAL);
    buf[1] = QCOW2_LABEL_MAX + 1;
    CHECK_EQ(qcow2_settings_decode(buf, len, &s), -EINVAL);
    buf[0] = 2;
    CHECK_EQ(qcow2_settings_decode(buf, len, &s), -ENOTSUP);
    CHECK_EQ(s.set, 0);
}
