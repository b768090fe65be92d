/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SCSI commands from CDB to status, over a disk in memory that is LUN 0, writable, and LUN 1, a
 * read-only layer of a chain.
 *
 * Input: commands, each a byte of flags (below), a CDB of 16 bytes (32 where it says so), the
 * expected transfer length (2 bytes), and for data-out the length of what follows (2 bytes) and
 * that, zeros behind it.
 */
#include <stdlib.h>
#include <string.h>

#include "target/scsi-opcodes.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/scsi-fake.h"
#include "util/size.h"

#define DISK_BYTES   (1u << 20)
#define MAX_COMMANDS 24

enum flags {
    DATA_OUT = 1, /* the initiator's direction */
    LAYER = 2,
    NO_LUN = 4,
    CONCURRENT = 8, /* the next command doesn't wait for it */
    ABORTED = 16,   /* given up as soon as it was started */
    ATTR_SHIFT = 5,
};

static struct fake_cmd *take_command(struct fake *f, struct fuzz_bytes *in, uint8_t flags)
{
    size_t got, said;
    const uint8_t *from = fuzz_take(in, 16, &got);
    uint8_t cdb[SCSI_MAX_CDB] = {0};
    unsigned bytes = 16;
    uint32_t edtl;
    struct fake_cmd *c;

    memcpy(cdb, from, got);
    if (cdb[0] == SCSI_VARIABLE) {
        from = fuzz_take(in, 16, &got);
        memcpy(cdb + 16, from, got);
        bytes += (unsigned)got;
    }
    edtl = fuzz_u16(in);
    c = fake_cmd_new(f, cdb, bytes, edtl, flags & DATA_OUT);

    if (flags & DATA_OUT && edtl) {
        said = fuzz_u16(in);
        const uint8_t *data = fuzz_take(in, MIN_OF(said, edtl), &got);

        memcpy(c->data, data, got);
    }
    c->cmd.attr = flags >> ATTR_SHIFT;
    c->cmd.chunk_bytes = 8192;
    scsi_lun_encode(flags & NO_LUN ? 7 : flags & LAYER ? 1 : 0, c->cmd.lun_field);
    return c;
}

/* What SCSI asked for and has not got will not come any more. */
static void give_up(struct fake_cmd *c)
{
    if (c->done)
        return;
    if (c->tell == scsi_cmd_data_out_ready)
        loop_undefer(&c->defer);
    scsi_cmd_abort(&c->cmd);
}

/* SPC-4 4.5: what an initiator may rely on. */
static void check_end(const struct fake_cmd *c)
{
    const struct scsi_cmd *cmd = &c->cmd;

    FUZZ_REQUIRE(c->in_len <= cmd->edtl_bytes);
    if (cmd->aborted)
        return;
    if (cmd->status == SCSI_CHECK_CONDITION)
        FUZZ_REQUIRE(cmd->sense_len >= 8 && cmd->sense_len <= SCSI_MAX_SENSE);
    else
        FUZZ_REQUIRE(cmd->sense_len == 0);
    if (cmd->status == SCSI_GOOD && cmd->dir_read && cmd->op->dir == DIR_IN)
        FUZZ_REQUIRE(c->in_len == MIN_OF(cmd->transfer_bytes, cmd->edtl_bytes));
}

static void add_layer(struct fake *f)
{
    struct lun_opts opts = {.number = 1, .root = f->disk, .has_cowl = true};
    enum ua_kind told;

    opts.cowl = (struct cowl_page){
        .flags = COWL_READ_ONLY | COWL_SEALED | COWL_BASE, .nr_layers = 1, .name = "base"};
    opts.cowl.granularity_blocks = 8;
    FUZZ_REQUIRE(fake_add_lun(f, &opts));
    for (uint16_t lun = 0; lun < 2; lun++) {
        while (nexus_take_ua(&f->nexus, lun, &told))
            ;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes in = {data, data + size};
    struct fake_cmd *cmds[MAX_COMMANDS];
    unsigned n = 0;
    struct fake f;

    fake_setup(&f, DISK_BYTES, true);
    add_layer(&f);
    mem_node_fill(f.mem, 65536, 65536, BLK_ST_DATA, 0x5a);
    mem_node_fill(f.mem, 131072, 65536, BLK_ST_ZERO, 0);
    for (; fuzz_left(&in) > 17 && n < MAX_COMMANDS; n++) {
        uint8_t flags = fuzz_u8(&in);

        cmds[n] = take_command(&f, &in, flags);
        fake_start(cmds[n]);
        if (flags & ABORTED)
            give_up(cmds[n]);
        if (!(flags & CONCURRENT))
            fake_wait(cmds[n]);
    }
    for (unsigned i = 0; i < n; i++) {
        fake_wait(cmds[i]);
        check_end(cmds[i]);
        fake_cmd_free(cmds[i]);
    }
    fake_teardown(&f);
    return 0;
}
