/* SPDX-License-Identifier: BSD-3-Clause */
/* SCSI commands over a disk in memory, from CDB to status. */
#include <errno.h>
#include <string.h>
#include "lun-backends/formats.h"
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/cow-wire.h"
#include "util/size.h"

#define DISK_BYTES  (8u << 20)
#define DISK_BLOCKS (DISK_BYTES / 512)

static struct fake f;
static uint8_t data[FAKE_DATA_MAX];

static void rw_cdb(uint8_t cdb[10], uint8_t opcode, uint32_t lba, uint16_t blocks)
{
    memset(cdb, 0, 10);
    cdb[0] = opcode;
    put_be32(cdb + 2, lba);
    put_be16(cdb + 7, blocks);
}

static struct fake_cmd *rw_new(uint8_t opcode, uint32_t lba, uint16_t blocks)
{
    uint8_t cdb[10];

    rw_cdb(cdb, opcode, lba, blocks);
    return fake_cmd_new(&f, cdb, 10, blocks * 512u, opcode != 0x28);
}

static void fill_pattern(uint8_t *b, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        b[i] = (uint8_t)(i / 512 * 7 + i + seed);
}

TEST(scsi, what_was_written_is_read_back_in_chunks)
{
    const uint16_t blocks = 5000; /* 2.4 MiB: several chunks, the last one odd */
    struct fake_cmd *w, *r;

    fake_setup(&f, DISK_BYTES, true);
    w = rw_new(0x2a, 33, blocks);
    fill_pattern(w->data, blocks * 512u, 1);
    w->cmd.chunk_bytes = 100000; /* not a multiple of a block */
    fake_run(w);
    CHECK_EQ(fake_sense(w), 0);
    CHECK_EQ(w->cmd.transfer_bytes, blocks * 512u);
    r = rw_new(0x28, 33, blocks);
    fake_run(r);
    CHECK_EQ(fake_sense(r), 0);
    CHECK_EQ(r->in_len, blocks * 512u);
    CHECK(!memcmp(r->data, w->data, blocks * 512u));
    fake_cmd_free(w);
    fake_cmd_free(r);
    fake_teardown(&f);
}

TEST(scsi, read_of_fewer_bytes_than_the_cdb_says_gives_those_and_tells_the_rest)
{
    struct fake_cmd *r;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 8192, BLK_ST_DATA, 0x5a);
    r = rw_new(0x28, 0, 2);
    r->cmd.edtl_bytes = 700;
    fake_run(r);
    CHECK_EQ(fake_sense(r), 0);
    CHECK_EQ(r->in_len, 700);
    CHECK_EQ(r->data[699], 0x5a);
    CHECK_EQ(r->cmd.transfer_bytes, 1024);
    fake_cmd_free(r);
    fake_teardown(&f);
}

static struct fake_cmd *write_of(uint32_t edtl)
{
    struct fake_cmd *w = rw_new(0x2a, 0, 2);

    memset(w->data, 0x11, 1024);
    w->cmd.edtl_bytes = edtl;
    fake_run(w);
    CHECK_EQ(w->cmd.transfer_bytes, 1024);
    return w;
}

TEST(scsi, write_of_fewer_bytes_writes_those_and_no_more)
{
    static const uint32_t edtls[] = {512, 700, 200, 1023};

    fake_setup(&f, DISK_BYTES, true);
    for (size_t i = 0; i < ARRAY_LEN(edtls); i++) {
        struct fake_cmd *w;

        mem_node_fill(f.mem, 0, 4096, BLK_ST_DATA, 0x5a);
        w = write_of(edtls[i]);
        CHECK_EQ(fake_sense(w), 0);
        CHECK_EQ(f.mem->data[0], 0x11);
        CHECK_EQ(f.mem->data[edtls[i] - 1], 0x11);
        CHECK_EQ(f.mem->data[edtls[i]], 0x5a);
        CHECK_EQ(f.mem->data[1023], 0x5a);
        fake_cmd_free(w);
    }
    fake_teardown(&f);
}

TEST(scsi, wrong_direction_moves_nothing)
{
    struct fake_cmd *w;

    fake_setup(&f, DISK_BYTES, true);
    w = rw_new(0x2a, 0, 1);
    memset(w->data, 0x11, 512);
    w->cmd.dir_write = false;
    w->cmd.dir_read = true;
    fake_run(w);
    CHECK_EQ(w->in_len, 0);
    CHECK_EQ(f.mem->writes, 0);
    fake_cmd_free(w);
    fake_teardown(&f);
}

TEST(scsi, ranges_past_the_end_are_refused)
{
    uint8_t cdb16[16] = {0x88};

    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0, 0, 0, 0x40, 0, 0, 0, 1, 0), data, 512, false),
             SENSE(5, 0x21, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0, 0, 0, 0x3f, 0xff, 0, 0, 2, 0), data, 1024, false),
             SENSE(5, 0x21, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0, 0, 0, 0x3f, 0xff, 0, 0, 1, 0), data, 512, false), 0);
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0, 0, 0, 0x40, 0, 0, 0, 0, 0), NULL, 0, false), 0);
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0, 0, 0, 0x40, 1, 0, 0, 0, 0), NULL, 0, false),
             SENSE(5, 0x21, 0));
    put_be64(cdb16 + 2, UINT64_MAX);
    put_be32(cdb16 + 10, 2);
    CHECK_EQ(fake_exec(&f, cdb16, 16, data, 1024, false), SENSE(5, 0x21, 0));
    fake_teardown(&f);
}

TEST(scsi, more_than_the_maximum_transfer_length_is_refused)
{
    uint8_t cdb[16] = {0x88};

    fake_setup(&f, UINT64_C(64) << 20, true);
    put_be32(cdb + 10, LUN_MAX_TRANSFER_BLOCKS + 1);
    CHECK_EQ(fake_exec(&f, cdb, 16, data, 4096, false), SENSE(5, 0x24, 0));
    put_be32(cdb + 10, LUN_MAX_TRANSFER_BLOCKS);
    CHECK_EQ(fake_exec(&f, cdb, 16, data, 4096, false), 0);
    fake_teardown(&f);
}

TEST(scsi, read_6_with_length_0_reads_256_blocks)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 1u << 20, BLK_ST_DATA, 0x77);
    memset(data, 0, sizeof(data));
    CHECK_EQ(fake_exec(&f, CDB(0x08, 0, 0, 8, 0, 0), data, 256 * 512, false), 0);
    CHECK_EQ(data[256 * 512 - 1], 0x77);
    CHECK_EQ(fake_exec(&f, CDB(0x08, 0x1f, 0xff, 0xff, 1, 0), data, 512, false), SENSE(5, 0x21, 0));
    fake_teardown(&f);
}

TEST(scsi, read_only_lun_refuses_everything_that_writes)
{
    static const struct {
        uint8_t cdb[16], len;
    } cmds[] = {
        {{0x0a, 0, 0, 0, 1}, 6}, {{0x2a, [8] = 1}, 10}, {{0xaa, [9] = 1}, 12},
        {{0x8a, [13] = 1}, 16},  {{0x41, [8] = 1}, 10}, {{0x93, [13] = 1}, 16},
        {{0x42, [8] = 24}, 10},
    };

    fake_setup(&f, DISK_BYTES, false);
    for (unsigned i = 0; i < ARRAY_LEN(cmds); i++)
        CHECK_EQ(fake_exec(&f, cmds[i].cdb, cmds[i].len, data, 512, true), SENSE(7, 0x27, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0, false), 0);
    fake_teardown(&f);
}

TEST(scsi, protection_and_naca_bits_are_invalid_fields)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0), data, 512, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x00, 0, 0, 0, 0, 0x04), NULL, 0, false), SENSE(5, 0x24, 0));
    fake_teardown(&f);
}

TEST(scsi, unknown_commands_are_invalid_opcodes_or_fields)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0x7e, 0, 0, 0, 0, 0), NULL, 0, false), SENSE(5, 0x20, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x7f, 0, 0, 0, 0, 0), NULL, 0, false), SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x5e, 4, 0, 0, 0, 0, 0, 0, 8, 0), data, 8, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(
        fake_exec(&f, CDB(0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0, false),
        SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(COWL_OPCODE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0,
                       false),
             SENSE(5, 0x20, 0)); /* not a chain */
    fake_teardown(&f);
}

TEST(scsi, medium_errors_tell_the_block)
{
    struct fake_cmd *r;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 1);
    f.mem->read_error = -EIO;
    r = rw_new(0x28, 5, 8);
    fake_run(r);
    CHECK_EQ(fake_sense(r), SENSE(3, 0x11, 0));
    CHECK_EQ(r->cmd.sense[0], 0xf0);
    CHECK_EQ(get_be32(r->cmd.sense + 3), 5);
    CHECK_EQ(r->cmd.transfer_bytes, 0);
    fake_cmd_free(r);
    f.mem->write_error = -ENOSPC;
    CHECK_EQ(fake_exec(&f, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), data, 512, true),
             SENSE(7, 0x27, 7));
    f.mem->read_error = f.mem->write_error = 0;
    fake_teardown(&f);
}

/* ---- unit attentions ---- */

TEST(scsi, unit_attentions_are_told_once_and_in_order)
{
    struct cowl_page pg = {.nr_layers = 1};

    fake_setup(&f, DISK_BYTES, true);
    scsi_lun_reset(&f.target, 0, NULL);
    lun_set_cowl(f.lun, &pg, true);
    lun_set_cowl(f.lun, &pg, true);
    CHECK_EQ(fake_exec(&f, CDB(0x12, 0, 0, 0, 96, 0), data, 96, false), 0); /* keeps them */
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), SENSE(6, 0x29, 3));
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), SENSE(6, 0x3f, 3));
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), 0);
    fake_teardown(&f);
}

TEST(scsi, a_new_nexus_has_power_on_pending_and_nothing_else)
{
    fake_setup(&f, DISK_BYTES, true);
    nexus_fini(&f.nexus);
    nexus_init(&f.nexus, &f.target, "iqn.x", (const uint8_t[6]){0}, 1);
    scsi_lun_reset(&f.target, 0, NULL);
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), SENSE(6, 0x29, 0));
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), 0);
    fake_teardown(&f);
}

TEST(scsi, request_sense_returns_a_pending_unit_attention)
{
    fake_setup(&f, DISK_BYTES, true);
    scsi_lun_reset(&f.target, 0, NULL);
    CHECK_EQ(fake_exec(&f, CDB(0x03, 0, 0, 0, 18, 0), data, 18, false), 0);
    CHECK_EQ(data[2], 6);
    CHECK_EQ(data[12], 0x29);
    CHECK_EQ(fake_exec(&f, CDB(0x03, 1, 0, 0, 18, 0), data, 18, false), 0);
    CHECK_EQ(data[0], 0x72);
    CHECK_EQ(data[1], 0);
    fake_teardown(&f);
}

TEST(scsi, report_luns_is_sorted_and_clears_its_unit_attention)
{
    fake_setup(&f, DISK_BYTES, true);
    REQUIRE(fake_add_lun(&f, &(struct lun_opts){.number = 300, .root = f.disk}));
    REQUIRE(fake_add_lun(&f, &(struct lun_opts){.number = 2, .root = f.disk}));
    CHECK(!fake_add_lun(&f, &(struct lun_opts){.number = 2, .root = f.disk}));
    CHECK_EQ(fake_exec(&f, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), data, 256, false), 0);
    CHECK_EQ(get_be32(data), 24);
    CHECK_EQ(data[8 + 1], 0);
    CHECK_EQ(data[16 + 1], 2);
    CHECK_EQ(get_be16(data + 24), 0x4000 | 300);
    CHECK_EQ(fake_exec(&f, CDB(0, 0, 0, 0, 0, 0), NULL, 0, false), 0);
    fake_teardown(&f);
}

TEST(scsi, absent_lun_answers_inquiry_and_report_luns_only)
{
    struct fake_cmd *c;

    fake_setup(&f, DISK_BYTES, true);
    c = fake_cmd_new(&f, CDB(0x12, 0, 0, 0, 96, 0), 96, false);
    c->cmd.lun_field[1] = 9;
    fake_run(c);
    CHECK_EQ(fake_sense(c), 0);
    CHECK_EQ(c->data[0], 0x7f);
    fake_cmd_free(c);
    c = fake_cmd_new(&f, CDB(0x00, 0, 0, 0, 0, 0), 0, false);
    c->cmd.lun_field[1] = 9;
    fake_run(c);
    CHECK_EQ(fake_sense(c), SENSE(5, 0x25, 0));
    fake_cmd_free(c);
    fake_teardown(&f);
}

TEST(scsi, lun_fields_decode_as_sam_has_them)
{
    uint8_t field[8];
    uint16_t n;

    scsi_lun_encode(255, field);
    CHECK_EQ(field[0], 0);
    CHECK_EQ(scsi_lun_decode(field, &n), 0);
    CHECK_EQ(n, 255);
    scsi_lun_encode(TARGET_MAX_LUN, field);
    CHECK_EQ(scsi_lun_decode(field, &n), 0);
    CHECK_EQ(n, TARGET_MAX_LUN);
    CHECK_EQ(scsi_lun_decode((const uint8_t[8]){0x01, 0}, &n), -EINVAL);
    CHECK_EQ(scsi_lun_decode((const uint8_t[8]){0xc1, 1}, &n), -EINVAL);
    CHECK_EQ(scsi_lun_decode((const uint8_t[8]){0, 1, 0, 1}, &n), -EINVAL);
}

/* ---- order ---- */

TEST(scsi, an_ordered_command_waits_for_older_and_holds_younger_ones)
{
    struct fake_cmd *a, *b, *c, *d;

    fake_setup(&f, DISK_BYTES, true);
    f.mem->hold_writes = true;
    a = rw_new(0x2a, 0, 1);
    b = rw_new(0x2a, 100, 1);
    b->cmd.attr = SCSI_ATTR_ORDERED;
    c = fake_cmd_new(&f, CDB(0, 0, 0, 0, 0, 0), 0, false);
    d = fake_cmd_new(&f, CDB(0, 0, 0, 0, 0, 0), 0, false);
    d->cmd.attr = SCSI_ATTR_HEAD;
    fake_start(a);
    fake_start(b);
    fake_start(c);
    fake_start(d);
    fake_wait(d);
    CHECK_EQ(b->cmd.phase, PH_HELD);
    CHECK_EQ(c->cmd.phase, PH_HELD);
    f.mem->hold_writes = false;
    mem_node_release(f.mem);
    fake_wait(c);
    CHECK(d->nth_done < a->nth_done && a->nth_done < b->nth_done && b->nth_done < c->nth_done);
    CHECK_EQ(fake_sense(b), 0);
    CHECK_EQ(f.lun->nr_held, 0);
    fake_cmd_free(a);
    fake_cmd_free(b);
    fake_cmd_free(c);
    fake_cmd_free(d);
    fake_teardown(&f);
}

TEST(scsi, a_held_command_can_be_aborted)
{
    struct fake_cmd *a, *b;

    fake_setup(&f, DISK_BYTES, true);
    f.mem->hold_writes = true;
    a = rw_new(0x2a, 0, 1);
    b = rw_new(0x2a, 1, 1);
    b->cmd.attr = SCSI_ATTR_ORDERED;
    fake_start(a);
    fake_start(b);
    scsi_cmd_abort(&b->cmd);
    fake_wait(b);
    CHECK(b->cmd.aborted);
    CHECK(!a->done);
    f.mem->hold_writes = false;
    mem_node_release(f.mem);
    fake_wait(a);
    CHECK_EQ(f.lun->nr_held, 0);
    fake_cmd_free(a);
    fake_cmd_free(b);
    fake_teardown(&f);
}

/* ---- a source that is down ---- */

TEST(scsi, parked_reads_hold_no_buffer_and_go_on_when_the_source_is_back)
{
    struct fake_cmd *r;
    uint64_t used;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    used = bufpool_used_bytes(bufpool_main());
    f.mem->down = true;
    r = rw_new(0x28, 0, 16);
    fake_start(r);
    CHECK(TURN_UNTIL(r->cmd.phase == PH_PARKED));
    CHECK_EQ(bufpool_used_bytes(bufpool_main()), used);
    f.mem->down = false;
    blk_node_notify(&f.mem->node, BLK_EV_SOURCE_UP);
    fake_wait(r);
    CHECK_EQ(fake_sense(r), 0);
    CHECK_EQ(r->data[8191], 0x42);
    fake_cmd_free(r);
    fake_teardown(&f);
}

TEST(scsi, parked_commands_fail_after_the_timeout)
{
    struct fake_cmd *r;

    fake_setup(&f, DISK_BYTES, true);
    lun_set_source_timeout(f.lun, 20 * UINT64_C(1000000));
    f.mem->down = true;
    r = rw_new(0x28, 0, 16);
    fake_run(r);
    CHECK_EQ(fake_sense(r), SENSE(4, 0x08, 1));
    CHECK_EQ(f.lun->nr_parked, 0);
    fake_cmd_free(r);
    fake_teardown(&f);
}

TEST(scsi, news_of_a_source_that_keeps_failing_do_not_prolong_the_wait)
{
    struct fake_cmd *r;
    uint64_t start = now_ns();

    fake_setup(&f, DISK_BYTES, true);
    lun_set_source_timeout(f.lun, 50 * UINT64_C(1000000));
    f.mem->down = true;
    r = rw_new(0x28, 0, 16);
    fake_start(r);
    while (!r->done && now_ns() - start < UINT64_C(5000000000)) {
        blk_node_notify(&f.mem->node, BLK_EV_SOURCE_UP);
        mem_node_turn();
    }
    CHECK_EQ(fake_sense(r), SENSE(4, 0x08, 1));
    fake_wait(r);
    fake_cmd_free(r);
    fake_teardown(&f);
}

TEST(scsi, more_commands_than_may_be_parked_are_busy)
{
    struct fake_cmd *r[LUN_MAX_PARKED + 1];

    fake_setup(&f, DISK_BYTES, true);
    f.mem->down = true;
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        r[i] = rw_new(0x28, i, 1);
        fake_start(r[i]);
    }
    CHECK(TURN_UNTIL(r[LUN_MAX_PARKED]->done));
    CHECK_EQ(fake_sense(r[LUN_MAX_PARKED]), -SCSI_BUSY);
    CHECK_EQ(f.lun->nr_parked, LUN_MAX_PARKED);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        if (!r[i]->done)
            scsi_cmd_abort(&r[i]->cmd);
        fake_wait(r[i]);
        fake_cmd_free(r[i]);
    }
    CHECK_EQ(f.lun->nr_parked, 0);
    fake_teardown(&f);
}

TEST(scsi, parked_writes_keep_a_bounded_number_of_bytes)
{
    struct fake_cmd *w[LUN_MAX_PARKED_BYTES / BUFPOOL_MAX_BYTES + 1];
    const unsigned n = ARRAY_LEN(w);

    fake_setup(&f, 16u << 20, true);
    f.mem->write_error = -EHOSTDOWN;
    for (unsigned i = 0; i < n; i++) {
        w[i] = rw_new(0x2a, i * 2048, 2048);
        w[i]->cmd.chunk_bytes = BUFPOOL_MAX_BYTES;
        memset(w[i]->data, (int)i + 1, BUFPOOL_MAX_BYTES);
        fake_start(w[i]);
    }
    CHECK(TURN_UNTIL(w[n - 1]->done));
    CHECK_EQ(fake_sense(w[n - 1]), -SCSI_BUSY);
    CHECK_EQ(f.lun->parked_bytes, LUN_MAX_PARKED_BYTES);
    f.mem->write_error = 0;
    blk_node_notify(&f.mem->node, BLK_EV_SOURCE_UP);
    for (unsigned i = 0; i < n; i++) {
        fake_wait(w[i]);
        CHECK_EQ(f.mem->data[(i + 1) * BUFPOOL_MAX_BYTES - 1], i + 1 < n ? i + 1 : 0);
        fake_cmd_free(w[i]);
    }
    CHECK_EQ(f.lun->parked_bytes, 0);
    fake_teardown(&f);
}

TEST(scsi, a_command_in_the_disk_ends_aborted_when_the_disk_lets_go)
{
    struct fake_cmd *r;

    fake_setup(&f, DISK_BYTES, true);
    f.mem->hold_reads = true;
    r = rw_new(0x28, 0, 16);
    fake_start(r);
    scsi_cmd_abort(&r->cmd);
    loop_turn(false);
    CHECK(!r->done);
    mem_node_release(f.mem);
    fake_wait(r);
    CHECK(r->cmd.aborted);
    CHECK_EQ(r->in_len, 0);
    fake_cmd_free(r);
    fake_teardown(&f);
}

TEST(scsi, aborting_a_parked_command_ends_it_this_turn)
{
    struct fake_cmd *r;

    fake_setup(&f, DISK_BYTES, true);
    f.mem->down = true;
    r = rw_new(0x28, 0, 16);
    fake_start(r);
    CHECK(TURN_UNTIL(r->cmd.phase == PH_PARKED));
    scsi_cmd_abort(&r->cmd);
    loop_turn(false);
    CHECK(r->done);
    CHECK(r->cmd.aborted);
    fake_wait(r);
    fake_cmd_free(r);
    fake_teardown(&f);
}

static void co_remove_lun_0(void *arg)
{
    (void)arg;
    co_target_remove_lun(&f.target, 0);
}

TEST(scsi, removing_a_lun_ends_parked_commands_and_does_not_wait_for_data_out)
{
    struct fake_cmd *r, *w;

    fake_setup(&f, DISK_BYTES, true);
    f.mem->down = true;
    r = rw_new(0x28, 0, 16);
    w = rw_new(0x2a, 0, 16);
    w->hold_data = true;
    fake_start(r);
    fake_start(w);
    CHECK(TURN_UNTIL(r->cmd.phase == PH_PARKED));
    mem_node_run(co_remove_lun_0, NULL);
    CHECK(!target_find_lun(&f.target, 0));
    fake_wait(r);
    CHECK_EQ(fake_sense(r), SENSE(5, 0x25, 0));
    CHECK(!w->done);
    fake_send_data(w); /* the LUN's memory is still there, its disk is not */
    fake_wait(w);
    CHECK_EQ(fake_sense(w), SENSE(5, 0x25, 0));
    fake_cmd_free(r);
    fake_cmd_free(w);
    fake_teardown(&f);
}

TEST(scsi, abort_while_waiting_for_data_out_gives_the_buffer_back)
{
    struct fake_cmd *w;
    uint64_t used;

    fake_setup(&f, DISK_BYTES, true);
    used = bufpool_used_bytes(bufpool_main());
    w = rw_new(0x2a, 0, 16);
    w->hold_data = true;
    fake_start(w);
    CHECK_EQ(w->cmd.phase, PH_DATA_OUT);
    scsi_cmd_abort(&w->cmd);
    fake_wait(w);
    CHECK(w->cmd.aborted);
    CHECK_EQ(bufpool_used_bytes(bufpool_main()), used);
    CHECK_EQ(f.mem->writes, 0);
    fake_cmd_free(w);
    fake_teardown(&f);
}

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

TEST(scsi, unmap_makes_zeros_of_each_range)
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

TEST(scsi, unmap_touches_nothing_if_any_range_is_bad)
{
    uint32_t len;

    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    len = unmap_list(data, 2, (const uint32_t[][2]){{0, 8}, {DISK_BLOCKS, 1}});
    CHECK_EQ(unmap(data, len), SENSE(5, 0x21, 0));
    CHECK(mem_node_state(f.mem, 0) == BLK_ST_DATA);
    fake_teardown(&f);
}

TEST(scsi, unmap_list_lengths_are_checked)
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

TEST(scsi, write_same_repeats_its_block)
{
    fake_setup(&f, DISK_BYTES, true);
    fill_pattern(data, 512, 9);
    CHECK_EQ(fake_exec(&f, CDB(0x41, 0, 0, 0, 0, 3, 0, 0x08, 0, 0), data, 512, true), 0);
    for (unsigned i = 3; i < 3 + 2048; i += 1)
        CHECK(!memcmp(f.mem->data + 512 * i, data, 512));
    CHECK_EQ(f.mem->data[512 * 2], 0);
    CHECK_EQ(f.mem->data[512 * (3 + 2048)], 0);
    fake_teardown(&f);
}

TEST(scsi, write_same_of_zeros_is_a_zero_request_and_0_blocks_are_refused)
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

TEST(scsi, write_same_16_with_ndob_takes_no_data)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 0x42);
    CHECK_EQ(fake_exec(&f, CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), NULL, 0, false),
             0);
    CHECK_EQ(f.mem->data[0], 0);
    CHECK_EQ(f.mem->data[4096], 0x42);
    fake_teardown(&f);
}

TEST(scsi, verify_compares_and_tells_where_it_differs)
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

TEST(scsi, get_lba_status_merges_and_starts_at_the_lba_asked)
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

TEST(scsi, get_lba_status_tells_only_what_the_report_type_asks_for)
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

TEST(scsi, get_lba_status_32_tells_the_same_as_the_short_one)
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

TEST(scsi, get_lba_status_32_looks_no_further_than_the_scan_length)
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

TEST(scsi, a_cdb_of_another_length_than_its_command_is_refused)
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

TEST(scsi, usage_data_tells_the_service_action_itself)
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

TEST(scsi, get_lba_status_fits_the_allocation_length)
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

TEST(scsi, anchored_zeros_are_told_apart_on_delta_views)
{
    fake_setup(&f, DISK_BYTES, false);
    mem_node_fill(f.mem, 0, 4096, BLK_ST_ZERO, 0);
    f.lun->anchored_zeros = true;
    CHECK_EQ(lba_status(0, 4096), 0);
    CHECK_EQ(data[20], 2);
    CHECK_EQ(data[36], 1);
    fake_teardown(&f);
}

TEST(scsi, anchor_is_taken_only_where_it_can_be_kept)
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

TEST(scsi, an_extent_of_more_than_32_bits_of_blocks_is_split)
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

TEST(scsi, get_layer_status_tells_state_depth_and_generation)
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

TEST(scsi, a_status_walk_can_be_aborted_and_outlives_nothing)
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

/* ---- what the target says of itself ---- */

TEST(scsi, supported_opcodes_bound_the_service_action)
{
    fake_setup(&f, DISK_BYTES, true);
    memset(data, 0xee, 64);
    CHECK_EQ(
        fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x9e, 0xff, 0xff, 0, 0, 0, 64, 0, 0), data, 64, false), 0);
    CHECK_EQ(data[1], 1); /* not supported */
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x9e, 0, 0x12, 0, 0, 0, 64, 0, 0), data, 64, false),
             0);
    CHECK_EQ(data[1], 3);
    CHECK_EQ(get_be16(data + 2), 16);
    CHECK_EQ(data[4], 0x9e);
    fake_teardown(&f);
}

TEST(scsi, supported_opcodes_reporting_options_fit_the_opcode)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 7, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 3, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false), 0);
    CHECK_EQ(data[1], 3);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 0x81, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             0);
    CHECK_EQ(data[1], 0x83);
    CHECK_EQ(get_be16(data + 14), 10);
    fake_teardown(&f);
}

TEST(scsi, all_supported_opcodes_run_or_are_refused_for_a_reason)
{
    uint32_t len;

    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), data, 4096, false), 0);
    len = get_be32(data);
    CHECK(len >= 8 && len % 8 == 0);
    for (uint32_t i = 4; i < 4 + len; i += 8) {
        uint8_t cdb[SCSI_MAX_CDB] = {data[i], [7] = data[i] == SCSI_VARIABLE ? 0x18 : 0};
        uint8_t answer[4096];

        if (data[i + 5] & 1)
            cdb[cdb_service_action_at(data[i])] = data[i + 3];
        int sense = fake_exec(&f, cdb, data[i + 7], answer, 512, data[i] == 0x0a);

        CHECK(sense != SENSE(5, 0x20, 0));
    }
    fake_teardown(&f);
}

TEST(scsi, capacity_16_says_thin_and_zeros)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(
        fake_exec(&f, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), data, 32, false),
        0);
    CHECK_EQ(get_be64(data), DISK_BLOCKS - 1);
    CHECK_EQ(get_be32(data + 8), 512);
    CHECK_EQ(data[14], 0xc0);
    fake_teardown(&f);
}

TEST(scsi, mode_sense_tells_write_protection_and_cache)
{
    fake_setup(&f, DISK_BYTES, false);
    CHECK_EQ(fake_exec(&f, CDB(0x1a, 0, 0x3f, 0, 255, 0), data, 255, false), 0);
    CHECK_EQ(data[2], 0x90);
    CHECK_EQ(data[3], 8);
    CHECK_EQ(data[0], 3 + 8 + 12 + 20 + 12 + 12);
    CHECK_EQ(fake_exec(&f, CDB(0x1a, 0, 0xff, 0, 255, 0), data, 255, false), SENSE(5, 0x39, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x1a, 0, 0x02, 0, 255, 0), data, 255, false), SENSE(5, 0x24, 0));
    fake_teardown(&f);
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, 255, 0), data, 255, false), 0);
    CHECK_EQ(data[3], 0x10);
    CHECK_EQ(data[8], 0x08);
    CHECK_EQ(data[10], 0x04); /* WCE */
    fake_teardown(&f);
}

TEST(scsi, replies_survive_an_exhausted_pool)
{
    /* large ones get only their part of it */
    const size_t small_bytes = 64 << 10;
    void *hog[256];
    unsigned n = 0;
    struct fake_cmd *c;

    fake_setup(&f, DISK_BYTES, true);
    while (n < BUFPOOL_MAIN_LARGE_BYTES / BUFPOOL_MAX_BYTES &&
           (hog[n] = bufpool_get(bufpool_main(), BUFPOOL_MAX_BYTES)))
        n++;
    const unsigned nr_large = n;

    while (n < ARRAY_LEN(hog) && (hog[n] = bufpool_get(bufpool_main(), small_bytes)))
        n++;
    CHECK(!bufpool_get(bufpool_main(), 4096));
    c = fake_cmd_new(&f, CDB(0x12, 0, 0, 0, 96, 0), 96, false);
    fake_start(c);
    CHECK_EQ(c->cmd.phase, PH_WAIT_BUF);
    bufpool_put(bufpool_main(), hog[--n], small_bytes);
    fake_wait(c);
    CHECK_EQ(fake_sense(c), 0);
    while (n--)
        bufpool_put(bufpool_main(), hog[n], n < nr_large ? BUFPOOL_MAX_BYTES : small_bytes);
    fake_cmd_free(c);
    fake_teardown(&f);
}
