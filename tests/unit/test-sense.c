/* SPDX-License-Identifier: BSD-3-Clause */
/* Sense data: layout in both formats, and what an errno becomes. */
#include <errno.h>
#include "target/sense.h"
#include "tests/unit/ctest.h"
#include "util/byteorder.h"

static uint8_t buf[SENSE_MAX_BUILT];

TEST(sense, fixed_format_has_18_bytes_key_and_code)
{
    CHECK_EQ(sense_build(buf, &(struct sense){.id = SENSE_INVALID_OPCODE}, false), 18);
    CHECK_EQ(buf[0], 0x70);
    CHECK_EQ(buf[2], 0x05);
    CHECK_EQ(buf[7], 10);
    CHECK_EQ(buf[12], 0x20);
    CHECK_EQ(buf[13], 0x00);
    CHECK_EQ(buf[15], 0);
}

TEST(sense, descriptor_format_without_details_has_8_bytes)
{
    CHECK_EQ(sense_build(buf, &(struct sense){.id = SENSE_NO_SPACE}, true), 8);
    CHECK_EQ(buf[0], 0x72);
    CHECK_EQ(buf[1], 0x07);
    CHECK_EQ(buf[2], 0x27);
    CHECK_EQ(buf[3], 0x07);
    CHECK_EQ(buf[7], 0);
}

TEST(sense, information_is_valid_when_it_fits)
{
    struct sense s = {.id = SENSE_READ_ERROR, .has_info = true, .info = 0x12345678};

    sense_build(buf, &s, false);
    CHECK_EQ(buf[0], 0xf0);
    CHECK_EQ(get_be32(buf + 3), 0x12345678);
}

TEST(sense, information_of_more_than_32_bits_is_left_out_of_fixed_format)
{
    struct sense s = {.id = SENSE_READ_ERROR, .has_info = true, .info = UINT64_C(1) << 32};

    sense_build(buf, &s, false);
    CHECK_EQ(buf[0], 0x70);
    CHECK_EQ(get_be32(buf + 3), 0);
    CHECK_EQ(sense_build(buf, &s, true), 20);
    CHECK_EQ(buf[7], 12);
    CHECK_EQ(buf[8], 0x00);
    CHECK_EQ(buf[9], 0x0a);
    CHECK_EQ(buf[10], 0x80);
    CHECK(get_be64(buf + 12) == UINT64_C(1) << 32);
}

TEST(sense, field_pointer_names_byte_and_bit_of_the_cdb)
{
    struct sense s = {
        .id = SENSE_INVALID_FIELD_CDB, .has_field = true, .field_byte = 14, .field_bit = 4};

    sense_build(buf, &s, false);
    CHECK_EQ(buf[15], 0xcc); /* SKSV, C/D, BPV, bit 4 */
    CHECK_EQ(get_be16(buf + 16), 14);
    CHECK_EQ(sense_build(buf, &s, true), 16);
    CHECK_EQ(buf[8], 0x02);
    CHECK_EQ(buf[12], 0xcc);
}

TEST(sense, field_pointer_into_a_parameter_list_clears_c_d)
{
    struct sense s = {
        .id = SENSE_INVALID_FIELD_PARAM, .has_field = true, .field_byte = 2, .field_bit = -1};

    sense_build(buf, &s, false);
    CHECK_EQ(buf[15], 0x80);
    CHECK_EQ(get_be16(buf + 16), 2);
}

TEST(sense, errno_depends_on_direction)
{
    CHECK_EQ(sense_of_errno(-EIO, false), SENSE_READ_ERROR);
    CHECK_EQ(sense_of_errno(-EIO, true), SENSE_WRITE_ERROR);
    CHECK_EQ(sense_of_errno(-ENOSPC, true), SENSE_NO_SPACE);
    CHECK_EQ(sense_of_errno(-EROFS, true), SENSE_WRITE_PROTECTED);
    CHECK_EQ(sense_of_errno(-EHOSTDOWN, false), SENSE_SOURCE_LOST);
    CHECK_EQ(sense_of_errno(-EINVAL, true), SENSE_INTERNAL_FAILURE);
}

TEST(sense, every_condition_but_none_has_a_key)
{
    for (unsigned id = SENSE_NONE + 1; id < SENSE_NR; id++) {
        sense_build(buf, &(struct sense){.id = (enum sense_id)id}, false);
        CHECK(buf[2] != 0);
        CHECK(buf[12] != 0 || buf[13] != 0 || id == SENSE_COPY_RANGE);
    }
}
