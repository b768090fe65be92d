/* SPDX-License-Identifier: BSD-3-Clause */
/* Joining LUNs into a chain and picking the one to pull. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/chain-join.h"
#include "util/byteorder.h"

/* LUN 0 = the disk = layer @n - 1, LUN 1..n = the layers, as a cowtgt target shows them. */
static struct found_chain sample_chain(unsigned n)
{
    struct found_chain c = {.nr_luns = n + 1, .luns = calloc(n + 1, sizeof(struct found_lun))};

    for (unsigned i = 0; i <= n; i++) {
        struct found_lun *l = &c.luns[i];
        unsigned layer = i ? i - 1 : n - 1;
        struct cowl_page *p = &l->cowl;

        l->number = (uint16_t)i;
        l->is_disk = true;
        l->size_bytes = 1 << 30;
        l->has_cowl = true;
        p->flags = (uint8_t)(COWL_SEALED | (layer ? 0 : COWL_BASE));
        p->layer_index = (uint16_t)layer;
        p->nr_layers = (uint16_t)n;
        p->generation = 5;
        p->chain_uuid.b[0] = 1;
        p->layer_uuid.b[15] = (uint8_t)(100 + layer);
        memset(p->parent_lun, 0xff, 8);
        if (layer) {
            p->parent_uuid.b[15] = (uint8_t)(100 + layer - 1);
            memset(p->parent_lun, 0, 8);
            p->parent_lun[1] = (uint8_t)layer;
        }
    }
    return c;
}

static int check(const struct found_chain *c)
{
    struct error err = ERROR_INIT;
    int ret = found_chain_check(c, &err);

    CHECK((ret == 0) == (err.msg[0] == '\0'));
    return ret;
}

TEST(chain, joins_up)
{
    for (unsigned n = 1; n < 20; n++) {
        struct found_chain c = sample_chain(n);

        CHECK_EQ(check(&c), 0);
        found_chain_free(&c);
    }
}

TEST(chain, of_other_targets_has_no_layers_to_check)
{
    struct found_chain c = sample_chain(3), none = {0};

    for (unsigned i = 0; i < c.nr_luns; i++)
        c.luns[i].has_cowl = false;
    CHECK_EQ(check(&c), 0);
    CHECK_EQ(check(&none), 0);
    found_chain_free(&c);
}

TEST(chain, layers_that_are_not_exported_may_be_missing)
{
    struct found_chain c = sample_chain(3);

    c.nr_luns = 1;
    memset(c.luns[0].cowl.parent_lun, 0xff, 8);
    CHECK_EQ(check(&c), 0);
    found_chain_free(&c);
}

TEST(chain, broken_ones_are_refused)
{
    static const struct {
        const char *what;
        int lun;
        size_t offset;
        uint8_t value;
    } broken[] = {
        {"parent is another layer", 3, offsetof(struct cowl_page, parent_uuid) + 15, 100},
        {"parent LUN is not there", 3, offsetof(struct cowl_page, parent_lun) + 1, 77},
        {"parent LUN is itself", 3, offsetof(struct cowl_page, parent_lun) + 1, 3},
        {"parent LUN is not addressable", 3, offsetof(struct cowl_page, parent_lun), 0xc1},
        {"other chain", 2, offsetof(struct cowl_page, chain_uuid), 9},
        {"base with a parent", 2, offsetof(struct cowl_page, flags), COWL_BASE},
        {"no parent, not base", 1, offsetof(struct cowl_page, flags), 0},
        {"other number of layers", 2, offsetof(struct cowl_page, nr_layers), 9},
        {"index out of range", 3, offsetof(struct cowl_page, layer_index), 9},
        {"index does not follow", 3, offsetof(struct cowl_page, layer_index), 1},
        {"no layer UUID", 1, offsetof(struct cowl_page, layer_uuid) + 15, 0},
    };

    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct found_chain c = sample_chain(3);

        ((uint8_t *)&c.luns[broken[i].lun].cowl)[broken[i].offset] = broken[i].value;
        if (check(&c) != -EPROTO)
            ctest_fail(__FILE__, __LINE__, "accepted: %s", broken[i].what);
        found_chain_free(&c);
    }
}

TEST(chain, a_change_while_reading_asks_for_another_try)
{
    struct found_chain c = sample_chain(3);

    c.luns[2].cowl.generation++;
    CHECK_EQ(check(&c), -EAGAIN);
    found_chain_free(&c);
}

TEST(pick, lun_0_if_it_is_a_disk)
{
    struct found_chain c = sample_chain(2);
    struct error err = ERROR_INIT;

    CHECK_EQ(found_chain_pick(&c, -1, &err), 0);
    CHECK_EQ(found_chain_pick(&c, 2, &err), 2);
    found_chain_free(&c);
}

TEST(pick, the_only_disk)
{
    struct found_chain c = sample_chain(2);
    struct error err = ERROR_INIT;

    c.luns[0].is_disk = c.luns[1].is_disk = false;
    CHECK_EQ(found_chain_pick(&c, -1, &err), 2);
    CHECK_EQ(found_chain_pick(&c, 0, &err), -ENODEV);
    found_chain_free(&c);
}

TEST(pick, of_several_disks_none_is_guessed_and_all_are_named)
{
    struct found_chain c = sample_chain(2);
    struct error err = ERROR_INIT;

    c.luns[0].is_disk = false;
    CHECK_EQ(found_chain_pick(&c, -1, &err), -ENODEV);
    CHECK(strstr(err.msg, "1 (1"));
    CHECK(strstr(err.msg, "2 ("));
    CHECK_EQ(found_chain_pick(&c, 9, &err), -ENODEV);
    found_chain_free(&c);
}

TEST(pick, a_thousand_disks_fit_in_the_message)
{
    struct found_chain c = sample_chain(200);
    struct error err = ERROR_INIT;

    c.luns[0].is_disk = false;
    CHECK_EQ(found_chain_pick(&c, -1, &err), -ENODEV);
    found_chain_free(&c);
}

TEST(report_luns, both_addressing_methods_sorted_each_once)
{
    uint8_t buf[8 + 8 * 6] = {0};
    uint16_t luns[8];

    put_be32(buf, 8 * 6);
    put_be16(buf + 8, 0x4000 | 300); /* flat space */
    put_be16(buf + 16, 1);
    put_be16(buf + 24, 0);
    put_be16(buf + 32, 0xc101); /* well known */
    put_be16(buf + 40, 0x4001); /* LUN 1 again, as flat space */
    put_be16(buf + 48, 0x0105); /* on another bus */
    REQUIRE(report_luns_decode(buf, sizeof(buf), luns, 8) == 3);
    CHECK_EQ(luns[0], 0);
    CHECK_EQ(luns[1], 1);
    CHECK_EQ(luns[2], 300);
}

TEST(report_luns, lengths_are_not_believed)
{
    uint8_t buf[8 + 8 * 2] = {0};
    uint16_t luns[4];

    for (size_t n = 0; n < 8; n++)
        CHECK_EQ(report_luns_decode(buf, n, luns, 4), -EINVAL);
    put_be32(buf, 12);
    CHECK_EQ(report_luns_decode(buf, sizeof(buf), luns, 4), -EINVAL);
    put_be32(buf, 0xfffffff8);
    CHECK_EQ(report_luns_decode(buf, sizeof(buf), luns, 4), -E2BIG);
    put_be32(buf, 32); /* says four, sends two */
    CHECK_EQ(report_luns_decode(buf, sizeof(buf), luns, 4), 1);
}
