/* SPDX-License-Identifier: BSD-3-Clause */
/* The command table holds together: rows agree with the standard's rules and with themselves. */
#include "target/scsi-opcodes.h"
#include "target/lun.h"
#include "tests/unit/ctest.h"
#include "util/cow-wire.h"

static void for_each_row(void (*fn)(const struct scsi_opcode *op, uint8_t opcode, int sa))
{
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        const struct scsi_opcode *op = scsi_opcode_group((uint8_t)opcode);

        if (!op)
            continue;
        if (!op->by_sa) {
            fn(op, (uint8_t)opcode, -1);
            continue;
        }
        for (int sa = 0; sa < SCSI_NR_SA; sa++) {
            if (op->by_sa[sa].name)
                fn(&op->by_sa[sa], (uint8_t)opcode, sa);
        }
    }
}

static void check_complete(const struct scsi_opcode *op, uint8_t opcode, int sa)
{
    (void)opcode;
    (void)sa;
    CHECK(op->start);
    CHECK(op->resv >= RESV_ALLOWED && op->resv <= RESV_WRITE);
    CHECK(!op->reply || op->start == scsi_start_reply);
    CHECK(!op->reply || op->dir == DIR_IN);
    CHECK(op->start != scsi_start_reply || op->reply);
}

TEST(opcodes, every_row_has_handler_and_reservation_class)
{
    for_each_row(check_complete);
}

static void check_length(const struct scsi_opcode *op, uint8_t opcode, int sa)
{
    static const uint8_t by_group[8] = {6, 10, 10, 0, 16, 12, 0, 0}; /* SPC-4 4.2.5.1 */
    unsigned len = by_group[opcode >> 5];

    (void)sa;
    CHECK(op->cdb_len >= 6 && op->cdb_len <= (opcode == SCSI_VARIABLE ? 32 : 16));
    CHECK(!len || len == op->cdb_len);
}

TEST(opcodes, lengths_agree_with_the_group_code)
{
    for_each_row(check_length);
}

static void check_usage(const struct scsi_opcode *op, uint8_t opcode, int sa)
{
    CHECK_EQ(op->usage[0], opcode);
    if (sa >= 0 && opcode == SCSI_VARIABLE)
        CHECK_EQ(op->usage[8] & op->usage[9], 0xff);
    else if (sa >= 0)
        CHECK_EQ(op->usage[1] & 0x1f, 0x1f);
    for (unsigned i = op->cdb_len; i < SCSI_MAX_CDB; i++)
        CHECK_EQ(op->usage[i], 0);
    for (unsigned i = 0; i < op->lba.bytes; i++)
        CHECK(op->usage[op->lba.at + i]);
    for (unsigned i = 0; i < op->len.bytes; i++)
        CHECK_EQ(op->usage[op->len.at + i], 0xff);
}

TEST(opcodes, usage_bits_start_with_the_opcode_and_cover_the_fields)
{
    for_each_row(check_usage);
}

static void check_fields(const struct scsi_opcode *op, uint8_t opcode, int sa)
{
    unsigned end = op->cdb_len - (opcode == SCSI_VARIABLE ? 0 : 1); /* mostly the last is CONTROL */

    (void)sa;
    CHECK(op->lba.at + op->lba.bytes <= end);
    CHECK(op->len.at + op->len.bytes <= end);
    if (op->flags & OPF_MEDIUM)
        CHECK(op->lba.bytes && op->len.bytes);
    if (op->flags & OPF_WRITE)
        CHECK_EQ(op->resv, RESV_WRITE);
}

TEST(opcodes, fields_lie_inside_the_cdb)
{
    for_each_row(check_fields);
}

TEST(opcodes, unknown_opcode_and_unknown_service_action_differ)
{
    uint8_t cdb[SCSI_MAX_CDB] = {0xff};
    bool bad_sa;

    CHECK(!scsi_opcode_find(cdb, &bad_sa));
    CHECK(!bad_sa);
    cdb[0] = 0x9e;
    cdb[1] = 0x1f;
    CHECK(!scsi_opcode_find(cdb, &bad_sa));
    CHECK(bad_sa);
    cdb[1] = 0xf0; /* upper bits are not part of it */
    CHECK(scsi_opcode_find(cdb, &bad_sa));
}

TEST(opcodes, layer_status_is_only_on_luns_of_a_chain)
{
    uint8_t cdb[SCSI_MAX_CDB] = {COWL_OPCODE, COWL_SA_LAYER_STATUS};
    bool bad_sa;
    const struct scsi_opcode *op = scsi_opcode_find(cdb, &bad_sa);
    struct lun plain = {.has_cowl = false}, layer = {.has_cowl = true};

    REQUIRE(op);
    CHECK(!scsi_opcode_on_lun(op, NULL));
    CHECK(!scsi_opcode_on_lun(op, &plain));
    CHECK(scsi_opcode_on_lun(op, &layer));
}
