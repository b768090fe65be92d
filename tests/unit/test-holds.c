/* SPDX-License-Identifier: BSD-3-Clause */
/* What a pull is to hold at its source, and what becomes of it in the record. */
#include <stdlib.h>
#include <string.h>

#include "admin/holds.h"
#include "lun-backends/hold.h"
#include "tests/unit/ctest.h"
#include "util/byteorder.h"

static struct found_lun luns[4];
static struct found_chain found = {.nr_luns = 4, .luns = luns};

/* LUN 0 is the disk, 1 to 3 are its layers. */
static void start(void)
{
    memset(luns, 0, sizeof(luns));
    for (unsigned i = 0; i < 4; i++) {
        luns[i].number = (uint16_t)i;
        luns[i].is_disk = luns[i].has_cowl = true;
        luns[i].cowl.layer_index = (uint16_t)(i ? i - 1 : 2);
        luns[i].cowl.chain_uuid.b[0] = 7;
        luns[i].cowl.layer_uuid.b[0] = (uint8_t)(luns[i].cowl.layer_index + 1);
    }
}

static struct chain_record *plan(unsigned picked)
{
    struct iscsi_url url = {.host = "h", .port = 3260, .target = "iqn.x", .lun = (int)picked};
    struct chain_record *rec = record_new("pull", "c");
    struct error err = ERROR_INIT;

    if (!rec || holds_plan(rec, &found, picked, &url, &err))
        abort();
    return rec;
}

TEST(holds, a_disk_needs_all_its_layers)
{
    start();
    struct chain_record *rec = plan(0);

    CHECK_EQ(rec->hold_luns.nr, 3u);
    for (unsigned i = 0; i < rec->hold_luns.nr; i++)
        CHECK_EQ(rec->hold_luns.items[i], i + 1);
    CHECK(rec->hold_key && rec->hold_key < UINT64_C(1) << 62);
    CHECK_STR(rec->hold_url, "iscsi://h:3260/iqn.x/0");
    record_free(rec);
}

TEST(holds, a_layer_needs_none_above_it)
{
    start();
    struct chain_record *rec = plan(2);

    CHECK_EQ(rec->hold_luns.nr, 2u);
    CHECK_EQ(rec->hold_luns.items[1], 2u);
    record_free(rec);
}

TEST(holds, layers_of_other_chains_are_not_held)
{
    start();
    luns[1].cowl.chain_uuid.b[0] = 8;
    struct chain_record *rec = plan(0);

    CHECK_EQ(rec->hold_luns.nr, 2u);
    CHECK_EQ(rec->hold_luns.items[0], 2u);
    record_free(rec);
}

TEST(holds, a_disk_without_layers_is_held_itself)
{
    start();
    for (unsigned i = 0; i < 4; i++)
        luns[i].has_cowl = false;
    struct chain_record *rec = plan(1);

    CHECK_EQ(rec->hold_luns.nr, 1u);
    CHECK_EQ(rec->hold_luns.items[0], 1u);
    CHECK_STR(rec->hold_layers.items[0], "");
    record_free(rec);
}

TEST(holds, keys_differ)
{
    start();
    struct chain_record *a = plan(0), *b = plan(0);

    CHECK(a->hold_key != b->hold_key);
    record_free(a);
    record_free(b);
}

TEST(holds, one_layer_is_given_up)
{
    start();
    struct chain_record *rec = plan(0);

    CHECK_EQ(holds_give_up_one(rec, 2), 0);
    CHECK(holds_give_up_one(rec, 2) < 0);
    CHECK_EQ(rec->hold_luns.nr, 2u);
    CHECK_EQ(rec->hold_layers.nr, 2u);
    CHECK_EQ(rec->drop_luns.nr, 1u);
    CHECK_EQ(rec->drop_luns.items[0], 2u);
    record_free(rec);
}

TEST(holds, all_are_given_up_base_first)
{
    start();
    struct chain_record *rec = plan(0);

    holds_give_up(rec);
    CHECK_EQ(rec->hold_luns.nr, 0u);
    CHECK_EQ(rec->drop_luns.nr, 3u);
    for (unsigned i = 0; i < rec->drop_luns.nr; i++)
        CHECK_EQ(rec->drop_luns.items[i], i + 1);
    record_free(rec);
}

TEST(holds, layers_below_the_disk_have_events_of_their_own)
{
    start();
    struct chain_record *rec = plan(0);

    rec->source_layer = luns[0].cowl.layer_uuid;

    json_t *list = holds_dropped_events(rec);

    CHECK_EQ(json_array_size(list), 2u);
    CHECK_STR(json_string_value(json_object_get(json_array_get(list, 0), "layer")),
              "iscsi://h:3260/iqn.x/1");
    json_decref(list);
    record_free(rec);
}

TEST(holds, keys_are_found_in_an_answer_that_is_cut_short)
{
    uint8_t buf[8 + 3 * 8] = {0};

    put_be32(buf + 4, 4 * 8); /* one more than came */
    put_be64(buf + 24, 42);
    CHECK(hold_key_listed(buf, sizeof(buf), 42));
    CHECK(!hold_key_listed(buf, sizeof(buf) - 1, 42));
    CHECK(!hold_key_listed(buf, 7, 42));
    CHECK(!hold_key_listed(buf, 0, 42));
    put_be32(buf + 4, 8);
    CHECK(!hold_key_listed(buf, sizeof(buf), 42));
}
