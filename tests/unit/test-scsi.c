/* SPDX-License-Identifier: BSD-3-Clause */
/* SCSI commands over a disk in memory, from CDB to status. */
#include <errno.h>
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
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

TEST(scsi, what_was_written_is_read_back_in_chunks)
{
    const uint16_t blocks = 5000; /* 2.4 MiB: several chunks, the last one odd */
    struct fake_cmd *w, *r;

    fake_setup(&f, DISK_BYTES, true);
    w = rw_new(0x2a, 33, blocks);
    fake_fill_pattern(w->data, blocks * 512u, 1);
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
