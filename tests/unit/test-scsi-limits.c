/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The edges: each limit that VPD page B0h tells is kept to the block, addresses up to 2^64 - 1 are
 * refused whatever their arithmetic does, in blocks of 512 and of 4096 bytes. And lists: FORMAT
 * UNIT, mode pages, log parameters, EXTENDED COPY and what is told of it.
 */
#include <stdlib.h>
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/size.h"

#define DISK_BYTES (16u << 20)

static struct fake f;
static uint8_t data[1u << 20];

static int exec_on(uint8_t lun, const uint8_t *cdb, unsigned cdb_len, const void *out, uint32_t len)
{
    const uint8_t field[8] = {0, lun};

    return fake_exec_as(&f, &f.nexus, field, cdb, cdb_len, out, data, len);
}

static int exec(const uint8_t *cdb, unsigned cdb_len, const void *out, uint32_t len)
{
    return exec_on(0, cdb, cdb_len, out, len);
}

static void set_field(uint8_t *cdb, struct cdb_field at, uint64_t v)
{
    for (unsigned i = at.bytes; i-- > 0; v >>= 8)
        cdb[at.at + i] = (uint8_t)v;
}

/* ---- addresses ---- */

static void each_addressed(void (*fn)(const struct scsi_opcode *op, uint8_t opcode, void *arg),
                           void *arg)
{
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        const struct scsi_opcode *op = scsi_opcode_group((uint8_t)opcode);

        if (op && op->lba.bytes)
            fn(op, (uint8_t)opcode, arg);
    }
}

static void refuse_far(const struct scsi_opcode *op, uint8_t opcode, void *arg)
{
    const struct lun *lun = arg;
    uint64_t max = op->lba.bytes == 8   ? UINT64_MAX
                   : op->lba.bytes == 4 ? UINT32_MAX
                                        : 0x1fffff; /* of three bytes 21 bits */
    uint64_t lbas[] = {lun->capacity_blocks - 1, lun->capacity_blocks, max - 1, max};

    for (size_t i = 0; i < ARRAY_LEN(lbas); i++) {
        uint8_t cdb[SCSI_MAX_CDB] = {opcode};
        int sense;

        if (lbas[i] > max)
            continue;
        set_field(cdb, op->lba, lbas[i]);
        set_field(cdb, op->len, 2);
        sense = exec_on((uint8_t)lun->number, cdb, op->cdb_len, NULL, 0);
        if (sense != SENSE(5, 0x21, 0))
            ctest_fail(__FILE__, __LINE__, "%s at %llu: %#x", op->name, (unsigned long long)lbas[i],
                       sense);
    }
}

TEST(limits, addresses_up_to_the_last_there_can_be_are_out_of_range)
{
    struct lun *large;
    enum ua_kind ua;

    fake_setup_two(&f, DISK_BYTES);
    large = fake_add_lun(
        &f,
        &(struct lun_opts){
            .number = 1, .root = f.disk, .writable = true, .block_bytes = 4096, .id = {.b = {1}}});
    REQUIRE(large);
    while (nexus_take_ua(&f.nexus, 1, &ua) || nexus_take_ua(&f.nexus, 0, &ua))
        ;
    f.lun->removable = true;
    each_addressed(refuse_far, f.lun);
    each_addressed(refuse_far, large);
    CHECK_EQ(exec_on(1,
                     CDB(0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 32),
                     NULL, 32),
             SENSE(5, 0x21, 0));
    CHECK_EQ(f.mem->writes + f.mem->zeroes, 0);
    fake_teardown(&f);
}

/* ---- limits told in B0h ---- */

static void refuse_more(const struct scsi_opcode *op, uint8_t opcode, void *arg)
{
    const uint8_t *page = arg;
    uint64_t limit = 0;
    uint8_t cdb[SCSI_MAX_CDB] = {opcode};
    int sense;

    if (op->flags & OPF_TRANSFER)
        limit = get_be32(page + 8);
    if (op->start == sbc_prefetch)
        limit = get_be32(page + 16);
    if (op->start == sbc_write_same)
        limit = get_be64(page + 36);
    if (op->start == sbc_compare_and_write)
        limit = page[5];
    if (op->start == sbc_write_atomic)
        limit = get_be32(page + 44);
    if (!limit || limit + 1 >= UINT64_C(1) << (8 * op->len.bytes))
        return;
    set_field(cdb, op->len, limit + 1);
    sense = exec(cdb, op->cdb_len, NULL, 0);
    if (sense != SENSE(5, 0x24, 0))
        ctest_fail(__FILE__, __LINE__, "%s of %llu: %#x", op->name, (unsigned long long)limit + 1,
                   sense);
}

TEST(limits, one_more_than_each_limit_told_is_an_invalid_field)
{
    uint8_t page[64];

    fake_setup_two(&f, DISK_BYTES);
    f.lun->capacity_blocks = UINT64_C(1) << 33; /* so that length is all that can be wrong */
    CHECK_EQ(exec(CDB(0x12, 1, 0xb0, 0, 64, 0), NULL, 64), 0);
    memcpy(page, data, 64);
    each_addressed(refuse_more, page);
    fake_teardown(&f);
}

TEST(limits, unmap_takes_what_it_tells_and_not_one_more)
{
    uint8_t list[24] = {0, 22, 0, 16};
    uint32_t most;

    fake_setup_two(&f, DISK_BYTES);
    f.lun->capacity_blocks = UINT64_C(1) << 33;
    CHECK_EQ(exec(CDB(0x12, 1, 0xb0, 0, 64, 0), NULL, 64), 0);
    most = get_be32(data + 20);
    put_be32(list + 16, most + 1);
    CHECK_EQ(exec(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24), SENSE(5, 0x26, 0));
    CHECK_EQ(f.mem->zeroes, 0);
    fake_teardown(&f);
}

/* ---- FORMAT UNIT ---- */

static int format(uint8_t byte1, const void *list, uint32_t len)
{
    return exec((const uint8_t[]){0x04, byte1, 0, 0, 0, 0}, 6, list, len);
}

TEST(limits, format_unit_takes_a_header_without_defects)
{
    static const struct {
        uint8_t byte1, list[8];
        int sense;
    } table[] = {
        {0x10, {0}, 0},
        {0x18, {0, 0x80}, 0},
        {0x10, {0, 0xc0}, 0},
        {0x30, {0}, 0},
        {0x15, {0}, 0},
        {0x10, {1}, SENSE(5, 0x26, 0)},          /* protection */
        {0x10, {0, 0x40}, SENSE(5, 0x26, 0)},    /* without FOV */
        {0x10, {0, 0x88}, SENSE(5, 0x26, 0)},    /* a pattern */
        {0x10, {0, 0, 0, 8}, SENSE(5, 0x26, 0)}, /* defects */
        {0x30, {[7] = 8}, SENSE(5, 0x26, 0)},    /* */
        {0x30, {[3] = 1}, SENSE(5, 0x26, 0)},    /* */
        {0x16, {0}, SENSE(5, 0x24, 0)},          /* vendor's format of a list */
        {0x08, {0}, SENSE(5, 0x24, 0)},          /* of no list */
        {0x50, {0}, SENSE(5, 0x24, 0)},          /* FMTPINFO */
    };

    fake_setup_two(&f, DISK_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        mem_node_fill(f.mem, 0, DISK_BYTES, BLK_ST_DATA, 0x33);
        CHECK_EQ(format(table[i].byte1, table[i].list, table[i].byte1 & 0x20 ? 8 : 4),
                 table[i].sense);
        CHECK_EQ(f.mem->data[DISK_BYTES - 1], table[i].sense ? 0x33 : 0);
    }
    CHECK_EQ(format(0x10, table[0].list, 3), SENSE(5, 0x1a, 0));
    fake_teardown(&f);
}

TEST(limits, format_unit_at_once_goes_on_and_tells_how_far)
{
    const uint8_t list[4] = {0, 0x82};

    fake_setup_two(&f, DISK_BYTES);
    f.mem->delay_ns = 1000000;
    mem_node_fill(f.mem, 0, DISK_BYTES, BLK_ST_DATA, 0x33);
    CHECK_EQ(format(0x10, list, 4), 0);
    CHECK(f.lun->sanitize);
    CHECK_EQ(exec(CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SENSE(2, 0x04, 0x04));
    CHECK_EQ(exec(CDB(0x03, 0, 0, 0, 18, 0), NULL, 18), 0);
    CHECK(data[2] == 2 && data[12] == 4 && data[13] == 4 && data[15] & 0x80);
    CHECK(TURN_UNTIL(!f.lun->sanitize));
    CHECK_EQ(exec(CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(f.mem->data[DISK_BYTES - 1], 0);
    fake_teardown(&f);
}

TEST(limits, a_format_that_failed_is_told_until_one_succeeds)
{
    fake_setup_two(&f, DISK_BYTES);
    f.mem->write_error = -5;
    CHECK_EQ(format(0, NULL, 0), SENSE(3, 0x31, 0x01));
    CHECK_EQ(exec(CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SENSE(3, 0x31, 0x01));
    f.mem->write_error = 0;
    CHECK_EQ(format(0, NULL, 0), 0);
    CHECK_EQ(exec(CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), 0);
    fake_teardown(&f);
}

/* ---- mode pages ---- */

static int select_modes(uint8_t byte1, const void *list, uint8_t len)
{
    return exec((const uint8_t[]){0x15, byte1, 0, 0, len, 0}, 6, list, len);
}

TEST(limits, mode_select_lists_that_end_too_early)
{
    uint8_t list[] = {0, 0, 0, 0, 0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0};
    uint8_t desc[] = {0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0};

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(select_modes(0x10, list, 16), 0);
    CHECK_EQ(select_modes(0x10, list, 4), 0); /* no page */
    CHECK_EQ(select_modes(0x10, NULL, 0), 0);
    for (uint8_t len = 1; len < 16; len++) {
        if (len != 4)
            CHECK_EQ(select_modes(0x10, list, len), SENSE(5, 0x1a, 0));
    }
    CHECK_EQ(select_modes(0x10, desc, 12), 0);
    CHECK_EQ(select_modes(0x10, desc, 11), SENSE(5, 0x1a, 0));
    desc[10] = 4; /* other blocks */
    CHECK_EQ(select_modes(0x10, desc, 12), SENSE(5, 0x26, 0));
    desc[3] = 16;
    CHECK_EQ(select_modes(0x10, desc, 12), SENSE(5, 0x26, 0));
    CHECK_EQ(select_modes(0x00, list, 16), SENSE(5, 0x24, 0)); /* PF 0: nobody's pages */
    CHECK_EQ(select_modes(0x12, list, 16), SENSE(5, 0x24, 0)); /* RTD */
    list[5] = 9;
    CHECK_EQ(select_modes(0x10, list, 16), SENSE(5, 0x26, 0));
    fake_teardown(&f);
}

TEST(limits, only_a_mode_parameter_that_changes_is_news)
{
    uint8_t list[] = {0, 0, 0, 0, 0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0};
    enum ua_kind ua;

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(select_modes(0x10, list, 16), 0);
    CHECK(!nexus_take_ua(&f.other, 0, &ua));
    list[6] = 0x04;
    CHECK_EQ(select_modes(0x10, list, 16), 0);
    CHECK(nexus_take_ua(&f.other, 0, &ua) && ua == UA_MODE_PARAMETERS);
    CHECK(!nexus_take_ua(&f.nexus, 0, &ua));
    fake_teardown(&f);
}

TEST(limits, all_pages_have_all_subpages_or_none)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(exec(CDB(0x1a, 8, 0x3f, 0, 255, 0), NULL, 255), 0);
    CHECK_EQ(data[0] + 1, 4 + 12 + 20 + 12 + 12);
    CHECK_EQ(exec(CDB(0x1a, 8, 0x3f, 0xff, 255, 0), NULL, 255), 0);
    CHECK_EQ(data[0] + 1, 4 + 12 + 20 + 12 + 12 + 24);
    CHECK_EQ(exec(CDB(0x1a, 8, 0x1c, 0xff, 255, 0), NULL, 255), 0);
    CHECK_EQ(data[0] + 1, 4 + 12 + 24);
    CHECK_EQ(exec(CDB(0x1a, 8, 0x3f, 0x02, 255, 0), NULL, 255), SENSE(5, 0x24, 0));
    CHECK_EQ(exec(CDB(0x1a, 8, 0x0a, 0x01, 255, 0), NULL, 255), SENSE(5, 0x24, 0));
    CHECK_EQ(exec(CDB(0x1a, 8, 0x02, 0, 255, 0), NULL, 255), SENSE(5, 0x24, 0));
    CHECK_EQ(exec(CDB(0x1a, 8, 0xc8, 0, 255, 0), NULL, 255),
             SENSE(5, 0x39, 0));                                                /* saved: nowhere */
    CHECK_EQ(exec(CDB(0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 255, 0), NULL, 255), 0); /* LLBAA */
    CHECK(data[4] == 1 && get_be16(data + 6) == 16);
    CHECK_EQ(get_be64(data + 8), DISK_BYTES / 512);
    CHECK_EQ(get_be32(data + 20), 512);
    fake_teardown(&f);
}

/* ---- log parameters ---- */

TEST(limits, log_parameters_that_are_not_there)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(exec(CDB(0x4d, 0, 0x4c, 0, 0, 0, 3, 0, 64, 0), NULL, 64), SENSE(5, 0x24, 0));
    CHECK_EQ(exec(CDB(0x4d, 0, 0x00, 0, 0, 0, 1, 0, 64, 0), NULL, 64), SENSE(5, 0x24, 0));
    CHECK_EQ(exec(CDB(0x4d, 1, 0x4c, 0, 0, 0, 0, 0, 64, 0), NULL, 64), SENSE(5, 0x24, 0)); /* SP */
    CHECK_EQ(exec(CDB(0x4d, 2, 0x4c, 0, 0, 0, 0, 0, 64, 0), NULL, 64), SENSE(5, 0x24, 0)); /* PPC */
    CHECK_EQ(exec(CDB(0x4c, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0), SENSE(5, 0x20, 0));
    fake_teardown(&f);
}

/* ---- without a write cache ---- */

TEST(limits, without_write_cache_a_good_status_means_durable)
{
    static const struct {
        uint8_t cdb[16];
        uint32_t bytes;
        uint8_t list[24];
    } writes[] = {
        {{0x0a, 0, 0, 0, 8}, 4096, {1}},
        {{0x2a, [8] = 8}, 4096, {1}},
        {{0xaa, [9] = 8}, 4096, {1}},
        {{0x8a, [13] = 8}, 4096, {1}},
        {{0x2e, 2, [8] = 8}, 4096, {1}},
        {{0xae, 2, [9] = 8}, 4096, {1}},
        {{0x8e, 2, [13] = 8}, 4096, {1}},
        {{0x8b, [13] = 8}, 4096, {1}},
        {{0x89, [9] = 64, [13] = 1}, 1024, {0}},
        {{0x9c, [13] = 8}, 4096, {1}},
        {{0x41, [8] = 200}, 512, {1}},
        {{0x93, [13] = 200}, 512, {0}},
        {{0x93, 0x08, [13] = 200}, 512, {0}},
        {{0x93, 0x09, [13] = 200}, 0, {0}},
        {{0x42, [8] = 24}, 24, {0, 22, 0, 16, [18] = 1}},
        {{0x04}, 0, {0}},
        {{0x48, 0x02}, 0, {0}},
        {{0x48, 0x01, [8] = 8}, 8, {1, 0, 0, 4, 1, 2, 3, 4}},
    };
    uint8_t list[] = {0, 0, 0, 0, 0x08, 18, [23] = 0};

    fake_setup_two(&f, DISK_BYTES);
    fake_unforced = 0;
    CHECK_EQ(exec(writes[1].cdb, 16, data, 4096), 0);
    CHECK(fake_unforced);
    CHECK_EQ(select_modes(0x10, list, 24), 0);
    CHECK_EQ(fake_unforced, 0); /* what was cached until then */
    for (size_t i = 0; i < ARRAY_LEN(writes); i++) {
        memset(data, 0, 4096);
        memcpy(data, writes[i].list, sizeof(writes[i].list));
        CHECK_EQ(exec(writes[i].cdb, 16, writes[i].bytes ? data : NULL, writes[i].bytes), 0);
        if (fake_unforced)
            ctest_fail(__FILE__, __LINE__, "CDB %02x %02x", writes[i].cdb[0], writes[i].cdb[1]);
        fake_unforced = 0;
    }
    fake_teardown(&f);
}

/* ---- EXTENDED COPY ---- */

/* From LUN 0 to itself. */
static uint32_t copy_list(uint8_t *list, uint8_t id, uint8_t usage, uint64_t to_lba)
{
    memset(list, 0, 76);
    list[0] = id;
    list[1] = (uint8_t)(usage << 3);
    put_be16(list + 2, 32);
    put_be32(list + 8, 28);
    CHECK_EQ(exec(CDB(0x12, 1, 0x83, 1, 0, 0), NULL, 256), 0);
    list[16] = 0xe4;
    memcpy(list + 20, data + 4, 12); /* the first designator is of 8 bytes */
    put_be24(list + 16 + 29, 512);
    list[48] = 0x02;
    put_be16(list + 50, 24);
    put_be16(list + 58, 8);
    put_be64(list + 68, to_lba);
    return 76;
}

static int copy(const uint8_t *list, uint32_t len)
{
    const uint8_t cdb[16] = {0x83, [13] = (uint8_t)len};

    return exec(cdb, 16, list, len);
}

static int copy_result(uint8_t action, uint8_t id)
{
    const uint8_t cdb[16] = {0x84, action, id, [12] = 1};

    memset(data, 0, 256);
    return exec(cdb, 16, NULL, 256);
}

TEST(limits, results_of_several_copies_are_kept_by_their_identifiers)
{
    uint8_t list[128];

    fake_setup_two(&f, DISK_BYTES);
    for (uint8_t id = 1; id <= 3; id++)
        CHECK_EQ(copy(list, copy_list(list, id, 0, 100 * id)), 0);
    for (uint8_t id = 1; id <= 3; id++) {
        CHECK_EQ(copy_result(0, id), 0);
        CHECK_EQ(data[4], 1);
        CHECK_EQ(get_be32(data + 8), 4);
        CHECK_EQ(copy_result(4, id), SENSE(5, 0x24, 0)); /* it didn't fail */
    }
    CHECK_EQ(copy_result(0, 4), SENSE(5, 0x24, 0));
    CHECK_EQ(copy(list, copy_list(list, 0, 3, 0)), 0); /* without an identifier */
    CHECK_EQ(copy_result(0, 0), SENSE(5, 0x24, 0));
    CHECK_EQ(copy(list, copy_list(list, 1, 3, 0)), SENSE(5, 0x26, 0));
    CHECK_EQ(copy(list, copy_list(list, 1, 1, 0)), SENSE(5, 0x26, 0));
    fake_teardown(&f);
}

TEST(limits, of_a_copy_that_failed_the_sense_is_kept_until_it_is_told)
{
    uint8_t list[128];

    fake_setup_two(&f, DISK_BYTES);
    f.mem->write_error = -5;
    CHECK_EQ(copy(list, copy_list(list, 9, 0, 100)), SENSE(0xa, 0x0d, 0));
    CHECK_EQ(copy_result(0, 9), 0);
    CHECK_EQ(data[4], 2);
    CHECK_EQ(copy_result(4, 9), 0);
    CHECK_EQ(get_be32(data), 56 + 18);
    CHECK_EQ(data[56], SCSI_CHECK_CONDITION);
    CHECK_EQ(get_be16(data + 58), 18);
    CHECK(data[60] == 0x70 && data[62] == 0xa && data[72] == 0x0d);
    CHECK_EQ(copy_result(4, 9), SENSE(5, 0x24, 0));
    fake_teardown(&f);
}

TEST(limits, an_identifier_in_use_is_refused_and_tells_that_it_is)
{
    uint8_t list[128];
    uint32_t len;
    struct fake_cmd *c;
    const uint8_t cdb[16] = {0x83, [13] = 76};

    fake_setup_two(&f, DISK_BYTES);
    len = copy_list(list, 5, 0, 100);
    c = fake_cmd_new(&f, cdb, 16, len, true);
    memcpy(c->data, list, len);
    f.mem->hold_writes = true;
    fake_start(c);
    REQUIRE(TURN_UNTIL(f.mem->running == 1 && f.lun->copies[0].running));
    CHECK_EQ(copy_result(0, 5), 0);
    CHECK_EQ(data[4], 0); /* at work */
    CHECK_EQ(copy(list, len), SENSE(5, 0x00, 0x16));
    f.mem->hold_writes = false;
    mem_node_release(f.mem);
    fake_wait(c);
    CHECK_EQ(fake_sense(c), 0);
    fake_cmd_free(c);
    CHECK_EQ(copy_result(0, 5), 0);
    CHECK_EQ(data[4], 1);
    CHECK_EQ(copy(list, len), 0);
    fake_teardown(&f);
}
