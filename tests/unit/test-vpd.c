/* SPDX-License-Identifier: BSD-3-Clause */
/* Vital product data pages, as clients walk them. */
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/cow-wire.h"

#define DISK_BYTES (8u << 20)

static struct fake f;
static uint8_t page[4096];

static int inquire(uint8_t code)
{
    memset(page, 0, sizeof(page));
    return fake_exec(&f, CDB(0x12, 1, code, 0x10, 0, 0), page, sizeof(page), false);
}

TEST(vpd, every_listed_page_can_be_read_and_the_list_ascends)
{
    uint8_t list[256];
    unsigned n;

    fake_setup(&f, DISK_BYTES, true);
    lun_set_cowl(f.lun, &(struct cowl_page){.nr_layers = 1}, false);
    CHECK_EQ(inquire(0), 0);
    n = get_be16(page + 2);
    REQUIRE(n >= 7 && n < sizeof(list));
    memcpy(list, page + 4, n);
    for (unsigned i = 0; i < n; i++) {
        CHECK(!i || list[i] > list[i - 1]);
        CHECK_EQ(inquire(list[i]), 0);
        CHECK_EQ(page[1], list[i]);
    }
    CHECK_EQ(list[n - 1], COWL_VPD_PAGE);
    fake_teardown(&f);
}

TEST(vpd, pages_not_listed_are_invalid_fields)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(inquire(0xd5), SENSE(5, 0x24, 0)); /* not a chain */
    CHECK_EQ(inquire(0xc0), SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x12, 0, 0x80, 0, 255, 0), page, 255, false), SENSE(5, 0x24, 0));
    fake_teardown(&f);
}

TEST(vpd, serial_is_the_uuid_in_hex)
{
    fake_setup(&f, DISK_BYTES, true);
    for (int i = 0; i < 16; i++)
        f.lun->id.b[i] = (uint8_t)(i * 17);
    CHECK_EQ(inquire(0x80), 0);
    CHECK_EQ(get_be16(page + 2), 32);
    CHECK_STR((char *)page + 4, "00112233445566778899aabbccddeeff");
    fake_teardown(&f);
}

/* Finds a designator; NULL: none of that kind. */
static const uint8_t *designator(uint8_t assoc, uint8_t type)
{
    unsigned end = 4 + get_be16(page + 2);

    for (unsigned at = 4; at + 4 <= end; at += 4u + page[at + 3]) {
        if ((page[at + 1] >> 4 & 3) == assoc && (page[at + 1] & 0xf) == type)
            return page + at;
    }
    return NULL;
}

TEST(vpd, identification_holds_lun_port_and_device_names)
{
    const uint8_t *d;

    fake_setup(&f, DISK_BYTES, true);
    memset(f.lun->id.b, 0xa5, 8);
    CHECK_EQ(inquire(0x83), 0);
    d = designator(0, 3);
    REQUIRE(d);
    CHECK_EQ(d[3], 8);
    CHECK_EQ(d[4] >> 4, 3); /* locally assigned */
    CHECK_EQ(d[5], 0xa5);
    d = designator(0, 1);
    REQUIRE(d);
    CHECK(!memcmp(d + 4, "COWTGT  a5a5", 12));
    d = designator(0, 10);
    REQUIRE(d);
    CHECK(!memcmp(d + 6, f.lun->id.b, 16));
    d = designator(1, 4);
    REQUIRE(d);
    CHECK_EQ(d[7], 1);
    d = designator(1, 8);
    REQUIRE(d);
    CHECK_STR((const char *)d + 4, "iqn.2026-11.com.example:unit,t,0x0001");
    CHECK_EQ(d[3] % 4, 0);
    d = designator(2, 8);
    REQUIRE(d);
    CHECK_STR((const char *)d + 4, "iqn.2026-11.com.example:unit");
    fake_teardown(&f);
}

TEST(vpd, the_target_port_is_the_one_it_is_asked_by)
{
    const uint8_t *d;

    fake_setup(&f, DISK_BYTES, true);
    f.nexus.rel_port = 0x1a2;
    CHECK_EQ(inquire(0x83), 0);
    d = designator(1, 4);
    REQUIRE(d);
    CHECK_EQ(get_be16(d + 6), 0x1a2);
    d = designator(1, 8);
    REQUIRE(d);
    CHECK_STR((const char *)d + 4, "iqn.2026-11.com.example:unit,t,0x01a2");
    CHECK_EQ(inquire(0x88), 0);
    CHECK_EQ(get_be16(page + 6), 0x1a2);
    CHECK_EQ(get_be16(page + 2), 12u + get_be16(page + 14));
    CHECK_STR((const char *)page + 20, "iqn.2026-11.com.example:unit,t,0x01a2");
    fake_teardown(&f);
}

TEST(vpd, identification_takes_the_longest_name)
{
    char name[ISCSI_NAME_MAX + 1];
    const uint8_t *d;

    fake_setup(&f, DISK_BYTES, true);
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    f.target.name = name;
    CHECK_EQ(inquire(0x83), 0);
    d = designator(1, 8);
    REQUIRE(d);
    CHECK_EQ(strlen((const char *)d + 4), ISCSI_NAME_MAX + 9);
    fake_teardown(&f);
}

TEST(vpd, block_limits_are_those_enforced)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(inquire(0xb0), 0);
    CHECK_EQ(get_be16(page + 2), 60);
    CHECK_EQ(get_be32(page + 8), LUN_MAX_TRANSFER_BLOCKS);
    CHECK_EQ(get_be32(page + 20), LUN_MAX_UNMAP_BYTES / 512);
    CHECK_EQ(get_be32(page + 24), LUN_MAX_UNMAP_DESCS);
    CHECK_EQ(get_be32(page + 28), 8);
    CHECK_EQ(get_be64(page + 36), LUN_MAX_WRITE_SAME_BYTES / 512);
    CHECK_EQ(get_be32(page + 44), 0); /* no atomic writes here */
    f.disk->limits.atomic_bytes = 16384;
    CHECK_EQ(inquire(0xb0), 0);
    for (unsigned at = 44; at < 56; at += 4)
        CHECK_EQ(get_be32(page + at), 32);
    CHECK_EQ(get_be64(page + 56), 0); /* nor with a boundary */
    fake_teardown(&f);
}

TEST(vpd, provisioning_says_thin_and_anchored_where_it_is)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(inquire(0xb2), 0);
    CHECK_EQ(page[5], 0xe4);
    CHECK_EQ(page[6], 2);
    f.disk->limits.can_anchor = true;
    CHECK_EQ(inquire(0xb2), 0);
    CHECK_EQ(page[5], 0xe6);
    f.disk->limits.can_anchor = false;
    f.lun->anchored_zeros = true; /* a delta view */
    CHECK_EQ(inquire(0xb2), 0);
    CHECK_EQ(page[5], 0xe6);
    fake_teardown(&f);
}

TEST(vpd, cow_layer_page_is_what_was_set)
{
    struct cowl_page pg = {
        .flags = COWL_READ_ONLY | COWL_TOP | COWL_SEALED,
        .layer_index = 2,
        .nr_layers = 3,
        .granularity_blocks = 128,
        .generation = 9,
        .name = "snx",
    };
    struct cowl_page got;

    fake_setup(&f, DISK_BYTES, false);
    lun_set_cowl(f.lun, &pg, false);
    CHECK_EQ(inquire(COWL_VPD_PAGE), 0);
    CHECK_EQ(cowl_page_decode(page, 4u + get_be16(page + 2), &got), 0);
    CHECK_EQ(got.flags, pg.flags);
    CHECK_EQ(got.generation, 9);
    CHECK_STR(got.name, "snx");
    fake_teardown(&f);
}
