/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much a command moves when the initiator expects another length or another direction than the
 * CDB has: for every command that moves data, and for some that move none. Residual counts are
 * made of transfer_bytes (what the CDB moves) and the expected length, RFC 7143 11.4.5.
 */
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/size.h"

#define DISK_BYTES (8u << 20)
#define MUCH       (64u << 10)

static struct fake f;

enum { TO_NOBODY, TO_INITIATOR, FROM_INITIATOR, NR_DIRECTIONS };

struct outcome {
    int sense;
    uint64_t transfer_bytes;
    uint32_t in_len;
};

static struct outcome run(const uint8_t *cdb, const void *out, size_t out_len, uint32_t edtl,
                          int direction)
{
    struct fake_cmd *c = fake_cmd_new(&f, cdb, SCSI_MAX_CDB, edtl, direction == FROM_INITIATOR);
    struct outcome o;

    c->cmd.dir_read = direction == TO_INITIATOR;
    c->cmd.dir_write = direction == FROM_INITIATOR;
    c->cmd.cdb_bytes = cdb[0] == SCSI_VARIABLE ? 32 : 16;
    if (out)
        memcpy(c->data, out, MIN_OF(out_len, (size_t)edtl));
    fake_run(c);
    o = (struct outcome){fake_sense(c), c->cmd.transfer_bytes, c->in_len};
    fake_cmd_free(c);
    return o;
}

/* ---- data-in: what there is, cut to the allocation length, cut to what is expected ---- */

static const uint8_t ins[][SCSI_MAX_CDB] = {
    {0x03, 0, 0, 0, 252},                            /* REQUEST SENSE */
    {0x08, 0, 0, 0, 2},                              /* READ */
    {0x28, [8] = 2},                                 /* */
    {0xa8, [9] = 2},                                 /* */
    {0x88, [13] = 2},                                /* */
    {0x12, 0, 0, 1, 0},                              /* INQUIRY */
    {0x12, 1, 0, 1, 0},                              /* pages */
    {0x12, 1, 0x80, 1, 0},                           /* */
    {0x12, 1, 0x83, 1, 0},                           /* */
    {0x12, 1, 0x86, 1, 0},                           /* */
    {0x12, 1, 0xb0, 1, 0},                           /* */
    {0x12, 1, 0xb2, 1, 0},                           /* */
    {0x1a, 0, 0x3f, 0, 252},                         /* MODE SENSE */
    {0x5a, 0, 0x3f, 0xff, [7] = 4},                  /* */
    {0x1c, 1, 0, 1},                                 /* RECEIVE DIAGNOSTIC RESULTS */
    {0x25},                                          /* READ CAPACITY */
    {0x9e, 0x10, [12] = 4},                          /* */
    {0x37, 0, 0x0d, [7] = 1},                        /* READ DEFECT DATA */
    {0xb7, 0x0d, [8] = 1},                           /* */
    {0x4d, 0, 0, [7] = 1},                           /* LOG SENSE */
    {0x4d, 0, 0x0c, [7] = 1},                        /* */
    {0x5e, 0, [7] = 1},                              /* PERSISTENT RESERVE IN */
    {0x5e, 1, [7] = 1},                              /* */
    {0x5e, 2, [7] = 1},                              /* */
    {0x5e, 3, [7] = 1},                              /* */
    {0x84, 0x03, [12] = 4},                          /* RECEIVE COPY OPERATING PARAMETERS */
    {0x9e, 0x12, [12] = 4},                          /* GET LBA STATUS */
    {SCSI_VARIABLE, [7] = 24, [9] = 0x12, [30] = 4}, /* */
    {0xa0, [8] = 4},                                 /* REPORT LUNS */
    {0xa3, 0x0a, [8] = 4},                           /* REPORT TARGET PORT GROUPS */
    {0xa3, 0x0c, [8] = 0xff},                        /* REPORT SUPPORTED OPERATION CODES */
    {0xa3, 0x0c, 0x82, 0x9e, 0, 0x12, [8] = 4},      /* */
    {0xa3, 0x0d, 0x80, [8] = 4},                     /* REPORT SUPPORTED TMFS */
};

static void set_length(uint8_t *cdb, struct cdb_field at, uint64_t length)
{
    for (unsigned i = at.bytes; i-- > 0; length >>= 8)
        cdb[at.at + i] = (uint8_t)length;
}

static void check_in(const uint8_t *cdb, uint64_t all, uint32_t edtl, int direction)
{
    struct outcome o = run(cdb, NULL, 0, edtl, direction);
    uint64_t moves = direction == FROM_INITIATOR ? 0 : all;
    uint32_t given = direction == TO_INITIATOR ? (uint32_t)MIN_OF(all, (uint64_t)edtl) : 0;

    if (o.sense || o.transfer_bytes != moves || o.in_len != given) {
        ctest_fail(
            __FILE__, __LINE__,
            "CDB %02x %02x %02x, %u expected in direction %d, moves %llu: sense %#x, moved %llu, "
            "gave %u",
            cdb[0], cdb[1], cdb[2], edtl, direction, (unsigned long long)moves, o.sense,
            (unsigned long long)o.transfer_bytes, o.in_len);
    }
}

TEST(residuals, of_data_in_in_every_combination)
{
    fake_setup(&f, DISK_BYTES, true);
    for (size_t i = 0; i < ARRAY_LEN(ins); i++) {
        uint64_t all = run(ins[i], NULL, 0, MUCH, TO_INITIATOR).transfer_bytes;
        uint32_t edtls[] = {0, 1, (uint32_t)all - 1, (uint32_t)all, (uint32_t)all + 1, MUCH};

        REQUIRE(all > 1 && all < MUCH);
        check_in(ins[i], all, 0, TO_NOBODY);
        for (size_t k = 0; k < ARRAY_LEN(edtls); k++) {
            check_in(ins[i], all, edtls[k], TO_INITIATOR);
            check_in(ins[i], all, edtls[k], FROM_INITIATOR);
        }
    }
    fake_teardown(&f);
}

/* SPC-4 4.2.5.6: an allocation length of 0 is no error, a short one cuts. */
TEST(residuals, of_every_allocation_length)
{
    fake_setup(&f, DISK_BYTES, true);
    for (size_t i = 0; i < ARRAY_LEN(ins); i++) {
        uint64_t all = run(ins[i], NULL, 0, MUCH, TO_INITIATOR).transfer_bytes;
        uint64_t lengths[] = {0, 1, 3, 4, 5, all - 1, all, all + 1};
        bool bad_sa;
        const struct scsi_opcode *op = scsi_opcode_find(ins[i], &bad_sa);

        REQUIRE(op);
        if (!op->len.bytes || op->flags & OPF_MEDIUM)
            continue;
        for (size_t k = 0; k < ARRAY_LEN(lengths); k++) {
            uint8_t cdb[SCSI_MAX_CDB];

            if (ins[i][0] == 0xa3 && ins[i][1] == 0x0d && lengths[k] < 4)
                continue; /* SPC-4 6.36: at least four */
            memcpy(cdb, ins[i], sizeof(cdb));
            set_length(cdb, op->len, lengths[k]);
            check_in(cdb, MIN_OF(all, lengths[k]), MUCH, TO_INITIATOR);
            check_in(cdb, MIN_OF(all, lengths[k]), 2, TO_INITIATOR);
        }
    }
    fake_teardown(&f);
}

/* ---- data-out ---- */

/* What becomes of a command of whose data some is missing. */
enum lack {
    LACK_PART,    /* what is there is taken */
    LACK_BLOCK,   /* whole blocks that are there are taken, a part of one is refused */
    LACK_REFUSED, /* a part means nothing */
    LACK_LIST,    /* the list ends where it ends */
};

struct out {
    uint8_t cdb[SCSI_MAX_CDB];
    uint32_t bytes;
    enum lack lack;
    bool exact; /* more is refused, too: it is not what is meant */
    uint8_t list[48];
};

static const struct out outs[] = {
    {{0x0a, 0, 0, 0, 2}, 1024, LACK_PART, false, {0}},
    {{0x2a, [8] = 2}, 1024, LACK_PART, false, {0}},
    {{0xaa, [9] = 2}, 1024, LACK_PART, false, {0}},
    {{0x8a, [13] = 2}, 1024, LACK_PART, false, {0}},
    {{0x2e, 2, [8] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0xae, 2, [9] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0x8e, 2, [13] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0x8b, [13] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0x2f, 2, [8] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0xaf, 2, [9] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0x8f, 2, [13] = 2}, 1024, LACK_BLOCK, false, {0}},
    {{0x2f, 6, [8] = 2}, 512, LACK_REFUSED, true, {0}},
    {{0x41, [8] = 2}, 512, LACK_REFUSED, true, {0}},
    {{0x93, [13] = 2}, 512, LACK_REFUSED, true, {0}},
    {{0x89, [13] = 1}, 1024, LACK_REFUSED, true, {0}},
    {{0x9c, [13] = 8}, 4096, LACK_REFUSED, true, {0}},
    {{0x42, [8] = 24}, 24, LACK_LIST, false, {0, 22, 0, 16, [19] = 1}},
    {{0x15, 0x10, 0, 0, 16}, 16, LACK_REFUSED, false, {[4] = 0x0a, 10, 0, 0x10, [12] = 0xff, 0xff}},
    {{0x55, 0x10, [8] = 20}, 20, LACK_REFUSED, false, {[8] = 0x0a, 10, 0, 0x10, [16] = 0xff, 0xff}},
    {{0x5f, 0x06, [8] = 24}, 24, LACK_REFUSED, false, {[15] = 1}},
    {{0x83, [13] = 16}, 16, LACK_REFUSED, false, {0}},
};

static void check_out(const struct out *o, uint32_t edtl, int direction)
{
    struct outcome got = run(o->cdb, o->list, sizeof(o->list), edtl, direction);
    bool given = direction == FROM_INITIATOR && edtl >= o->bytes;
    bool refused = !given && (o->lack == LACK_REFUSED || (o->lack == LACK_LIST && edtl < o->bytes));
    uint64_t moves = direction == TO_INITIATOR ? 0 : o->bytes;

    if (o->lack == LACK_BLOCK && edtl < o->bytes && edtl % 512 && direction == FROM_INITIATOR) {
        CHECK_EQ(got.sense, SENSE(5, 0x0e, 0x03));
        CHECK_EQ(got.transfer_bytes, moves);
        return;
    }
    if (o->lack == LACK_LIST && direction == TO_INITIATOR)
        refused = true;
    refused |= o->exact && edtl > o->bytes;
    if (refused ? got.sense >> 16 != 5 || got.transfer_bytes > edtl
                : got.sense || got.transfer_bytes != moves) {
        ctest_fail(__FILE__, __LINE__,
                   "CDB %02x %02x, %u expected in direction %d: sense %#x, moved %llu", o->cdb[0],
                   o->cdb[1], edtl, direction, got.sense, (unsigned long long)got.transfer_bytes);
    }
}

TEST(residuals, of_data_out_in_every_combination)
{
    fake_setup(&f, DISK_BYTES, true);
    f.disk->limits.atomic_bytes = f.mem->node.limits.atomic_bytes = 4096;
    for (size_t i = 0; i < ARRAY_LEN(outs); i++) {
        const struct out *o = &outs[i];
        uint32_t edtls[] = {0, 1, o->bytes / 2, o->bytes - 1, o->bytes, o->bytes + 1, MUCH};

        check_out(o, 0, TO_NOBODY);
        for (size_t k = 0; k < ARRAY_LEN(edtls); k++) {
            check_out(o, edtls[k], FROM_INITIATOR);
            check_out(o, edtls[k], TO_INITIATOR);
        }
    }
    fake_teardown(&f);
}

/* ---- no data, though some is expected ---- */

static const uint8_t nones[][SCSI_MAX_CDB] = {
    {0x00},           {0x1b, 0, 0, 0, 1},
    {0x1d, 0x04},     {0x34, [8] = 2},
    {0x90, [13] = 2}, {0x35},
    {0x91},           {0x16},
    {0x17},           {0x56},
    {0x57},           {0x2f, [8] = 2},
    {0x8f, [13] = 2}, {0x93, 0x01, [13] = 2},
    {0x2a},           {0x28},
    {0x42},           {0x15, 0x10},
    {0x83},           {0x9c},
};

TEST(residuals, of_commands_that_move_nothing)
{
    fake_setup(&f, DISK_BYTES, true);
    f.disk->limits.atomic_bytes = f.mem->node.limits.atomic_bytes = 4096;
    for (size_t i = 0; i < ARRAY_LEN(nones); i++) {
        for (int direction = 0; direction < NR_DIRECTIONS; direction++) {
            struct outcome o = run(nones[i], NULL, 0, direction ? 512 : 0, direction);

            if (o.sense || o.transfer_bytes || o.in_len) {
                ctest_fail(__FILE__, __LINE__, "CDB %02x: sense %#x", nones[i][0], o.sense);
            }
        }
    }
    fake_teardown(&f);
}
