/* SPDX-License-Identifier: BSD-3-Clause */
/* PDU headers: what is taken from a header, what is refused, what we make. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target/pdu.h"
#include "tests/unit/ctest.h"
#include "util/byteorder.h"

static void header(uint8_t *b, uint8_t opcode, uint8_t flags)
{
    memset(b, 0, PDU_BHS_BYTES);
    b[0] = opcode;
    b[1] = flags;
    put_be32(b + 16, 0x1234);
    put_be32(b + 24, 77);
    put_be32(b + 28, 88);
}

TEST(pdu, scsi_command_fields)
{
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    header(b, PDU_SCSI_CMD, 0x80 | 0x20 | 1);
    b[4] = 3;
    put_be24(b + 5, 512);
    b[9] = 5;
    put_be32(b + 20, 4096);
    b[32] = 0x8a;
    b[47] = 0x11;
    CHECK_EQ(pdu_decode(b, &p), 0);
    CHECK_EQ(p.opcode, PDU_SCSI_CMD);
    CHECK(!p.immediate && p.final && p.cmd.write && !p.cmd.read);
    CHECK_EQ(p.cmd.attr, 1);
    CHECK_EQ(p.ahs_bytes, 12);
    CHECK_EQ(p.data_bytes, 512);
    CHECK_EQ(p.lun[1], 5);
    CHECK_EQ(p.itt, 0x1234);
    CHECK_EQ(p.cmdsn, 77);
    CHECK_EQ(p.expstatsn, 88);
    CHECK_EQ(p.cmd.edtl_bytes, 4096);
    CHECK_EQ(p.cmd.cdb[0], 0x8a);
    CHECK_EQ(p.cmd.cdb[15], 0x11);
}

/* A SCSI Command with this AHS, through both decoders. */
static void command_with_ahs(struct pdu *p, const uint8_t *ahs, uint8_t words)
{
    uint8_t b[PDU_BHS_BYTES];

    header(b, PDU_SCSI_CMD, 0x80 | 1);
    b[4] = words;
    b[32] = 0x7f;
    b[47] = 15;
    CHECK_EQ(pdu_decode(b, p), 0);
    CHECK_EQ(p->cmd.cdb_bytes, 16);
    pdu_decode_ahs(ahs, p);
}

TEST(pdu, the_rest_of_a_long_cdb_is_in_an_ahs)
{
    static const uint8_t whole[20] = {0, 17, 1, 0, 16, 17, [19] = 31};
    static const uint8_t part[16] = {0, 10, 1, 0, 16, [12] = 24};
    static const uint8_t behind[24] = {0, 1, 5, 0xff, 0, 17, 0xc1, 0, 16, [23] = 31};
    struct pdu p;

    command_with_ahs(&p, whole, 5);
    CHECK_EQ(p.cmd.cdb_bytes, 32);
    CHECK_EQ(p.cmd.cdb[15], 15);
    CHECK_EQ(p.cmd.cdb[16], 16);
    CHECK_EQ(p.cmd.cdb[31], 31);
    command_with_ahs(&p, part, 4);
    CHECK_EQ(p.cmd.cdb_bytes, 25);
    CHECK_EQ(p.cmd.cdb[24], 24);
    CHECK_EQ(p.cmd.cdb[25], 0);
    command_with_ahs(&p, behind, 6); /* another kind of AHS before it; reserved bits of the type */
    CHECK_EQ(p.cmd.cdb_bytes, 32);
    CHECK_EQ(p.cmd.cdb[31], 31);
}

TEST(pdu, an_ahs_that_no_command_can_have_is_marked)
{
    static const uint8_t longer[24] = {0, 18, 1, 0, 16};
    static const uint8_t empty[4] = {0, 1, 1, 0};
    static const uint8_t twice[40] = {0, 17, 1, [20] = 0, 17, 1};
    static const uint8_t overrun[4] = {0, 2, 5, 0};
    static const uint8_t both_ways[8] = {0, 5, 2, 0, 0, 0, 2, 0};
    static const uint8_t other[8] = {0, 5, 9};
    struct pdu p;

    command_with_ahs(&p, longer, 6);
    CHECK_EQ(p.cmd.cdb_bytes, 0);
    command_with_ahs(&p, empty, 1);
    CHECK_EQ(p.cmd.cdb_bytes, 0);
    command_with_ahs(&p, twice, 10);
    CHECK_EQ(p.cmd.cdb_bytes, 0);
    command_with_ahs(&p, overrun, 1);
    CHECK_EQ(p.cmd.cdb_bytes, 0);
    command_with_ahs(&p, both_ways, 2);
    CHECK_EQ(p.cmd.cdb_bytes, 0);
    command_with_ahs(&p, other, 2);
    CHECK_EQ(p.cmd.cdb_bytes, 16);
}

TEST(pdu, lengths_at_their_limits)
{
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    header(b, PDU_NOP_OUT | 0x40, 0x80);
    b[4] = 255;
    put_be24(b + 5, 0xffffff);
    CHECK_EQ(pdu_decode(b, &p), 0);
    CHECK_EQ(p.ahs_bytes, PDU_MAX_AHS_BYTES);
    CHECK_EQ(p.data_bytes, 0xffffff);
}

TEST(pdu, responses_and_unknown_opcodes_are_not_requests)
{
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    for (unsigned op = 0; op < 64; op++) {
        int rc;

        header(b, (uint8_t)op | 0x40, 0x80);
        rc = pdu_decode(b, &p);
        CHECK_EQ(p.opcode, op);
        CHECK_EQ(rc, op <= PDU_LOGOUT_REQ || op == PDU_SNACK ? 0 : -EOPNOTSUPP);
    }
}

TEST(pdu, reserved_tag_is_refused_but_for_nop)
{
    static const uint8_t ops[] = {PDU_SCSI_CMD, PDU_TMF_REQ,    PDU_LOGIN_REQ,
                                  PDU_TEXT_REQ, PDU_LOGOUT_REQ, PDU_DATA_OUT};
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    for (unsigned i = 0; i < sizeof(ops); i++) {
        header(b, ops[i] | 0x40, 0x80);
        put_be32(b + 16, PDU_NO_TAG);
        CHECK_EQ(pdu_decode(b, &p), -EPROTO);
    }
    header(b, PDU_NOP_OUT | 0x40, 0x80);
    put_be32(b + 16, PDU_NO_TAG);
    CHECK_EQ(pdu_decode(b, &p), 0);
    b[0] = PDU_NOP_OUT; /* without a tag it must not hold a CmdSN */
    CHECK_EQ(pdu_decode(b, &p), -EPROTO);
}

TEST(pdu, continued_text_can_not_be_final)
{
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    header(b, PDU_LOGIN_REQ | 0x40, 0x80 | 0x40);
    CHECK_EQ(pdu_decode(b, &p), -EPROTO);
    header(b, PDU_TEXT_REQ, 0x80 | 0x40);
    CHECK_EQ(pdu_decode(b, &p), -EPROTO);
    header(b, PDU_TEXT_REQ, 0x40);
    CHECK_EQ(pdu_decode(b, &p), 0);
    CHECK(p.cont && !p.final);
}

TEST(pdu, login_fields)
{
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    header(b, PDU_LOGIN_REQ | 0x40, 0x80 | 1 << 2 | 3);
    memcpy(b + 8, "\x80\x01\x02\x03\x04\x05", 6);
    put_be16(b + 14, 9);
    put_be16(b + 20, 7);
    CHECK_EQ(pdu_decode(b, &p), 0);
    CHECK_EQ(p.login.csg, PDU_STAGE_OPERATIONAL);
    CHECK_EQ(p.login.nsg, PDU_STAGE_FULL);
    CHECK_EQ(p.login.tsih, 9);
    CHECK_EQ(p.login.cid, 7);
    CHECK(!memcmp(p.login.isid, b + 8, 6));
}

TEST(pdu, padding_to_four)
{
    CHECK_EQ(pdu_pad_bytes(0), 0);
    CHECK_EQ(pdu_pad_bytes(1), 3);
    CHECK_EQ(pdu_pad_bytes(4), 0);
    CHECK_EQ(pdu_pad_bytes(0xffffff), 1);
}

TEST(pdu, serial_numbers_wrap)
{
    CHECK(sn_before(1, 2));
    CHECK(!sn_before(2, 2));
    CHECK(sn_before(0xffffffff, 0));
    CHECK(sn_before(0xfffffff0, 100));
    CHECK(!sn_before(100, 0xfffffff0));
}

TEST(pdu, residual_counts)
{
    struct pdu_residual r = pdu_residual(512, 512);

    CHECK(!r.overflow && !r.underflow && !r.bytes);
    r = pdu_residual(1024, 512);
    CHECK(r.overflow && !r.underflow);
    CHECK_EQ(r.bytes, 512);
    r = pdu_residual(0, 512);
    CHECK(!r.overflow && r.underflow);
    CHECK_EQ(r.bytes, 512);
    r = pdu_residual(UINT64_C(1) << 40, 1);
    CHECK(r.overflow);
    CHECK_EQ(r.bytes, UINT32_MAX);
}

TEST(pdu, only_the_last_data_in_of_a_series_has_the_status)
{
    uint8_t first[PDU_BHS_BYTES], b[PDU_BHS_BYTES];

    pdu_data_in(first, 0x55, 10, 8192);
    pdu_data_in_status(first, 0, pdu_residual(0, 512));
    pdu_set_sn(first, 1, 2, 3);

    pdu_data_in_cut(b, first, 1, 1024, 512, false, false);
    CHECK_EQ(b[1], 0);
    CHECK_EQ(get_be32(b + 24), 0);
    CHECK_EQ(get_be32(b + 28), 2);
    CHECK_EQ(get_be32(b + 36), 11);
    CHECK_EQ(get_be32(b + 40), 8192 + 1024);
    CHECK_EQ(get_be32(b + 44), 0);
    CHECK_EQ(get_be24(b + 5), 512);

    pdu_data_in_cut(b, first, 2, 1536, 100, true, true);
    CHECK_EQ(b[1], 0x80 | 0x01 | 0x02);
    CHECK_EQ(get_be32(b + 24), 1);
    CHECK_EQ(get_be32(b + 36), 12);
    CHECK_EQ(get_be32(b + 44), 512);
}

/* Whatever the bytes are, decoding stays inside them and says one of three things. */
TEST(pdu, random_headers)
{
    uint8_t b[PDU_BHS_BYTES];
    struct pdu p;

    srand(7143);
    for (int i = 0; i < 20000; i++) {
        int rc;

        for (int j = 0; j < PDU_BHS_BYTES; j++)
            b[j] = (uint8_t)rand();
        rc = pdu_decode(b, &p);
        CHECK(rc == 0 || rc == -EPROTO || rc == -EOPNOTSUPP);
        CHECK(p.data_bytes <= 0xffffff && p.ahs_bytes <= PDU_MAX_AHS_BYTES);
    }
}
