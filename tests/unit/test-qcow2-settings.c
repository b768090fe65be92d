/* SPDX-License-Identifier: BSD-3-Clause */
/* cowtgt's settings in an image: their bytes. */
#include <errno.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "tests/unit/ctest.h"
#include "util/size.h"

static const struct qcow2_settings all = {
    .set = QCOW2_SET_ALL,
    .copy_on_read = true,
    .prefetch = false,
    .prefetch_delay_s = 17,
    .prefetch_grace_s = 18,
    .max_rate = UINT64_C(0x123456789abcdef0),
    .prefetch_mode = PREFETCH_IDLE,
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
    CHECK_EQ(s.prefetch_grace_s, 18);
    CHECK_EQ(s.max_rate, all.max_rate);
    CHECK_EQ(s.metadata_cache, all.metadata_cache);
    CHECK(s.prefetch_mode == PREFETCH_IDLE);
    CHECK_STR(s.label, all.label);
}

TEST(qcow2_settings, bytes_are_those_of_the_document)
{
    static const uint8_t want[36] = {
        1, 4, 0, 0xfb, 0, 1, [6] = 1, [11] = 17, [15] = 18, [27] = 0x40, [32] = 'v', 'm', '-', '1'};
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

TEST(qcow2_settings, a_mode_of_a_later_version_is_none)
{
    uint8_t buf[QCOW2_SETTINGS_BYTES];
    struct qcow2_settings s;
    uint32_t len = qcow2_settings_encode(&all, buf);

    buf[6] = PREFETCH_NR_MODES;
    REQUIRE(qcow2_settings_decode(buf, len, &s) == 0);
    CHECK_EQ(s.set, all.set & ~(unsigned)QCOW2_SET_PREFETCH_MODE);
}

TEST(image_settings, words_are_taken_and_taken_away)
{
    struct qcow2_settings s = {0};
    struct error err = ERROR_INIT;

    CHECK_EQ(image_setting_take(&s, "copy-on-read=off", &err), 0);
    CHECK_EQ(image_setting_take(&s, "max-rate=2M", &err), 0);
    CHECK_EQ(image_setting_take(&s, "prefetch-mode=fixed", &err), 0);
    CHECK_EQ(s.set, QCOW2_SET_COPY_ON_READ | QCOW2_SET_MAX_RATE | QCOW2_SET_PREFETCH_MODE);
    CHECK(!s.copy_on_read && s.prefetch_mode == PREFETCH_FIXED);
    CHECK_EQ(s.max_rate, 2 << 20);
    CHECK_EQ(image_setting_take(&s, "max-rate=", &err), 0);
    CHECK_EQ(s.set, QCOW2_SET_COPY_ON_READ | QCOW2_SET_PREFETCH_MODE);
}

TEST(image_settings, bad_words_are_refused_by_name)
{
    static const char *const bad[] = {
        "prefetch=maybe",      "prefetch-delay=86401", "prefetch-delay=-1",
        "prefetch-grace=2s",   "max-rate=much",        "metadata-cache=1k",
        "prefetch-mode=never", "colour=red",           "prefetch",
    };
    struct qcow2_settings s = {0};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct error err = ERROR_INIT;

        CHECK_EQ(image_setting_take(&s, bad[i], &err), -EINVAL);
        CHECK(*err.msg);
    }
}
