/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservations, mode parameters, atomic commands, sanitizing and copying, from CDB to status. */
#include <stdlib.h>
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/size.h"

#define DISK_BYTES (8u << 20)
#define CONFLICT   (-SCSI_RESERVATION_CONFLICT)

static struct fake f;
static uint8_t data[1u << 20];

/* @out NULL: data-in of @len bytes into data[]. */
static int exec(struct nexus *n, const uint8_t *cdb, unsigned cdb_len, const void *out,
                uint32_t len)
{
    return fake_exec_as(&f, n, NULL, cdb, cdb_len, out, data, len);
}

static int write_block(struct nexus *n, uint8_t fill)
{
    uint8_t block[512];

    memset(block, fill, 512);
    return exec(n, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), block, 512);
}

static int read_block(struct nexus *n)
{
    return exec(n, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 512);
}

TEST(reservations, persistent_ones_keep_others_out_and_tell_them)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 1), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0, 2), 0);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RESERVE, PR_WRITE_EXCLUSIVE, 1, 0), 0);
    CHECK_EQ(write_block(&f.other, 1), CONFLICT);
    CHECK_EQ(read_block(&f.other), 0);
    CHECK_EQ(write_block(&f.nexus, 1), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_PREEMPT, PR_EXCLUSIVE_ACCESS, 2, 1), 0);
    CHECK_EQ(read_block(&f.nexus), SENSE(6, 0x2a, 0x05)); /* REGISTRATIONS PREEMPTED */
    CHECK_EQ(read_block(&f.nexus), CONFLICT);
    CHECK_EQ(write_block(&f.other, 2), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_CLEAR, 0, 2, 0), 0);
    CHECK_EQ(read_block(&f.nexus), 0);
    fake_teardown(&f);
}

TEST(reservations, registrations_outlive_the_nexus)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0, 2), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_RESERVE, PR_EXCLUSIVE_ACCESS, 2, 0), 0);
    nexus_fini(&f.other);
    CHECK_EQ(read_block(&f.nexus), CONFLICT);
    fake_add_other(&f, "iqn.2026-11.com.example:other", 9);
    CHECK_EQ(read_block(&f.other), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 2, 0), 0);
    CHECK_EQ(read_block(&f.nexus), 0);
    fake_teardown(&f);
}

TEST(reservations, reserve_ends_with_its_nexus_or_a_reset)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(exec(&f.other, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(exec(&f.nexus, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), CONFLICT);
    CHECK_EQ(exec(&f.nexus, CDB(0x17, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(exec(&f.nexus, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), CONFLICT);
    CHECK_EQ(exec(&f.nexus, CDB(0x12, 0, 0, 0, 96, 0), NULL, 96), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0, 2),
             CONFLICT); /* the two kinds exclude each other */
    nexus_fini(&f.other);
    CHECK_EQ(read_block(&f.nexus), 0);
    fake_add_other(&f, "iqn.2026-11.com.example:other", 9);
    CHECK_EQ(exec(&f.other, CDB(0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0), 0);
    scsi_lun_reset(&f.target, 0, &f.nexus);
    CHECK_EQ(read_block(&f.nexus), SENSE(6, 0x29, 0x03));
    CHECK_EQ(read_block(&f.nexus), 0);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 2), 0);
    CHECK_EQ(exec(&f.nexus, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), CONFLICT);
    fake_teardown(&f);
}

/* ---- no command takes a bit that it doesn't know ---- */

static void put_opcode(uint8_t cdb[SCSI_MAX_CDB], const struct scsi_opcode *op, uint8_t opcode,
                       unsigned sa)
{
    memset(cdb, 0, SCSI_MAX_CDB);
    cdb[0] = opcode;
    cdb[cdb_service_action_at(opcode)] = (uint8_t)sa;
    if (opcode == SCSI_VARIABLE)
        cdb[7] = op->cdb_len - 8;
}

static void check_bit(const struct scsi_opcode *op, uint8_t opcode, unsigned sa, unsigned bit)
{
    uint8_t cdb[SCSI_MAX_CDB];
    struct fake_cmd *c;

    put_opcode(cdb, op, opcode, sa);
    cdb[bit / 8] |= (uint8_t)(1u << bit % 8);
    c = fake_cmd_new(&f, cdb, op->cdb_len, 0, false);
    fake_run(c);
    if (fake_sense(c) != SENSE(5, 0x24, 0) || c->cmd.sense[15] != (0xc8 | bit % 8) ||
        get_be16(c->cmd.sense + 16) != bit / 8)
        CHECK_STR(op->name, "refuses each bit that its usage map leaves out");
    fake_cmd_free(c);
}

static void check_bits(const struct scsi_opcode *op, uint8_t opcode, unsigned sa)
{
    for (unsigned bit = 8; op->name && bit < 8u * op->cdb_len; bit++) {
        if (!(op->usage[bit / 8] >> bit % 8 & 1))
            check_bit(op, opcode, sa, bit);
    }
}

TEST(opcodes, a_bit_outside_the_usage_map_is_an_invalid_field_and_pointed_at)
{
    fake_setup_two(&f, DISK_BYTES);
    f.lun->removable = f.lun->has_cowl = true;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        const struct scsi_opcode *op = scsi_opcode_group((uint8_t)opcode);

        for (unsigned sa = 0; op && op->by_sa && sa < SCSI_NR_SA; sa++)
            check_bits(&op->by_sa[sa], (uint8_t)opcode, sa);
        if (op && !op->by_sa)
            check_bits(op, (uint8_t)opcode, 0);
    }
    fake_teardown(&f);
}

/* ---- every command by its class ---- */

struct matrix {
    struct nexus *n;
    unsigned seen;
};

static bool is_exempt(const struct scsi_opcode *op)
{
    return op->flags & (OPF_PR | OPF_RESERVE | OPF_COWL | OPF_REMOVABLE) ||
           op->start == sbc_start_stop;
}

static void check_row(const struct scsi_opcode *op, uint8_t opcode, unsigned sa, bool write_only)
{
    bool conflicts = op->resv == RESV_WRITE || (op->resv == RESV_READ && !write_only);
    uint8_t cdb[SCSI_MAX_CDB];
    int sense;

    if (!op->name || is_exempt(op))
        return;
    put_opcode(cdb, op, opcode, sa);
    sense = exec(&f.other, cdb, op->cdb_len, NULL, 0);
    if ((sense == CONFLICT) != conflicts)
        CHECK_STR(op->name, conflicts ? "a conflict" : "no conflict");
}

static void check_all(bool write_only)
{
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        const struct scsi_opcode *op = scsi_opcode_group((uint8_t)opcode);

        if (!op)
            continue;
        for (unsigned sa = 0; op->by_sa && sa < SCSI_NR_SA; sa++)
            check_row(&op->by_sa[sa], (uint8_t)opcode, sa, write_only);
        if (!op->by_sa)
            check_row(op, (uint8_t)opcode, 0, write_only);
    }
}

TEST(reservations, every_command_conflicts_as_its_class_says)
{
    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 1), 0);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RESERVE, PR_WRITE_EXCLUSIVE, 1, 0), 0);
    check_all(true);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RELEASE, PR_WRITE_EXCLUSIVE, 1, 0), 0);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_RESERVE, PR_EXCLUSIVE_ACCESS, 1, 0), 0);
    check_all(false);
    fake_teardown(&f);
}

TEST(reservations, preempt_and_abort_ends_what_the_other_has_running)
{
    struct fake_cmd *w, *p;
    uint8_t list[24] = {0}, block[512] = {7};

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(fake_pr_out(&f, &f.nexus, PR_REGISTER, 0, 0, 1), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0, 2), 0);
    f.mem->hold_writes = true;
    w = fake_cmd_as(&f, &f.other, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), block, 512);
    fake_start(w);
    CHECK(TURN_UNTIL(!list_empty(&f.mem->held.waiters)));
    put_be64(list, 1);
    put_be64(list + 8, 2);
    p = fake_cmd_as(&f, &f.nexus,
                    CDB(0x5f, PR_PREEMPT_AND_ABORT, PR_WRITE_EXCLUSIVE, 0, 0, 0, 0, 0, 24, 0), list,
                    24);
    fake_start(p);
    for (int i = 0; i < 5; i++)
        mem_node_turn();
    CHECK(!p->done); /* the write is still in the disk */
    f.mem->hold_writes = false;
    mem_node_release(f.mem);
    fake_wait(p);
    CHECK_EQ(fake_sense(p), 0);
    CHECK(w->done && w->cmd.aborted && w->nth_done < p->nth_done);
    fake_cmd_free(w);
    fake_cmd_free(p);
    fake_teardown(&f);
}

TEST(reservations, without_a_sink_aptpl_is_refused)
{
    uint8_t list[24] = {0};

    fake_setup_two(&f, DISK_BYTES);
    put_be64(list + 8, 1);
    list[20] = 1;
    CHECK_EQ(exec(&f.nexus, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24), SENSE(5, 0x26, 0));
    fake_teardown(&f);
}

static char kept[512];
static int sink_result;

static int co_sink(struct target *t, uint16_t lun, const char *text, void *opaque,
                   struct error *err)
{
    (void)t;
    (void)lun;
    (void)opaque;
    if (sink_result)
        return error_set(err, -sink_result, "no room");
    strcpy(kept, text ? text : "");
    return 0;
}

TEST(reservations, aptpl_is_kept_before_it_counts_and_comes_back)
{
    uint8_t list[24] = {0};
    struct lun_opts opts;

    fake_setup_two(&f, DISK_BYTES);
    target_set_reservation_sink(co_sink, NULL);
    put_be64(list + 8, 0x77);
    list[20] = 1;
    sink_result = -28;
    CHECK_EQ(exec(&f.other, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24), SENSE(4, 0x44, 0));
    CHECK_EQ(f.lun->pr.nr, 0);
    sink_result = 0;
    CHECK_EQ(exec(&f.other, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24), 0);
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_RESERVE, PR_EXCLUSIVE_ACCESS, 0x77, 0), 0);
    CHECK_STR(kept, "0:3:*0000000000000077/800000000009/iqn.2026-11.com.example:other");
    kept[0] = '5';
    opts = (struct lun_opts){.number = 5, .root = f.disk, .writable = true, .reservations = kept};
    REQUIRE(fake_add_lun(&f, &opts));
    CHECK_EQ(target_find_lun(&f.target, 5)->pr.type, PR_EXCLUSIVE_ACCESS);
    kept[2] = '9';
    opts.number = 6;
    CHECK(!fake_add_lun(&f, &opts));
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0x77, 0), SENSE(6, 0x3f, 0x0e));
    CHECK_EQ(fake_pr_out(&f, &f.other, PR_REGISTER, 0, 0x77, 0), 0);
    CHECK_STR(kept, "");
    target_set_reservation_sink(NULL, NULL);
    fake_teardown(&f);
}

/* ---- mode parameters ---- */

static int select_page(struct nexus *n, const uint8_t *page, uint8_t len)
{
    uint8_t list[64] = {0}, cdb[6] = {0x15, 0x10, 0, 0, (uint8_t)(4 + len)};

    memcpy(list + 4, page, len);
    return exec(n, cdb, 6, list, 4 + len);
}

TEST(mode, the_write_cache_is_switched_off_for_all_and_on_by_a_reset)
{
    uint8_t page[20] = {0x08, 18};

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(select_page(&f.nexus, page, 20), 0);
    CHECK(!f.lun->mode.write_cache);
    CHECK_EQ(read_block(&f.other), SENSE(6, 0x2a, 0x01)); /* MODE PARAMETERS CHANGED */
    CHECK_EQ(read_block(&f.nexus), 0);
    CHECK_EQ(exec(&f.nexus, CDB(0x1a, 8, 8, 0, 255, 0), NULL, 255), 0);
    CHECK_EQ(data[4 + 2] & 4, 0);
    scsi_lun_reset(&f.target, 0, NULL);
    CHECK(f.lun->mode.write_cache);
    fake_teardown(&f);
}

TEST(mode, software_write_protection_refuses_writes)
{
    uint8_t page[12] = {0x0a, 10, 0, 0x10, 0x08, 0, 0, 0, 0xff, 0xff};

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(select_page(&f.nexus, page, 12), 0);
    CHECK_EQ(write_block(&f.nexus, 1), SENSE(7, 0x27, 0x02));
    page[4] = 0;
    CHECK_EQ(select_page(&f.nexus, page, 12), 0);
    CHECK_EQ(write_block(&f.nexus, 1), 0);
    fake_teardown(&f);
}

TEST(mode, what_cant_be_changed_is_named_and_nothing_changes)
{
    uint8_t pages[32] = {0x08, 18, 0, [20] = 0x0a, 10, 0, 0x20, 0, 0, 0, 0, 0xff, 0xff};

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(select_page(&f.nexus, pages, 32), SENSE(5, 0x26, 0));
    CHECK(f.lun->mode.write_cache);
    CHECK_EQ(select_page(&f.nexus, pages, 19), SENSE(5, 0x1a, 0)); /* cut short */
    CHECK_EQ(exec(&f.nexus, CDB(0x15, 0x11, 0, 0, 4, 0), pages, 4), SENSE(5, 0x24, 0)); /* SP */
    fake_teardown(&f);
}

TEST(mode, saved_parameters_are_kept_before_they_count_and_come_back)
{
    uint8_t list[24] = {[4] = 0x08, 18}; /* WCE 0 */
    struct lun_opts opts;

    fake_setup_two(&f, DISK_BYTES);
    target_set_mode_sink(co_sink, NULL);
    sink_result = -28;
    CHECK_EQ(exec(&f.nexus, CDB(0x15, 0x11, 0, 0, 24, 0), list, 24), SENSE(4, 0x44, 0));
    CHECK(f.lun->mode.write_cache);
    sink_result = 0;
    CHECK_EQ(exec(&f.nexus, CDB(0x15, 0x11, 0, 0, 24, 0), list, 24), 0);
    CHECK(!f.lun->mode.write_cache);
    CHECK_STR(kept, "0:0:0:0:0:0");
    list[4 + 2] = 4;
    CHECK_EQ(select_page(&f.nexus, list + 4, 20), 0); /* SP 0: for now */
    CHECK(f.lun->mode.write_cache);
    CHECK_EQ(exec(&f.nexus, CDB(0x1a, 8, 0xc8, 0, 255, 0), NULL, 255), 0);
    CHECK_EQ(data[4], 0x88); /* PS */
    CHECK_EQ(data[4 + 2], 0);
    scsi_lun_reset(&f.target, 0, NULL);
    CHECK(!f.lun->mode.write_cache);
    strcpy(kept, "5:0:1:1:1:77");
    opts = (struct lun_opts){.number = 5, .root = f.disk, .writable = true, .mode = kept};
    REQUIRE(fake_add_lun(&f, &opts));
    CHECK(target_find_lun(&f.target, 5)->mode.software_protect);
    CHECK_EQ(target_find_lun(&f.target, 5)->mode.threshold_sets, 77);
    for (const char *const *bad = (const char *const[]){"6:0:1:1:1", "6:0:2:1:1:1", "7:0:0:0:0:0",
                                                        "6:0:0:0:0:-1", "6:0:0:0:0:1x", "", NULL};
         *bad; bad++) {
        opts.number = 6;
        opts.mode = *bad;
        CHECK(!fake_add_lun(&f, &opts));
    }
    target_set_mode_sink(NULL, NULL);
    fake_teardown(&f);
}

TEST(mode, descriptor_sense_when_asked_for)
{
    uint8_t page[12] = {0x0a, 10, 0x04, 0x10, 0, 0, 0, 0, 0xff, 0xff};
    struct fake_cmd *c;

    fake_setup_two(&f, DISK_BYTES);
    CHECK_EQ(select_page(&f.nexus, page, 12), 0);
    c = fake_cmd_as(&f, &f.nexus, CDB(0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0), NULL, 512);
    fake_run(c);
    CHECK_EQ(c->cmd.sense[0], 0x72);
    fake_cmd_free(c);
    fake_teardown(&f);
}

/* ---- commands that look and write ---- */

static struct fake_cmd *compare_and_write(struct nexus *n, uint8_t was, uint8_t becomes)
{
    memset(data, was, 512);
    memset(data + 512, becomes, 512);
    return fake_cmd_as(&f, n, CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0), data, 1024);
}

TEST(atomic, of_two_that_compare_the_same_one_wins)
{
    struct fake_cmd *a, *b;

    fake_setup_two(&f, DISK_BYTES);
    a = compare_and_write(&f.nexus, 0, 1);
    b = compare_and_write(&f.other, 0, 2);
    f.mem->delay_ns = 1000000;
    fake_start(a);
    fake_start(b);
    fake_wait(a);
    fake_wait(b);
    CHECK_EQ((fake_sense(a) == 0) + (fake_sense(b) == 0), 1);
    CHECK_EQ(fake_sense(a) ? fake_sense(a) : fake_sense(b), SENSE(0xe, 0x1d, 0));
    CHECK_EQ(f.mem->data[0], fake_sense(a) ? 2 : 1);
    CHECK(list_empty(&f.lun->ranges));
    fake_cmd_free(a);
    fake_cmd_free(b);
    fake_teardown(&f);
}

TEST(atomic, a_write_waits_for_its_range_only)
{
    struct fake_cmd *c, *same, *beside;
    uint8_t block[512] = {5};

    fake_setup_two(&f, DISK_BYTES);
    f.mem->hold_reads = true;
    c = compare_and_write(&f.nexus, 0, 1);
    fake_start(c);
    CHECK(TURN_UNTIL(!list_empty(&f.mem->held.waiters)));
    same = fake_cmd_as(&f, &f.other, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), block, 512);
    beside = fake_cmd_as(&f, &f.other, CDB(0x2a, 0, 0, 0, 0x10, 0, 0, 0, 1, 0), block, 512);
    fake_start(same);
    fake_start(beside);
    fake_wait(beside);
    CHECK(!same->done);
    f.mem->hold_reads = false;
    mem_node_release(f.mem);
    fake_wait(same);
    fake_wait(c);
    CHECK_EQ(fake_sense(c), 0);
    CHECK(c->nth_done < same->nth_done);
    CHECK_EQ(f.mem->data[0], 5);
    fake_cmd_free(c);
    fake_cmd_free(same);
    fake_cmd_free(beside);
    fake_teardown(&f);
}

TEST(atomic, who_waits_for_a_range_can_be_aborted)
{
    struct fake_cmd *c, *w;

    fake_setup_two(&f, DISK_BYTES);
    f.mem->hold_reads = true;
    c = compare_and_write(&f.nexus, 0, 1);
    w = compare_and_write(&f.other, 0, 2);
    fake_start(c);
    CHECK(TURN_UNTIL(!list_empty(&f.mem->held.waiters)));
    fake_start(w);
    for (int i = 0; i < 3; i++)
        mem_node_turn();
    scsi_cmd_abort(&w->cmd);
    fake_wait(w);
    CHECK(w->cmd.aborted && !c->done);
    f.mem->hold_reads = false;
    mem_node_release(f.mem);
    fake_wait(c);
    CHECK_EQ(fake_sense(c), 0);
    CHECK(list_empty(&f.lun->ranges) && !f.lun->nr_exclusive);
    fake_cmd_free(c);
    fake_cmd_free(w);
    fake_teardown(&f);
}

static int write_atomic(uint8_t lba, uint16_t boundary, uint8_t blocks, uint32_t bytes)
{
    return exec(&f.nexus,
                CDB(0x9c, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, (uint8_t)boundary, 0, blocks, 0, 0), data,
                bytes);
}

TEST(atomic, write_atomic_takes_one_aligned_unit_and_nothing_else)
{
    fake_setup_two(&f, DISK_BYTES);
    memset(data, 0x5a, 8192);
    CHECK_EQ(write_atomic(8, 0, 8, 4096), 0);
    CHECK_EQ(f.mem->data[4095], 0);
    CHECK_EQ(f.mem->data[4096], 0x5a);
    CHECK_EQ(f.mem->data[8191], 0x5a);
    CHECK_EQ(f.mem->data[8192], 0);
    CHECK_EQ(write_atomic(0, 0, 0, 0), 0);
    CHECK_EQ(write_atomic(1, 0, 8, 4096), SENSE(5, 0x24, 0));  /* alignment */
    CHECK_EQ(write_atomic(0, 0, 1, 512), SENSE(5, 0x24, 0));   /* granularity */
    CHECK_EQ(write_atomic(0, 0, 16, 8192), SENSE(5, 0x24, 0)); /* more than the maximum */
    CHECK_EQ(write_atomic(0, 8, 8, 4096), SENSE(5, 0x24, 0));  /* no boundaries */
    CHECK_EQ(write_atomic(0, 0, 8, 2048), SENSE(5, 0x24, 0));  /* not all of it is given */
    CHECK_EQ(f.mem->data[0], 0);
    f.disk->limits.atomic_bytes = 0;
    CHECK_EQ(write_atomic(0, 0, 8, 4096), SENSE(5, 0x20, 0)); /* the disk can't */
    fake_teardown(&f);
}

TEST(atomic, orwrite_sets_bits_in_chunks)
{
    uint8_t cdb[16] = {0x8b, [12] = 4}; /* 1024 blocks */

    fake_setup_two(&f, DISK_BYTES);
    mem_node_fill(f.mem, 0, 1u << 20, BLK_ST_DATA, 0x50);
    memset(data, 0x05, 512 << 10);
    CHECK_EQ(exec(&f.nexus, cdb, 16, data, 512 << 10), 0);
    CHECK_EQ(f.mem->data[0], 0x55);
    CHECK_EQ(f.mem->data[(512 << 10) - 1], 0x55);
    CHECK_EQ(f.mem->data[512 << 10], 0x50);
    fake_teardown(&f);
}

TEST(atomic, verify_of_one_block_against_many)
{
    fake_setup_two(&f, DISK_BYTES);
    mem_node_fill(f.mem, 0, 8192, BLK_ST_DATA, 0x33);
    memset(data, 0x33, 512);
    CHECK_EQ(exec(&f.nexus, CDB(0x2f, 6, 0, 0, 0, 0, 0, 0, 16, 0), data, 512), 0);
    CHECK_EQ(exec(&f.nexus, CDB(0x2f, 6, 0, 0, 0, 0, 0, 0, 17, 0), data, 512), SENSE(0xe, 0x1d, 0));
    CHECK_EQ(exec(&f.nexus, CDB(0x2e, 2, 0, 0, 0, 0, 0, 0, 1, 0), data, 512), 0);
    fake_teardown(&f);
}

/* ---- removable, sanitize, copy, blocks ---- */

static struct lun *add_lun(const struct lun_opts *opts)
{
    struct lun *lun = fake_add_lun(&f, opts);
    enum ua_kind ua;

    while (nexus_take_ua(&f.nexus, 0, &ua) || nexus_take_ua(&f.nexus, opts->number, &ua))
        ;
    return lun;
}

static int exec_lun(uint8_t number, const uint8_t *cdb, unsigned cdb_len, const void *out,
                    uint32_t len)
{
    struct fake_cmd *c = fake_cmd_as(&f, &f.nexus, cdb, cdb_len, out, len);
    int sense;

    c->cmd.lun_field[1] = number;
    fake_run(c);
    sense = fake_sense(c);
    if (!out && c->in_len)
        memcpy(data, c->data, c->in_len);
    fake_cmd_free(c);
    return sense;
}

TEST(medium, is_ejected_and_loaded_unless_prevented)
{
    fake_setup_two(&f, DISK_BYTES);
    REQUIRE(add_lun(&(struct lun_opts){.number = 1, .root = f.disk, .removable = true}));
    CHECK_EQ(exec_lun(1, CDB(0x1e, 0, 0, 0, 1, 0), NULL, 0), 0);
    CHECK_EQ(exec_lun(1, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0), SENSE(5, 0x53, 2));
    CHECK_EQ(exec_lun(1, CDB(0x1e, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(exec_lun(1, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0), 0);
    CHECK_EQ(exec_lun(1, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SENSE(2, 0x3a, 0));
    CHECK_EQ(exec_lun(1, CDB(0x1b, 0, 0, 0, 3, 0), NULL, 0), 0);
    CHECK_EQ(exec_lun(1, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), 0);
    CHECK_EQ(exec(&f.nexus, CDB(0x1e, 0, 0, 0, 1, 0), NULL, 0), SENSE(5, 0x20, 0)); /* fixed */
    fake_teardown(&f);
}

TEST(medium, sanitize_overwrites_all_and_goes_on_when_aborted)
{
    uint8_t list[8] = {1, 0, 0, 4, 0xde, 0xad, 0xbe, 0xef};
    struct fake_cmd *c;

    fake_setup_two(&f, DISK_BYTES);
    f.mem->hold_writes = true;
    c = fake_cmd_as(&f, &f.nexus, CDB(0x48, 1, 0, 0, 0, 0, 0, 0, 8, 0), list, 8);
    fake_start(c);
    CHECK(TURN_UNTIL(f.lun->sanitize != NULL));
    CHECK_EQ(read_block(&f.other), SENSE(2, 0x04, 0x1b));
    scsi_cmd_abort(&c->cmd);
    f.mem->hold_writes = false;
    mem_node_release(f.mem);
    fake_wait(c);
    CHECK(c->cmd.aborted);
    CHECK(TURN_UNTIL(!f.lun->sanitize));
    CHECK_EQ(f.mem->data[DISK_BYTES - 1], 0xef);
    CHECK_EQ(read_block(&f.other), 0);
    fake_cmd_free(c);
    fake_teardown(&f);
}

TEST(medium, a_failed_sanitize_stays_failed_until_it_may_be_let_go)
{
    const uint8_t list[8] = {1, 0, 0, 4, 1, 2, 3, 4};

    fake_setup_two(&f, DISK_BYTES);
    f.mem->write_error = -5;
    CHECK_EQ(exec(&f.nexus, CDB(0x48, 0x01, 0, 0, 0, 0, 0, 0, 8, 0), list, 8), SENSE(3, 0x31, 3));
    CHECK_EQ(read_block(&f.other), SENSE(3, 0x31, 3));
    CHECK_EQ(exec(&f.nexus, CDB(0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0), SENSE(3, 0x31, 3));
    CHECK_EQ(exec(&f.nexus, CDB(0x48, 0x21, 0, 0, 0, 0, 0, 0, 8, 0), list, 8), SENSE(3, 0x31, 3));
    CHECK_EQ(exec(&f.nexus, CDB(0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0), 0); /* AUSE */
    CHECK_EQ(read_block(&f.other), 0);
    fake_teardown(&f);
}

static uint32_t xcopy_list(uint8_t *list, uint8_t to_lun)
{
    memset(list, 0, 16 + 64 + 28);
    list[0] = 7;
    put_be16(list + 2, 64);
    put_be32(list + 8, 28);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *d = list + 16 + 32 * i;

        exec_lun(i ? to_lun : 0, CDB(0x12, 1, 0x83, 0, 255, 0), NULL, 255);
        d[0] = 0xe4;
        memcpy(d + 4, data + 4, 12); /* the first designator: NAA */
        d[30] = 2;
    }
    list[80] = 0x02;
    put_be16(list + 82, 24);
    put_be16(list + 86, 1); /* from 0 to 1 */
    put_be16(list + 90, 4096);
    put_be64(list + 100, 64);
    return 16 + 64 + 28;
}

TEST(medium, extended_copy_moves_blocks_between_luns)
{
    struct mem_node *second;
    uint8_t list[128];
    uint32_t len;

    fake_setup_two(&f, DISK_BYTES);
    second = mem_node_new(DISK_BYTES, 4096);
    REQUIRE(add_lun(&(struct lun_opts){
        .number = 3, .root = &second->node, .writable = true, .id = {.b = {1, 2, 3}}}));
    mem_node_fill(f.mem, 0, DISK_BYTES, BLK_ST_DATA, 0x61);
    len = xcopy_list(list, 3);
    CHECK_EQ(exec_lun(0, CDB(0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 108, 0, 0), list, len), 0);
    CHECK_EQ(second->data[64 * 512], 0x61);
    CHECK_EQ(second->data[64 * 512 - 1], 0);
    CHECK_EQ(second->data[(64 + 4096) * 512 - 1], 0x61);
    CHECK_EQ(second->data[(64 + 4096) * 512], 0);
    CHECK_EQ(exec_lun(0, CDB(0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0), NULL, 12), 0);
    CHECK_EQ(data[4], 1);
    CHECK_EQ(get_be32(data + 8), 2048);
    target_find_lun(&f.target, 3)->writable = false;
    CHECK_EQ(exec_lun(0, CDB(0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 108, 0, 0), list, len),
             SENSE(0xa, 0x0d, 2));
    list[24] ^= 0xff; /* a disk that is not here */
    CHECK_EQ(exec_lun(0, CDB(0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 108, 0, 0), list, len),
             SENSE(0xa, 0x0d, 2));
    fake_teardown(&f);
    blk_node_unref(&second->node);
}

TEST(medium, blocks_of_4096_bytes)
{
    fake_setup_two(&f, DISK_BYTES);
    REQUIRE(add_lun(
        &(struct lun_opts){.number = 2, .root = f.disk, .writable = true, .block_bytes = 4096}));
    CHECK_EQ(exec_lun(2, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 8), 0);
    CHECK_EQ(get_be32(data), DISK_BYTES / 4096 - 1);
    CHECK_EQ(get_be32(data + 4), 4096);
    memset(data, 0x21, 4096);
    CHECK_EQ(exec_lun(2, CDB(0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0), data, 4096), 0);
    CHECK_EQ(f.mem->data[3 * 4096], 0x21);
    CHECK(!fake_add_lun(&f, &(struct lun_opts){.number = 4, .root = f.disk, .block_bytes = 520}));
    fake_teardown(&f);
}

TEST(medium, unmap_reads_zeros_whatever_the_cluster)
{
    uint8_t list[24] = {0, 22, 0, 16, [11] = 0};

    fake_setup_two(&f, DISK_BYTES);
    f.disk->limits.granularity_bytes = 65536;
    mem_node_fill(f.mem, 0, DISK_BYTES, BLK_ST_DATA, 0x42);
    put_be64(list + 8, 1);
    put_be32(list + 16, 300);
    CHECK_EQ(exec(&f.nexus, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24), 0);
    CHECK_EQ(f.mem->data[511], 0x42);
    for (unsigned i = 512; i < 301 * 512; i++)
        REQUIRE(!f.mem->data[i]);
    CHECK_EQ(f.mem->data[301 * 512], 0x42);
    fake_teardown(&f);
}

TEST(unit_attentions, never_more_than_five_and_the_least_goes)
{
    enum ua_kind ua;
    unsigned n = 0;

    fake_setup_two(&f, DISK_BYTES);
    for (unsigned kind = UA_DEVICE_RESET; kind < UA_NR_KINDS; kind++)
        ua_raise(&f.target, 0, (enum ua_kind)kind);
    while (nexus_take_ua(&f.nexus, 0, &ua)) {
        CHECK_EQ(ua, UA_DEVICE_RESET + n);
        n++;
    }
    CHECK_EQ(n, NEXUS_MAX_UA);
    fake_teardown(&f);
}
