/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands by the unit that they are sent to (well known, absent, reserved by another nexus), with
 * the classes of SPC-4 table 66 and SBC-3 table 13 written down again, apart from the command
 * table.
 */
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/size.h"

#define DISK_BYTES (8u << 20)
#define CONFLICT   (-SCSI_RESERVATION_CONFLICT)

static struct fake f;
static uint8_t data[8192];

/* To the unit of @lun (8 bytes, NULL: LUN 0); @out NULL: up to @len bytes come into data[]. */
static int exec(struct nexus *n, const uint8_t *lun, const uint8_t *cdb, unsigned cdb_len,
                const void *out, uint32_t len)
{
    return fake_exec_as(&f, n, lun, cdb, cdb_len, out, data, len);
}

/* ---- the well known logical unit ---- */

static const uint8_t well_known[8] = {0xc1, 0x01}, absent[8] = {0x00, 0x07};

TEST(units, the_well_known_one_answers_four_commands)
{
    enum ua_kind ua;

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x12, 0, 0, 0, 96, 0), NULL, 96), 0);
    CHECK_EQ(data[0], 0x1e);
    CHECK_EQ(data[5] & 0x30, 0);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SENSE(6, 0x29, 0));
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x03, 0, 0, 0, 18, 0), NULL, 18), 0);
    CHECK_EQ(data[2], 0);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), NULL, 64), 0);
    CHECK_EQ(get_be32(data), 8);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 512),
             SENSE(5, 0x20, 0));
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 8),
             SENSE(5, 0x20, 0));
    CHECK(!nexus_take_ua(&f.nexus, SCSI_WLUN_REPORT_LUNS, &ua));
    fake_teardown(&f);
}

TEST(units, the_well_known_one_has_a_list_of_pages_and_names_its_device)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x12, 1, 0, 0, 255, 0), NULL, 255), 0);
    CHECK_EQ(data[0], 0x1e);
    CHECK_EQ(get_be16(data + 2), 2);
    CHECK(data[4] == 0x00 && data[5] == 0x83);
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x12, 1, 0x83, 2, 0, 0), NULL, 512), 0);
    for (size_t at = 4; at < 4u + get_be16(data + 2); at += 4u + data[at + 3])
        CHECK(data[at + 1] & 0x30); /* of the port or the device, not of a logical unit */
    CHECK_EQ(exec(&f.nexus, well_known, CDB(0x12, 1, 0xb0, 0, 64, 0), NULL, 64), SENSE(5, 0x24, 0));
    fake_teardown(&f);
}

TEST(units, report_luns_lists_the_well_known_one_where_it_is_asked_for)
{
    static const uint8_t luns[] = {1, 0, 2};

    fake_setup_two(&f, DISK_BYTES);
    for (uint8_t select = 0; select < 3; select++) {
        const uint8_t cdb[12] = {0xa0, 0, select, [9] = 64};

        CHECK_EQ(exec(&f.nexus, NULL, cdb, 12, NULL, 64), 0);
        CHECK_EQ(get_be32(data), select ? 8 * (luns[select] ? luns[select] : 1) : 8);
        if (select)
            CHECK(!memcmp(data + get_be32(data), well_known, 8));
    }
    CHECK_EQ(exec(&f.nexus, absent, CDB(0xa0, 0, 2, 0, 0, 0, 0, 0, 0, 64, 0, 0), NULL, 64), 0);
    CHECK_EQ(get_be32(data), 16);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0xa0, 0, 0x10, 0, 0, 0, 0, 0, 0, 64, 0, 0), NULL, 64),
             SENSE(5, 0x24, 0)); /* no administrative logical units */
    fake_teardown(&f);
}

TEST(units, of_an_absent_one_inquiry_and_request_sense_tell)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(exec(&f.nexus, absent, CDB(0x12, 0, 0, 0, 96, 0), NULL, 96), 0);
    CHECK_EQ(data[0], 0x7f);
    CHECK_EQ(exec(&f.nexus, absent, CDB(0x03, 0, 0, 0, 18, 0), NULL, 18), 0);
    CHECK(data[2] == 5 && data[12] == 0x25);
    CHECK_EQ(exec(&f.nexus, absent, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SENSE(5, 0x25, 0));
    fake_teardown(&f);
}

/* ---- what a reservation does to each command, for a nexus that it keeps out ---- */

enum { ALLOWED, READS, WRITES };

static const struct {
    uint8_t cdb[SCSI_MAX_CDB];
    int class;
} table[] = {
    {{0x00}, ALLOWED},
    {{0x03}, ALLOWED},
    {{0x12}, ALLOWED},
    {{0x25}, ALLOWED},
    {{0x4d}, ALLOWED},
    {{0x5e, 0}, ALLOWED},
    {{0x5e, 1}, ALLOWED},
    {{0x5e, 2}, ALLOWED},
    {{0x5e, 3}, ALLOWED},
    {{0x9e, 0x10}, ALLOWED},
    {{0xa0}, ALLOWED},
    {{0xa3, 0x0a}, ALLOWED},
    {{0xa3, 0x0c}, ALLOWED},
    {{0xa3, 0x0d}, ALLOWED},
    {{0x1b, 0, 0, 0, 0x01}, ALLOWED},
    {{0x1b, 0, 0, 0, 0x00}, WRITES},
    {{0x1b, 0, 0, 0, 0x11}, WRITES},
    {{0x08, [4] = 1}, READS},
    {{0x28, [8] = 1}, READS},
    {{0x88, [13] = 1}, READS},
    {{0xa8, [9] = 1}, READS},
    {{0x1a, 0, 0x3f}, READS},
    {{0x5a, 0, 0x3f}, READS},
    {{0x1c, 1}, READS},
    {{0x37}, READS},
    {{0xb7}, READS},
    {{0x2f, [8] = 1}, READS},
    {{0x8f, [13] = 1}, READS},
    {{0xaf, [9] = 1}, READS},
    {{0x34, [8] = 1}, READS},
    {{0x90, [13] = 1}, READS},
    {{0x9e, 0x12}, READS},
    {{SCSI_VARIABLE, [7] = 24, [9] = 0x12}, READS},
    {{0x04}, WRITES},
    {{0x0a}, WRITES},
    {{0x2a}, WRITES},
    {{0x8a}, WRITES},
    {{0xaa}, WRITES},
    {{0x2e}, WRITES},
    {{0x8e}, WRITES},
    {{0xae}, WRITES},
    {{0x41, [8] = 1}, WRITES},
    {{0x93, [13] = 1}, WRITES},
    {{0x42}, WRITES},
    {{0x48, 0x02}, WRITES},
    {{0x89}, WRITES},
    {{0x8b}, WRITES},
    {{0x9c}, WRITES},
    {{0x83}, WRITES},
    {{0x84, 0x03}, WRITES},
    {{0x35}, WRITES},
    {{0x91}, WRITES},
    {{0x15, 0x10}, WRITES},
    {{0x55, 0x10}, WRITES},
    {{0x1d, 0x04}, WRITES},
};

/* @in_nexus: kept out by a reservation of @type, or (0) let in. */
static void check_table(struct nexus *n, uint8_t type, bool let_in)
{
    bool write_exclusive = type == 1 || type == 5 || type == 7;

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        bool conflicts =
            !let_in && (table[i].class == WRITES || (table[i].class == READS && !write_exclusive));
        int sense =
            exec(n, NULL, table[i].cdb, table[i].cdb[0] == SCSI_VARIABLE ? 32 : 16, NULL, 0);

        if ((sense == CONFLICT) != conflicts)
            ctest_fail(__FILE__, __LINE__, "type %u, CDB %02x %02x: %#x", type, table[i].cdb[0],
                       table[i].cdb[1], sense);
    }
}

static void forget_news(struct nexus *n)
{
    enum ua_kind ua;

    while (nexus_take_ua(n, 0, &ua))
        ;
}

TEST(units, each_type_of_reservation_keeps_out_what_the_standards_table_says)
{
    static const uint8_t types[] = {1, 3, 5, 6, 7, 8};

    fake_setup_two(&f, DISK_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        bool shared = types[i] >= 5;

        CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER_AND_IGNORE, 0, 0, 1), 0);
        CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RESERVE, types[i], 1, 0), 0);
        check_table(&f.nexus, types[i], true);  /* the holder */
        check_table(&f.other, types[i], false); /* somebody else */
        CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0, 2), 0);
        check_table(&f.other, types[i], shared); /* who is registered */
        CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_CLEAR, 0, 1, 0), 0);
        CHECK_EQ(exec(&f.other, NULL, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SENSE(6, 0x2a, 0x03));
        forget_news(&f.other);
        forget_news(&f.nexus);
    }
    fake_teardown(&f);
}

/* ---- RESERVE and RELEASE beside persistent reservations, SPC-4 5.12.3 ---- */

TEST(units, reserve_of_a_persistent_holder_is_good_and_reserves_nothing)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 1), 0);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), CONFLICT);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RESERVE, PR_WRITE_EXCLUSIVE, 1, 0), 0);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK(!f.lun->reserved_by);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(f.lun->pr.type, PR_WRITE_EXCLUSIVE);
    CHECK_EQ(exec(&f.other, NULL, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), CONFLICT);
    CHECK_EQ(exec(&f.other, NULL, CDB(0x17, 0, 0, 0, 0, 0), NULL, 0), CONFLICT);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0), NULL, 8), 0);
    CHECK(data[2] & 0x10); /* CRH */
    fake_teardown(&f);
}

/* ---- PERSISTENT RESERVE OUT ---- */

static uint32_t put_device(uint8_t *b, const char *name)
{
    size_t len = (strlen(name) + 1 + 3) & ~(size_t)3;

    memset(b, 0, 4 + len);
    b[0] = 0x05;
    put_be16(b + 2, (uint16_t)len);
    memcpy(b + 4, name, strlen(name));
    return (uint32_t)(4 + len);
}

TEST(units, a_device_named_in_spec_i_pt_is_all_its_ports_that_are_here)
{
    uint8_t list[256] = {[15] = 7, [20] = 0x08}, cdb[10] = {0x5f};
    const uint8_t isid[6] = {0x80, 0, 0, 0, 0, 10};
    struct nexus third;
    uint32_t len = 28;

    fake_setup_two(&f, DISK_BYTES);
    nexus_init(&third, &f.target, "iqn.2026-11.com.example:other", isid, 1);
    len += put_device(list + len, "iqn.2026-11.com.example:other");
    put_be32(list + 24, len - 28);
    cdb[8] = (uint8_t)len;
    CHECK_EQ(exec(&f.nexus, NULL, cdb, 10, list, len), 0);
    CHECK_EQ(f.lun->pr.nr, 3);
    CHECK(pr_find(&f.lun->pr, f.other.initiator, f.other.isid, 1));
    CHECK(pr_find(&f.lun->pr, f.other.initiator, third.isid, 1));
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_CLEAR, 0, 7, 0), 0);
    put_device(list + 28, "iqn.2026-11.com.example:nobod");
    CHECK_EQ(exec(&f.nexus, NULL, cdb, 10, list, len), SENSE(5, 0x26, 0)); /* nobody has come */
    CHECK_EQ(f.lun->pr.nr, 0);
    nexus_fini(&third);
    fake_teardown(&f);
}

TEST(units, preempt_and_abort_lets_the_medium_go)
{
    fake_setup_two(&f, DISK_BYTES);
    f.lun->removable = true;
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 1), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0, 2), 0);
    CHECK_EQ(exec(&f.other, NULL, CDB(0x1e, 0, 0, 0, 1, 0), NULL, 0), 0);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0), SENSE(5, 0x53, 2));
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x1b, 0, 0, 0, 3, 0), NULL, 0), 0); /* it is loaded */
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_PREEMPT_AND_ABORT, 0, 1, 2), 0);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0), 0);
    fake_teardown(&f);
}

TEST(units, register_and_move_without_a_reservation_is_an_invalid_field)
{
    uint8_t list[64] = {[7] = 1, [15] = 2, [19] = 1}, cdb[10] = {0x5f, PR_REGISTER_AND_MOVE};
    uint32_t len;

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 1), 0);
    len = 24 + put_device(list + 24, "iqn.2026-11.com.example:other,i,0x800000000009");
    list[24] = 0x45;
    put_be32(list + 20, len - 24);
    cdb[8] = (uint8_t)len;
    CHECK_EQ(exec(&f.nexus, NULL, cdb, 10, list, len), SENSE(5, 0x24, 0));
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RESERVE, PR_EXCLUSIVE_ACCESS, 1, 0), 0);
    CHECK_EQ(exec(&f.nexus, NULL, cdb, 10, list, len), 0);
    CHECK_EQ(exec(&f.other, NULL, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 512), 0);
    CHECK_EQ(exec(&f.nexus, NULL, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 512), CONFLICT);
    fake_teardown(&f);
}
