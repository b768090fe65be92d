/* SPDX-License-Identifier: BSD-3-Clause */
/* LUN masks: their text, whose is whose, and what a nexus sees and is told. */
#include <string.h>
#include "target/mask.h"
#include "target/nexus.h"
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"

#define NAME "iqn.2026-11.com.example:a"

static bool shows(const char *luns, uint16_t lun)
{
    struct error err = ERROR_INIT;
    struct lun_mask *m = mask_parse(NAME, luns, &err);
    bool shown = m && mask_shows(m, lun);

    mask_free(m);
    return shown;
}

static bool valid(const char *initiator, const char *luns)
{
    struct error err = ERROR_INIT;

    return !target_check_mask(initiator, luns, &err);
}

TEST(mask, lists_are_numbers_and_ranges)
{
    CHECK(shows("0", 0));
    CHECK(!shows("0", 1));
    CHECK(shows("0,2-4", 4));
    CHECK(!shows("0,2-4", 1));
    CHECK(!shows("0,2-4", 5));
    CHECK(shows("all", TARGET_MAX_LUN));
    CHECK(valid(NAME, "none"));
    CHECK(!shows("none", 0));
}

TEST(mask, what_is_no_list_is_refused)
{
    static const char *const bad[] = {"",     ",",           "1,",   "4-2",   "-",
                                      "1-",   "-1",          "0x1",  "16384", "1 2",
                                      "NONE", "99999999999", "1--2", "all,1", "1-2-3"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(!valid(NAME, bad[i]));
    CHECK(!valid("nobody", "0"));
    CHECK(!valid("", "0"));
    CHECK(valid("*", "0"));
}

TEST(mask, a_list_without_end_is_refused)
{
    char text[4 * MASK_MAX_RANGES + 8] = "0";

    for (int i = 0; i < MASK_MAX_RANGES - 1; i++)
        strcat(text, ",1");
    CHECK(valid(NAME, text));
    strcat(text, ",1");
    CHECK(!valid(NAME, text));
}

TEST(mask, ones_own_goes_before_anybodys)
{
    struct error err = ERROR_INIT;
    struct lun_mask *own = mask_parse(NAME, "3", &err), *any = mask_parse("*", "0", &err);

    own->next = any;
    CHECK(mask_find(own, "IQN.2026-11.com.example:A") == own);
    CHECK(mask_find(own, "iqn.2026-11.com.example:b") == any);
    CHECK(mask_find(NULL, NAME) == NULL);
    CHECK(mask_shows(NULL, 7));
    mask_free_all(own);
}

static void inquire_none(struct fake *f, bool there)
{
    uint8_t data[96] = {0};

    CHECK_EQ(fake_exec(f, CDB(0x12, 0, 0, 0, 96, 0), data, sizeof(data), false), 0);
    CHECK_EQ(data[0], there ? 0x00 : 0x7f);
}

TEST(mask, a_lun_out_of_it_is_not_there)
{
    struct error err = ERROR_INIT;
    uint8_t data[64] = {0};
    struct fake f;

    fake_setup(&f, 1 << 20, true);
    CHECK_EQ(target_set_mask(&f.target, f.nexus.initiator, "1-3", &err), 0);
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), SENSE(5, 0x25, 0));
    inquire_none(&f, false);
    CHECK_EQ(fake_exec(&f, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false), 0);
    CHECK_EQ(data[3], 0); /* no LUN in the list */
    CHECK_EQ(target_set_mask(&f.target, f.nexus.initiator, NULL, &err), 0);
    inquire_none(&f, true);
    mask_free_all(f.target.masks);
    fake_teardown(&f);
}

TEST(mask, a_change_is_told_and_ends_what_the_nexus_held)
{
    static const uint8_t isid[6] = {9};
    struct error err = ERROR_INIT;
    struct nexus other;
    enum ua_kind ua;
    struct fake f;

    fake_setup(&f, 1 << 20, true);
    nexus_init(&other, &f.target, "iqn.2026-11.com.example:other", isid, 1);
    CHECK(nexus_take_ua(&other, 0, &ua));
    CHECK_EQ(fake_exec(&f, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0, false), 0); /* RESERVE(6) */
    CHECK(f.lun->reserved_by == &f.nexus);
    CHECK_EQ(target_set_mask(&f.target, f.nexus.initiator, "none", &err), 0);
    CHECK(f.lun->reserved_by == NULL);
    CHECK(!nexus_may_reach(&f.nexus, f.lun));
    CHECK(nexus_may_reach(&other, f.lun));
    CHECK(nexus_take_ua(&f.nexus, 0, &ua));
    CHECK_EQ(ua, UA_REPORTED_LUNS);
    CHECK(!nexus_take_ua(&other, 0, &ua));
    CHECK_EQ(target_set_mask(&f.target, f.nexus.initiator, "none", &err), 0); /* no change */
    CHECK(!nexus_take_ua(&f.nexus, 0, &ua));
    CHECK_EQ(target_set_mask(&f.target, f.nexus.initiator, NULL, &err), 0);
    nexus_fini(&other);
    fake_teardown(&f);
}
