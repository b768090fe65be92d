/* SPDX-License-Identifier: BSD-3-Clause */
/* What is on the disk: zeroed, repeated, compared, and told by GET LBA and LAYER STATUS. */
#include <string.h>
#include "lun-backends/formats.h"
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"

#define DISK_BYTES  (8u << 20)
#define DISK_BLOCKS (DISK_BYTES / 512)

static struct fake f;
static uint8_t data[FAKE_DATA_MAX];

/* ---- UNMAP, WRITE SAME, VERIFY ---- */

static uint32_t unmap_list(uint8_t *b, unsigned n, const uint32_t (*ranges)[2])
{
    memset(b, 0, 8 + 16 * n);
    put_be16(b, (uint16_t)(6 + 16 * n));
    put_be16(b + 2, (uint16_t)(16 * n));
    for (unsigned i = 0; i < n; i++) {
        put_be64(b + 8 + 16 * i, ranges[i][0]);
        put_be32(b + 8 + 16 * i + 8, ranges[i][1]);
    }
    return 8 + 16 * n;
}

static int unmap(const uint8_t *list, uint32_t len)
{
    uint8_t cdb[10] = {0x42};

    put_be16(cdb + 7, (uint16_t)len);
    return fake_exec(&f, cdb, 10, (void *)list, len, true);
}

TEST(scsi_status, unmap_makes_zeros_of_each_range)
{
    uint32_t len;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    len = unmap_list(data, 3, (const uint32_t[][2]){{0, 8}, {8, 0}, {64, 8}});
    CHECK_EQ(unmap(data, len), 0);
    CHECK(mem_node_state(f.mem, 0) != BLK_ST_DATA);
    CHECK(mem_node_state(f.mem, 4096) == BLK_ST_DATA);
    CHECK(mem_node_state(f.mem, 32768) != BLK_ST_DATA);
    fake_teardown(&f);
}

TEST(scsi_status, unmap_touches_nothing_if_any_range_is_bad)
{
    uint32_t len;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    len = unmap_list(data, 2, (const uint32_t[][2]){{0, 8}, {DISK_BLOCKS, 1}});
    CHECK_EQ(unmap(data, len), SENSE(5, 0x21, 0));
    CHECK(mem_node_state(f.mem, 0) == BLK_ST_DATA);
    fake_teardown(&f);
}

TEST(scsi_status, unmap_list_lengths_are_checked)
{
    uint32_t len;

    fake_setup(&f, DISK_BYTES, true);
    len = unmap_list(data, 1, (const uint32_t[][2]){{0, 8}});
    CHECK_EQ(unmap(data, 0), 0);
    CHECK_EQ(unmap(data, 7), SENSE(5, 0x1a, 0));
    mem_node_fill(f.mem, 0, 8192, BLK_ST_DATA, 0x77);
    CHECK_EQ(unmap(data, len - 1), 0); /* SBC-3 5.28.2: what is cut off is ignored */
    CHECK_EQ(f.mem->data[0], 0x77);
    len = unmap_list(data, 2, (const uint32_t[][2]){{0, 8}, {8, 8}});
    CHECK_EQ(unmap(data, len - 16), 0);
    CHECK_EQ(f.mem->data[0], 0);
    CHECK_EQ(f.mem->data[4096], 0x77);
    put_be16(data + 2, 16 * 256);
    CHECK_EQ(unmap(data, len), SENSE(5, 0x26, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0), data, 24, true),
             SENSE(5, 0x24, 0));
    fake_teardown(&f);
}

TEST(scsi_status, write_same_repeats_its_block)
{
    fake_setup(&f, DISK_BYTES, true);
    fake_fill_pattern(data, 512, 9);
    CHECK_EQ(fake_exec(&f, CDB(0x41, 0, 0, 0, 0, 3, 0, 0x08, 0, 0), data, 512, true), 0);
    for (unsigned i = 3; i < 3 + 2048; i += 1)
        CHECK(!memcmp(f.mem->data + 512 * i, data, 512));
    CHECK_EQ(f.mem->data[512 * 2], 0);
    CHECK_EQ(f.mem->data[512 * (3 + 2048)], 0);
    fake_teardown(&f);
}

TEST(scsi_status, write_same_of_zeros_is_a_zero_request_and_0_blocks_are_refused)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, DISK_BYTES, BLK_ST_DATA, 0x42);
    memset(data, 0, 512);
    CHECK_EQ(fake_exec(&f, CDB(0x41, 8, 0, 0, 0, 8, 0, 0, 0, 0), data, 512, true),
             SENSE(5, 0x24, 0)); /* WSNZ */
    CHECK_EQ(fake_exec(&f, CDB(0x41, 8, 0, 0, 0, 8, 0, 0, 8, 0), data, 512, true), 0);
    CHECK_EQ(f.mem->data[4095], 0x42);
    CHECK_EQ(f.mem->data[4096], 0);
    CHECK_EQ(f.mem->data[8191], 0);
    CHECK_EQ(f.mem->data[8192], 0x42);
    CHECK_EQ(f.mem->writes, 0);
    fake_teardown(&f);
}

TEST(scsi_status, write_same_16_with_ndob_takes_no_data)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    CHECK_EQ(fake_exec(&f, CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), NULL, 0, false),
             0);
    CHECK_EQ(f.mem->data[0], 0);
    CHECK_EQ(f.mem->data[4096], 0x42);
    fake_teardown(&f);
}

TEST(scsi_status, verify_compares_and_tells_where_it_differs)
{
    struct fake_cmd *v;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    memset(data, 0x42, 4096);
    CHECK_EQ(fake_exec(&f, CDB(0x2f, 2, 0, 0, 0, 0, 0, 0, 8, 0), data, 4096, true), 0);
    CHECK_EQ(fake_exec(&f, CDB(0x2f, 0, 0, 0, 0, 0, 0, 0, 8, 0), NULL, 0, false), 0);
    v = fake_cmd_new(&f, CDB(0x2f, 2, 0, 0, 0, 0, 0, 0, 8, 0), 4096, true);
    memset(v->data, 0x42, 4096);
    v->data[1000] = 0;
    fake_run(v);
    CHECK_EQ(fake_sense(v), SENSE(0xe, 0x1d, 0));
    CHECK_EQ(get_be32(v->cmd.sense + 3), 1000);
    fake_cmd_free(v);
    fake_teardown(&f);
}

/* ---- status ---- */

static int lba_status(uint64_t lba, uint32_t alloc_len)
{
    uint8_t cdb[16] = {0x9e, 0x12};

    put_be64(cdb + 2, lba);
    put_be32(cdb + 10, alloc_len);
    memset(data, 0xee, 4096);
    return fake_exec(&f, cdb, 16, data, alloc_len, false);
}

TEST(scsi_status, get_lba_status_merges_and_starts_at_the_lba_asked)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 8192, 8192, BLK_ST_DATA, 1);
    mem_node_fill(f.mem, 16384, 4096, BLK_ST_ZERO, 0);
    CHECK_EQ(lba_status(20, 4096), 0);
    CHECK_EQ(get_be32(data), 4 + 2 * 16);
    CHECK_EQ(get_be64(data + 8), 20);
    CHECK_EQ(get_be32(data + 16), 12);
    CHECK_EQ(data[20], 0);
    CHECK_EQ(get_be64(data + 24), 32);
    CHECK_EQ(get_be32(data + 32), DISK_BLOCKS - 32); /* zeros and undecided are one */
    CHECK_EQ(data[36], 1);
    fake_teardown(&f);
}

static int lba_status_of_type(uint8_t type, uint32_t lba)
{
    memset(data, 0xee, 4096);
    return fake_exec(&f, CDB(0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, (uint8_t)lba, 0, 0, 0x10, 0, type, 0),
                     data, 4096, false);
}

TEST(scsi_status, get_lba_status_tells_only_what_the_report_type_asks_for)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 8192, 8192, BLK_ST_DATA, 1);
    mem_node_fill(f.mem, 32768, 4096, BLK_ST_DATA, 1);
    CHECK_EQ(lba_status_of_type(2, 20), 0); /* mapped */
    CHECK_EQ(get_be32(data), 4 + 2 * 16);
    CHECK_EQ(data[7] & 1, 1); /* RTP */
    CHECK_EQ(get_be64(data + 8), 20);
    CHECK_EQ(get_be32(data + 16), 12);
    CHECK_EQ(get_be64(data + 24), 64);
    CHECK_EQ(get_be32(data + 32), 8);
    for (uint8_t type = 1; type <= 3; type += 2) { /* not mapped; deallocated */
        CHECK_EQ(lba_status_of_type(type, 0), 0);
        CHECK_EQ(get_be32(data), 4 + 3 * 16);
        CHECK_EQ(get_be64(data + 24), 32);
        CHECK_EQ(get_be32(data + 32), 32);
        CHECK_EQ(data[36], 1);
    }
    for (unsigned type = 4; type <= 0x10; type += 12) { /* anchored; maybe unreadable: none */
        CHECK_EQ(lba_status_of_type((uint8_t)type, 0), 0);
        CHECK_EQ(get_be32(data), 4);
    }
    CHECK_EQ(lba_status_of_type(5, 0), SENSE(5, 0x24, 0));
    CHECK_EQ(lba_status_of_type(0xff, 0), SENSE(5, 0x24, 0));
    fake_teardown(&f);
}

/* SBC-4 5.9 */
static int lba_status32(uint8_t type, uint64_t lba, uint32_t scan, uint32_t element,
                        uint32_t alloc_len)
{
    uint8_t cdb[32] = {0x7f, [7] = 0x18, [9] = 0x12, [10] = type};

    put_be64(cdb + 12, lba);
    put_be32(cdb + 20, scan);
    put_be32(cdb + 24, element);
    put_be32(cdb + 28, alloc_len);
    memset(data, 0xee, 4096);
    return fake_exec(&f, cdb, 32, data, alloc_len, false);
}

TEST(scsi_status, get_lba_status_32_tells_the_same_as_the_short_one)
{
    static uint8_t other[4096];

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 8192, 8192, BLK_ST_DATA, 1);
    mem_node_fill(f.mem, 32768, 4096, BLK_ST_DATA, 1);
    for (uint8_t type = 0; type <= 4; type++) {
        CHECK_EQ(lba_status_of_type(type, 20), 0);
        memcpy(other, data, sizeof(other));
        CHECK_EQ(lba_status32(type, 20, 0, 0, 4096), 0);
        CHECK(!memcmp(data, other, sizeof(other)));
        CHECK_EQ(data[7] >> 1, 3); /* up to the capacity */
    }
    CHECK_EQ(lba_status32(5, 0, 0, 0, 4096), SENSE(5, 0x24, 0));
    CHECK_EQ(lba_status32(0, 0, 0, 1, 4096), SENSE(5, 0x24, 0));
    CHECK_EQ(lba_status32(0, DISK_BLOCKS, 0, 0, 24), SENSE(5, 0x21, 0));
    fake_teardown(&f);
}

TEST(scsi_status, get_lba_status_32_looks_no_further_than_the_scan_length)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 8192, 8192, BLK_ST_DATA, 1);
    mem_node_fill(f.mem, 32768, 4096, BLK_ST_DATA, 1);
    CHECK_EQ(lba_status32(2, 0, 20, 0, 4096), 0); /* mapped */
    CHECK_EQ(get_be32(data), 4 + 16);
    CHECK_EQ(get_be64(data + 8), 16);
    CHECK_EQ(get_be32(data + 16), 4);
    CHECK_EQ(data[7], 0x01 | 2 << 1);
    CHECK_EQ(lba_status32(2, 0, 16, 0, 4096), 0);
    CHECK_EQ(get_be32(data), 4);
    CHECK_EQ(lba_status32(2, 0, UINT32_MAX, 0, 4096), 0);
    CHECK_EQ(get_be32(data), 4 + 2 * 16);
    CHECK_EQ(data[7], 0x01 | 3 << 1);
    CHECK_EQ(lba_status32(0, 0, 0, 0, 24), 0);
    CHECK_EQ(data[7], 0x01 | 1 << 1);
    fake_teardown(&f);
}

TEST(scsi_status, a_cdb_of_another_length_than_its_command_is_refused)
{
    uint8_t cdb[32] = {0x7f, [7] = 0x18, [9] = 0x12, [31] = 64};
    struct fake_cmd *c;

    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, cdb, 32, data, 64, false), 0);
    CHECK_EQ(fake_exec(&f, cdb, 16, data, 64, false), SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, cdb, 28, data, 64, false), SENSE(5, 0x24, 0));
    cdb[7] = 0x17;
    CHECK_EQ(fake_exec(&f, cdb, 32, data, 64, false), SENSE(5, 0x24, 0));
    cdb[7] = 0x18;
    cdb[8] = 1; /* service action 0112h */
    CHECK_EQ(fake_exec(&f, cdb, 32, data, 64, false), SENSE(5, 0x24, 0));
    memset(cdb, 0, sizeof(cdb));
    CHECK_EQ(fake_exec(&f, cdb, 32, NULL, 0, false), SENSE(5, 0x20, 0)); /* TEST UNIT READY */
    c = fake_cmd_new(&f, cdb, 16, 0, false);
    c->cmd.cdb_bytes = 0;
    fake_run(c);
    CHECK_EQ(fake_sense(c), SENSE(5, 0x20, 0));
    fake_cmd_free(c);
    fake_teardown(&f);
}

TEST(scsi_status, usage_data_tells_the_service_action_itself)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x7f, 0, 0x12, 0, 0, 1, 0, 0, 0), data, 256, false),
             0);
    CHECK_EQ(data[1], 3);
    CHECK_EQ(get_be16(data + 2), 32);
    CHECK_EQ(data[4], 0x7f);
    CHECK_EQ(get_be16(data + 4 + 8), 0x12);
    CHECK_EQ(get_be32(data + 4 + 28), UINT32_MAX);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x9e, 0, 0x12, 0, 0, 1, 0, 0, 0), data, 256, false),
             0);
    CHECK_EQ(data[4 + 1], 0x12);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x7f, 1, 0x12, 0, 0, 1, 0, 0, 0), data, 256, false),
             0);
    CHECK_EQ(data[1], 1);
    fake_teardown(&f);
}

TEST(scsi_status, get_lba_status_fits_the_allocation_length)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 8192, 8192, BLK_ST_DATA, 1);
    CHECK_EQ(lba_status(0, 24), 0);
    CHECK_EQ(get_be32(data), 20);
    CHECK_EQ(get_be32(data + 16), 16);
    CHECK_EQ(data[24], 0xee);
    CHECK_EQ(lba_status(0, 10), 0);
    CHECK_EQ(data[10], 0xee);
    CHECK_EQ(lba_status(0, 0), 0);
    CHECK_EQ(lba_status(DISK_BLOCKS, 24), SENSE(5, 0x21, 0));
    fake_teardown(&f);
}

TEST(scsi_status, anchored_zeros_are_told_apart_on_delta_views)
{
    fake_setup(&f, DISK_BYTES, false);
    mem_node_fill(f.mem, 0, 4096, BLK_ST_ZERO, 0);
    f.lun->anchored_zeros = true;
    CHECK_EQ(lba_status(0, 4096), 0);
    CHECK_EQ(data[20], 2);
    CHECK_EQ(data[36], 1);
    fake_teardown(&f);
}

TEST(scsi_status, anchor_is_taken_only_where_it_can_be_kept)
{
    uint8_t list[24] = {0, 22, 0, 16, [19] = 8};

    fake_setup(&f, DISK_BYTES, true);
    for (unsigned can = 0; can < 2; can++) {
        uint8_t byte = can ? 0 : 0x5a;
        int want = can ? 0 : SENSE(5, 0x24, 0);

        f.disk->limits.can_anchor = f.mem->node.limits.can_anchor = can;
        mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x5a);
        CHECK_EQ(fake_exec(&f, CDB(0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0), list, 24, true), want);
        CHECK_EQ(f.mem->data[0], byte);
        memset(data, 0, 512);
        CHECK_EQ(fake_exec(&f, CDB(0x41, 0x18, 0, 0, 0, 16, 0, 0, 8, 0), data, 512, true), want);
        CHECK_EQ(f.mem->data[8192], byte);
        CHECK_EQ(fake_exec(&f, CDB(0x93, 0x19, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 8, 0, 0), NULL, 0,
                           false),
                 want);
        CHECK_EQ(f.mem->data[16384], byte);
        /* without UNMAP it makes no sense */
        CHECK_EQ(fake_exec(&f, CDB(0x41, 0x10, 0, 0, 0, 16, 0, 0, 8, 0), data, 512, true),
                 SENSE(5, 0x24, 0));
    }
    fake_teardown(&f);
}

TEST(scsi_status, an_extent_of_more_than_32_bits_of_blocks_is_split)
{
    struct blk_node *big;
    struct fake_cmd *c;
    uint8_t cdb[16] = {0x9e, 0x12, [12] = 1};

    fake_setup(&f, DISK_BYTES, false);
    big = zero_node_new(UINT64_C(1) << 42); /* 2^33 blocks */
    REQUIRE(fake_add_lun(&f, &(struct lun_opts){.number = 1, .root = big}));
    blk_node_unref(big);
    c = fake_cmd_new(&f, CDB(0, 0, 0, 0, 0, 0), 0, false); /* takes the unit attention */
    c->cmd.lun_field[1] = 1;
    fake_run(c);
    fake_cmd_free(c);
    c = fake_cmd_new(&f, cdb, 16, 256, false);
    c->cmd.lun_field[1] = 1;
    fake_run(c);
    CHECK_EQ(fake_sense(c), 0);
    CHECK_EQ(get_be32(c->data), 4 + 3 * 16);
    CHECK_EQ(get_be32(c->data + 16), UINT32_MAX);
    CHECK(get_be64(c->data + 24) == UINT32_MAX);
    CHECK(get_be64(c->data + 40) == 2 * (uint64_t)UINT32_MAX);
    CHECK_EQ(get_be32(c->data + 48), 2);
    fake_cmd_free(c);
    fake_teardown(&f);
}

TEST(scsi_status, get_layer_status_tells_state_depth_and_generation)
{
    struct cowl_page pg = {.nr_layers = 2, .generation = 77};
    struct cowl_extent ext[8];
    struct mem_node *base;
    uint32_t generation;
    uint64_t next;
    uint8_t cdb[16];

    fake_setup(&f, DISK_BYTES, false);
    base = mem_node_new(DISK_BYTES / 2, 4096); /* shorter than its overlay */
    blk_set_backing(&f.mem->node, &base->node);
    mem_node_fill(f.mem, 0, 4096, BLK_ST_DATA, 1);
    mem_node_fill(f.mem, 4096, 4096, BLK_ST_ZERO, 0);
    mem_node_fill(base, 8192, 4096, BLK_ST_DATA, 1);
    blk_node_unref(&base->node);
    lun_set_cowl(f.lun, &pg, false);
    cowl_status_cdb(cdb, 0, 4096, 0);
    memset(data, 0, 4096);
    CHECK_EQ(fake_exec(&f, cdb, 16, data, 4096, false), 0);
    CHECK_EQ(cowl_status_decode(data, 16 + 5 * 16, 0, DISK_BLOCKS, &generation, &next, ext, 8), 5);
    CHECK_EQ(generation, 77);
    CHECK_EQ(next, DISK_BLOCKS);
    CHECK(ext[0].state == COWL_DATA && ext[0].depth == 0 && ext[0].blocks == 8);
    CHECK(ext[1].state == COWL_ZERO && ext[1].depth == 0 && ext[1].blocks == 8);
    CHECK(ext[2].state == COWL_DATA && ext[2].depth == 1 && ext[2].blocks == 8);
    CHECK(ext[3].state == COWL_UNDECIDED && ext[3].depth == COWL_NO_DEPTH);
    CHECK(ext[4].state == COWL_ZERO && ext[4].depth == 0);
    CHECK_EQ(ext[4].lba, DISK_BLOCKS / 2);
    fake_teardown(&f);
}

TEST(scsi_status, a_status_walk_can_be_aborted_and_outlives_nothing)
{
    struct fake_cmd *c;
    uint8_t cdb[16] = {0x9e, 0x12, [12] = 1};

    fake_setup(&f, DISK_BYTES, false);
    c = fake_cmd_new(&f, cdb, 16, 256, false);
    fake_start(c);
    scsi_cmd_abort(&c->cmd);
    fake_wait(c);
    CHECK(c->cmd.aborted);
    CHECK_EQ(c->in_len, 0);
    CHECK_EQ(f.lun->nr_walks, 0);
    fake_cmd_free(c);
    fake_teardown(&f);
}
