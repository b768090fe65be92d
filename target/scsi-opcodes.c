/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command table. The reservation class is an argument of the macros, so that no row can be
 * written without one. Usage bits name what the handler looks at, and what the standard lets stand
 * without effect (IMMED, GROUP NUMBER, obsolete fields of RESERVE); any other bit set is an invalid
 * field.
 */
#include "target/scsi-opcodes.h"

#include "target/lun.h"
#include "util/byteorder.h"
#include "util/cow-wire.h"

#define OP(name_, start_, resv_, ...)                              \
    {                                                              \
        .name = name_, .start = start_, .resv = resv_, __VA_ARGS__ \
    }
#define REPLY(name_, reply_, resv_, ...)                                                         \
    {                                                                                            \
        .name = name_, .start = scsi_start_reply, .reply = reply_, .dir = DIR_IN, .resv = resv_, \
        __VA_ARGS__                                                                              \
    }
#define AT(at_, bytes_)            \
    {                              \
        .at = at_, .bytes = bytes_ \
    }

#define FF2   0xff, 0xff
#define FF4   0xff, 0xff, 0xff, 0xff
#define FF8   FF4, FF4
#define GROUP 0x3f /* GROUP NUMBER: nothing is counted by it */

#define READ_FLAGS  (OPF_MEDIUM | OPF_READY | OPF_TRANSFER)
#define WRITE_FLAGS (OPF_MEDIUM | OPF_READY | OPF_TRANSFER | OPF_WRITE)

static const struct scsi_opcode service_action_in[SCSI_NR_SA] = {
    [0x10] = REPLY("READ CAPACITY(16)", sbc_read_capacity16, RESV_ALLOWED, .flags = OPF_READY,
                   .cdb_len = 16, .len = AT(10, 4), .usage = {0x9e, 0x1f, [10] = FF4}),
    [0x12] =
        OP("GET LBA STATUS", sbc_get_lba_status, RESV_READ, .dir = DIR_IN, .flags = OPF_READY,
           .cdb_len = 16, .lba = AT(2, 8), .len = AT(10, 4), .usage = {0x9e, 0x1f, FF8, FF4, 0xff}),
};

static const struct scsi_opcode maintenance_in[SCSI_NR_SA] = {
    [0x0a] = REPLY("REPORT TARGET PORT GROUPS", spc_report_target_ports, RESV_ALLOWED,
                   .cdb_len = 12, .len = AT(6, 4), .usage = {0xa3, 0xff, [6] = FF4}),
    [0x0c] = REPLY("REPORT SUPPORTED OPERATION CODES", spc_report_opcodes, RESV_ALLOWED,
                   .cdb_len = 12, .len = AT(6, 4), .usage = {0xa3, 0x1f, 0x87, 0xff, FF2, FF4}),
    [0x0d] = REPLY("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", spc_report_tmfs, RESV_ALLOWED,
                   .cdb_len = 12, .len = AT(6, 4), .usage = {0xa3, 0x1f, 0x80, [6] = FF4}),
};

static const struct scsi_opcode cow_layer[SCSI_NR_SA] = {
    [COWL_SA_LAYER_STATUS] = OP("GET LAYER STATUS", cowl_get_layer_status, RESV_READ, .dir = DIR_IN,
                                .flags = OPF_COWL | OPF_READY, .cdb_len = 16, .lba = AT(2, 8),
                                .len = AT(10, 4), .usage = {COWL_OPCODE, 0x1f, FF8, FF4, 0xff}),
};

#define PR_IN(name_)                                                                  \
    OP(name_, spc_pr_in, RESV_ALLOWED, .dir = DIR_IN, .flags = OPF_PR, .cdb_len = 10, \
       .len = AT(7, 2), .usage = {0x5e, 0x1f, [7] = FF2})

static const struct scsi_opcode pr_in[SCSI_NR_SA] = {
    [0x00] = PR_IN("PERSISTENT RESERVE IN, READ KEYS"),
    [0x01] = PR_IN("PERSISTENT RESERVE IN, READ RESERVATION"),
    [0x02] = PR_IN("PERSISTENT RESERVE IN, REPORT CAPABILITIES"),
    [0x03] = PR_IN("PERSISTENT RESERVE IN, READ FULL STATUS"),
};

/* Who may do which is decided by the registrations themselves. SCOPE and TYPE may hold anything
 * where they mean nothing. */
#define PR_OUT(name_)                                                                   \
    OP(name_, spc_pr_out, RESV_ALLOWED, .dir = DIR_OUT, .flags = OPF_PR, .cdb_len = 10, \
       .len = AT(5, 4), .usage = {0x5f, 0x1f, 0xff, [5] = FF4})

static const struct scsi_opcode pr_out[SCSI_NR_SA] = {
    [PR_REGISTER] = PR_OUT("PERSISTENT RESERVE OUT, REGISTER"),
    [PR_RESERVE] = PR_OUT("PERSISTENT RESERVE OUT, RESERVE"),
    [PR_RELEASE] = PR_OUT("PERSISTENT RESERVE OUT, RELEASE"),
    [PR_CLEAR] = PR_OUT("PERSISTENT RESERVE OUT, CLEAR"),
    [PR_PREEMPT] = PR_OUT("PERSISTENT RESERVE OUT, PREEMPT"),
    [PR_PREEMPT_AND_ABORT] = PR_OUT("PERSISTENT RESERVE OUT, PREEMPT AND ABORT"),
    [PR_REGISTER_AND_IGNORE] = PR_OUT("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY"),
    [PR_REGISTER_AND_MOVE] = PR_OUT("PERSISTENT RESERVE OUT, REGISTER AND MOVE"),
};

static const struct scsi_opcode extended_copy[SCSI_NR_SA] = {
    [0x00] =
        OP("EXTENDED COPY(LID1)", spc_extended_copy, RESV_WRITE, .dir = DIR_OUT, .flags = OPF_READY,
           .cdb_len = 16, .len = AT(10, 4), .usage = {0x83, 0x1f, [10] = FF4}),
};

static const struct scsi_opcode copy_results[SCSI_NR_SA] = {
    [0x00] = REPLY("RECEIVE COPY STATUS(LID1)", spc_copy_status, RESV_WRITE, .cdb_len = 16,
                   .len = AT(10, 4), .usage = {0x84, 0x1f, 0xff, [10] = FF4}),
    [0x03] = REPLY("RECEIVE COPY OPERATING PARAMETERS", spc_copy_parameters, RESV_WRITE,
                   .cdb_len = 16, .len = AT(10, 4), .usage = {0x84, 0x1f, [10] = FF4}),
    [0x04] = REPLY("RECEIVE COPY FAILURE DETAILS(LID1)", spc_copy_failure, RESV_WRITE,
                   .cdb_len = 16, .len = AT(10, 4), .usage = {0x84, 0x1f, 0xff, [10] = FF4}),
};

#define SANITIZE(name_)                                                                    \
    OP(name_, sbc_sanitize, RESV_WRITE, .dir = DIR_OUT, .flags = OPF_WRITE, .cdb_len = 10, \
       .len = AT(7, 2), .usage = {0x48, 0xbf, [7] = FF2})

static const struct scsi_opcode sanitize[SCSI_NR_SA] = {
    [0x01] = SANITIZE("SANITIZE, OVERWRITE"),
    [0x02] = SANITIZE("SANITIZE, BLOCK ERASE"),
    [0x1f] = SANITIZE("SANITIZE, EXIT FAILURE MODE"),
};

static const struct scsi_opcode variable[SCSI_NR_SA] = {
    [0x12] = OP("GET LBA STATUS(32)", sbc_get_lba_status32, RESV_READ, .dir = DIR_IN,
                .flags = OPF_READY, .cdb_len = 32, .lba = AT(12, 8), .len = AT(28, 4),
                .usage = {SCSI_VARIABLE, [7] = 0xff, FF2, 0xff, [12] = FF8, FF4, FF4, FF4}),
};

static const struct scsi_opcode table[256] = {
    [0x00] = OP("TEST UNIT READY", spc_good, RESV_UNIT, .flags = OPF_READY | OPF_WLUN, .cdb_len = 6,
                .usage = {0x00}),
    [0x03] = REPLY("REQUEST SENSE", spc_request_sense, RESV_ALLOWED, .ua = UA_RETURN,
                   .flags = OPF_NO_LUN | OPF_WLUN, .cdb_len = 6, .len = AT(4, 1),
                   .usage = {0x03, 0x01, [4] = 0xff}),
    [0x04] = OP("FORMAT UNIT", sbc_format_unit, RESV_WRITE, .dir = DIR_OUT, .flags = OPF_WRITE,
                .cdb_len = 6, .usage = {0x04, 0x3f}),
    [0x08] = OP("READ(6)", sbc_read, RESV_READ, .dir = DIR_IN, .flags = READ_FLAGS, .cdb_len = 6,
                .lba = AT(1, 3), .len = AT(4, 1), .usage = {0x08, 0x1f, FF2, 0xff}),
    [0x0a] = OP("WRITE(6)", sbc_write, RESV_WRITE, .dir = DIR_OUT, .flags = WRITE_FLAGS,
                .cdb_len = 6, .lba = AT(1, 3), .len = AT(4, 1), .usage = {0x0a, 0x1f, FF2, 0xff}),
    [0x12] =
        REPLY("INQUIRY", spc_inquiry, RESV_ALLOWED, .ua = UA_KEEP, .flags = OPF_NO_LUN | OPF_WLUN,
              .cdb_len = 6, .len = AT(3, 2), .usage = {0x12, 0x01, 0xff, FF2}),
    [0x15] = OP("MODE SELECT(6)", mode_select, RESV_WRITE, .dir = DIR_OUT, .cdb_len = 6,
                .len = AT(4, 1), .usage = {0x15, 0x11, [4] = 0xff}),
    [0x16] = OP("RESERVE(6)", spc_reserve, RESV_UNIT, .flags = OPF_RESERVE, .cdb_len = 6,
                .usage = {0x16, 0x1f, 0xff, FF2}),
    [0x17] = OP("RELEASE(6)", spc_release, RESV_ALLOWED, .flags = OPF_RESERVE, .cdb_len = 6,
                .usage = {0x17, 0x1f, 0xff}),
    [0x1a] = REPLY("MODE SENSE(6)", mode_sense, RESV_READ, .cdb_len = 6, .len = AT(4, 1),
                   .usage = {0x1a, 0x08, FF2, 0xff}),
    [0x1b] = OP("START STOP UNIT", sbc_start_stop, RESV_WRITE, .cdb_len = 6,
                .usage = {0x1b, 0x01, [4] = 0xf7}),
    [0x1c] = REPLY("RECEIVE DIAGNOSTIC RESULTS", spc_receive_diagnostic, RESV_READ, .cdb_len = 6,
                   .len = AT(3, 2), .usage = {0x1c, 0x01, 0xff, FF2}),
    [0x1d] = OP("SEND DIAGNOSTIC", spc_send_diagnostic, RESV_WRITE, .cdb_len = 6, .len = AT(3, 2),
                .usage = {0x1d, 0xf7, [3] = FF2}),
    [0x1e] = OP("PREVENT ALLOW MEDIUM REMOVAL", spc_prevent_removal, RESV_WRITE,
                .flags = OPF_REMOVABLE, .cdb_len = 6, .usage = {0x1e, [4] = 0x03}),
    [0x25] = REPLY("READ CAPACITY(10)", sbc_read_capacity10, RESV_ALLOWED, .flags = OPF_READY,
                   .cdb_len = 10, .usage = {0x25}),
    [0x28] =
        OP("READ(10)", sbc_read, RESV_READ, .dir = DIR_IN, .flags = READ_FLAGS | OPF_PROTECT,
           .cdb_len = 10, .lba = AT(2, 4), .len = AT(7, 2), .usage = {0x28, 0xf8, FF4, GROUP, FF2}),
    [0x2a] =
        OP("WRITE(10)", sbc_write, RESV_WRITE, .dir = DIR_OUT, .flags = WRITE_FLAGS | OPF_PROTECT,
           .cdb_len = 10, .lba = AT(2, 4), .len = AT(7, 2), .usage = {0x2a, 0xf8, FF4, GROUP, FF2}),
    [0x2e] = OP("WRITE AND VERIFY(10)", sbc_write_verify, RESV_WRITE, .dir = DIR_OUT,
                .flags = WRITE_FLAGS | OPF_PROTECT, .cdb_len = 10, .lba = AT(2, 4), .len = AT(7, 2),
                .usage = {0x2e, 0xf6, FF4, GROUP, FF2}),
    [0x2f] =
        OP("VERIFY(10)", sbc_verify, RESV_READ, .dir = DIR_OUT, .flags = READ_FLAGS | OPF_PROTECT,
           .cdb_len = 10, .lba = AT(2, 4), .len = AT(7, 2), .usage = {0x2f, 0xf6, FF4, GROUP, FF2}),
    [0x34] =
        OP("PRE-FETCH(10)", sbc_prefetch, RESV_READ, .flags = OPF_MEDIUM | OPF_READY, .cdb_len = 10,
           .lba = AT(2, 4), .len = AT(7, 2), .usage = {0x34, 0x02, FF4, GROUP, FF2}),
    [0x35] =
        OP("SYNCHRONIZE CACHE(10)", sbc_sync_cache, RESV_WRITE, .flags = OPF_MEDIUM | OPF_READY,
           .cdb_len = 10, .lba = AT(2, 4), .len = AT(7, 2), .usage = {0x35, 0x06, FF4, GROUP, FF2}),
    [0x37] = REPLY("READ DEFECT DATA(10)", sbc_read_defects, RESV_READ, .cdb_len = 10,
                   .len = AT(7, 2), .usage = {0x37, 0x00, 0x1f, [7] = FF2}),
    [0x41] = OP("WRITE SAME(10)", sbc_write_same, RESV_WRITE, .dir = DIR_OUT,
                .flags = OPF_MEDIUM | OPF_READY | OPF_WRITE | OPF_PROTECT, .cdb_len = 10,
                .lba = AT(2, 4), .len = AT(7, 2), .usage = {0x41, 0xf8, FF4, GROUP, FF2}),
    [0x42] = OP("UNMAP", sbc_unmap, RESV_WRITE, .dir = DIR_OUT, .flags = OPF_WRITE | OPF_READY,
                .cdb_len = 10, .len = AT(7, 2), .usage = {0x42, 0x01, [6] = GROUP, FF2}),
    [0x48] = {.name = "SANITIZE", .by_sa = sanitize},
    [0x4d] = OP("LOG SENSE", spc_log_sense, RESV_ALLOWED, .dir = DIR_IN, .cdb_len = 10,
                .len = AT(7, 2), .usage = {0x4d, 0x01, FF2, 0x00, FF2, FF2}),
    [0x55] = OP("MODE SELECT(10)", mode_select, RESV_WRITE, .dir = DIR_OUT, .cdb_len = 10,
                .len = AT(7, 2), .usage = {0x55, 0x11, [7] = FF2}),
    [0x56] = OP("RESERVE(10)", spc_reserve, RESV_UNIT, .flags = OPF_RESERVE, .cdb_len = 10,
                .usage = {0x56, 0x1f, FF2, [7] = FF2}),
    [0x57] = OP("RELEASE(10)", spc_release, RESV_ALLOWED, .flags = OPF_RESERVE, .cdb_len = 10,
                .usage = {0x57, 0x1f, FF2, [7] = FF2}),
    [0x5a] = REPLY("MODE SENSE(10)", mode_sense, RESV_READ, .cdb_len = 10, .len = AT(7, 2),
                   .usage = {0x5a, 0x18, FF2, [7] = FF2}),
    [0x5e] = {.name = "PERSISTENT RESERVE IN", .by_sa = pr_in},
    [0x5f] = {.name = "PERSISTENT RESERVE OUT", .by_sa = pr_out},
    [SCSI_VARIABLE] = {.name = "VARIABLE LENGTH", .by_sa = variable},
    [0x83] = {.name = "THIRD-PARTY COPY OUT", .by_sa = extended_copy},
    [0x84] = {.name = "THIRD-PARTY COPY IN", .by_sa = copy_results},
    [0x88] = OP("READ(16)", sbc_read, RESV_READ, .dir = DIR_IN, .flags = READ_FLAGS | OPF_PROTECT,
                .cdb_len = 16, .lba = AT(2, 8), .len = AT(10, 4),
                .usage = {0x88, 0xf8, FF8, FF4, GROUP}),
    [0x8a] = OP("WRITE(16)", sbc_write, RESV_WRITE, .dir = DIR_OUT,
                .flags = WRITE_FLAGS | OPF_PROTECT, .cdb_len = 16, .lba = AT(2, 8),
                .len = AT(10, 4), .usage = {0x8a, 0xf8, FF8, FF4, GROUP}),
    [0x89] = OP("COMPARE AND WRITE", sbc_compare_and_write, RESV_WRITE, .dir = DIR_OUT,
                .flags = OPF_MEDIUM | OPF_READY | OPF_WRITE | OPF_PROTECT, .cdb_len = 16,
                .lba = AT(2, 8), .len = AT(13, 1), .usage = {0x89, 0xf8, FF8, [13] = 0xff, GROUP}),
    [0x8b] = OP("ORWRITE(16)", sbc_orwrite, RESV_WRITE, .dir = DIR_OUT,
                .flags = WRITE_FLAGS | OPF_PROTECT, .cdb_len = 16, .lba = AT(2, 8),
                .len = AT(10, 4), .usage = {0x8b, 0xf8, FF8, FF4, GROUP}),
    [0x8e] = OP("WRITE AND VERIFY(16)", sbc_write_verify, RESV_WRITE, .dir = DIR_OUT,
                .flags = WRITE_FLAGS | OPF_PROTECT, .cdb_len = 16, .lba = AT(2, 8),
                .len = AT(10, 4), .usage = {0x8e, 0xf6, FF8, FF4, GROUP}),
    [0x8f] = OP("VERIFY(16)", sbc_verify, RESV_READ, .dir = DIR_OUT,
                .flags = READ_FLAGS | OPF_PROTECT, .cdb_len = 16, .lba = AT(2, 8), .len = AT(10, 4),
                .usage = {0x8f, 0xf6, FF8, FF4, GROUP}),
    [0x90] =
        OP("PRE-FETCH(16)", sbc_prefetch, RESV_READ, .flags = OPF_MEDIUM | OPF_READY, .cdb_len = 16,
           .lba = AT(2, 8), .len = AT(10, 4), .usage = {0x90, 0x02, FF8, FF4, GROUP}),
    [0x91] = OP("SYNCHRONIZE CACHE(16)", sbc_sync_cache, RESV_WRITE,
                .flags = OPF_MEDIUM | OPF_READY, .cdb_len = 16, .lba = AT(2, 8), .len = AT(10, 4),
                .usage = {0x91, 0x06, FF8, FF4, GROUP}),
    [0x93] = OP("WRITE SAME(16)", sbc_write_same, RESV_WRITE, .dir = DIR_OUT,
                .flags = OPF_MEDIUM | OPF_READY | OPF_WRITE | OPF_PROTECT, .cdb_len = 16,
                .lba = AT(2, 8), .len = AT(10, 4), .usage = {0x93, 0xf9, FF8, FF4, GROUP}),
    [0x9c] = OP("WRITE ATOMIC(16)", sbc_write_atomic, RESV_WRITE, .dir = DIR_OUT,
                .flags = WRITE_FLAGS | OPF_PROTECT | OPF_ATOMIC, .cdb_len = 16, .lba = AT(2, 8),
                .len = AT(12, 2), .usage = {0x9c, 0xf8, FF8, FF2, FF2, GROUP}),
    [0x9e] = {.name = "SERVICE ACTION IN(16)", .by_sa = service_action_in},
    [0xa0] = OP("REPORT LUNS", spc_report_luns, RESV_ALLOWED, .dir = DIR_IN, .ua = UA_KEEP,
                .flags = OPF_NO_LUN | OPF_WLUN, .cdb_len = 12, .len = AT(6, 4),
                .usage = {0xa0, 0x00, 0xff, [6] = FF4}),
    [0xa3] = {.name = "MAINTENANCE IN", .by_sa = maintenance_in},
    [0xa8] = OP("READ(12)", sbc_read, RESV_READ, .dir = DIR_IN, .flags = READ_FLAGS | OPF_PROTECT,
                .cdb_len = 12, .lba = AT(2, 4), .len = AT(6, 4), .usage = {0xa8, 0xf8, FF8, GROUP}),
    [0xaa] =
        OP("WRITE(12)", sbc_write, RESV_WRITE, .dir = DIR_OUT, .flags = WRITE_FLAGS | OPF_PROTECT,
           .cdb_len = 12, .lba = AT(2, 4), .len = AT(6, 4), .usage = {0xaa, 0xf8, FF8, GROUP}),
    [0xae] = OP("WRITE AND VERIFY(12)", sbc_write_verify, RESV_WRITE, .dir = DIR_OUT,
                .flags = WRITE_FLAGS | OPF_PROTECT, .cdb_len = 12, .lba = AT(2, 4), .len = AT(6, 4),
                .usage = {0xae, 0xf6, FF8, GROUP}),
    [0xaf] =
        OP("VERIFY(12)", sbc_verify, RESV_READ, .dir = DIR_OUT, .flags = READ_FLAGS | OPF_PROTECT,
           .cdb_len = 12, .lba = AT(2, 4), .len = AT(6, 4), .usage = {0xaf, 0xf6, FF8, GROUP}),
    [0xb7] = REPLY("READ DEFECT DATA(12)", sbc_read_defects, RESV_READ, .cdb_len = 12,
                   .len = AT(6, 4), .usage = {0xb7, 0x1f, [6] = FF4}),
    [COWL_OPCODE] = {.name = "COW LAYER", .by_sa = cow_layer},
};

const struct scsi_opcode *scsi_opcode_group(uint8_t opcode)
{
    return table[opcode].name ? &table[opcode] : NULL;
}

unsigned cdb_service_action_at(uint8_t opcode)
{
    return opcode == SCSI_VARIABLE ? 9 : 1;
}

uint16_t cdb_service_action(const uint8_t *cdb)
{
    return cdb[0] == SCSI_VARIABLE ? get_be16(cdb + 8) : cdb[1] & (SCSI_NR_SA - 1);
}

const struct scsi_opcode *scsi_opcode_find(const uint8_t *cdb, bool *bad_sa)
{
    uint16_t sa = cdb_service_action(cdb);
    const struct scsi_opcode *op = scsi_opcode_group(cdb[0]);

    *bad_sa = false;
    if (!op || !op->by_sa)
        return op;
    op = sa < SCSI_NR_SA && op->by_sa[sa].name ? &op->by_sa[sa] : NULL;
    *bad_sa = !op;
    return op;
}

bool scsi_opcode_on_lun(const struct scsi_opcode *op, const struct lun *lun)
{
    if (op->flags & OPF_REMOVABLE)
        return lun && lun->removable;
    if (op->flags & OPF_ATOMIC)
        return lun && lun_atomic_bytes(lun);
    return !(op->flags & OPF_COWL) || (lun && lun->has_cowl);
}

uint64_t cdb_get(const uint8_t *cdb, struct cdb_field f)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < f.bytes; i++)
        v = v << 8 | cdb[f.at + i];
    return v;
}
