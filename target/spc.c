/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Primary commands: who and what is here, and which commands it knows. Answers are built whole
 * in a zeroed buffer; the allocation length is applied by cmd_reply().
 */
#include "target/scsi-cmd.h"

#include <string.h>
#include "target/nexus.h"
#include "target/ports.h"
#include "target/target-int.h"
#include "util/byteorder.h"
#include "util/size.h"

#define PQ_NO_LUN 0x7f /* qualifier 011b, type 1Fh: nothing can be connected here */

static const char vendor[9] = "COWTGT  ";
static const char revision[5] = "0001";

void spc_good(struct scsi_cmd *cmd)
{
    cmd_good(cmd);
}

/* ---- INQUIRY, SPC-4 6.6 ---- */

static void put_version_descriptors(uint8_t *b, bool is_disk)
{
    static const uint16_t descriptors[] = {
        0x00a0, /* SAM-5 */
        0x0960, /* iSCSI */
        0x0460, /* SPC-4 */
        0x04c0, /* SBC-3; the last: no well known logical unit is a disk */
    };

    for (size_t i = 0; i < ARRAY_LEN(descriptors) - !is_disk; i++)
        put_be16(b + 2 * i, descriptors[i]);
}

static int standard_inquiry(const struct scsi_cmd *cmd, uint8_t *b)
{
    const struct lun *lun = cmd->lun;
    bool is_layer = lun && lun->has_cowl && lun->number;
    uint16_t ports[PORTS_MAX];
    const char *product = cmd->to_wlun ? "REPORT LUNS     "
                          : is_layer   ? "LAYER           "
                                       : "DISK            ";

    b[0] = cmd->to_wlun ? TYPE_WLUN : lun ? 0x00 : PQ_NO_LUN;
    if (lun && lun->removable)
        b[1] = 0x80; /* RMB */
    b[2] = 0x06;     /* SPC-4 */
    b[3] = 0x12;     /* HISUP, response data format 2 */
    b[4] = 96 - 5;
    if (!cmd->to_wlun)
        b[5] = 0x10 | 0x08; /* TPGS: implicit only; 3PC */
    if (target_ports(cmd->nexus->target, cmd->nexus, ports) > 1)
        b[6] = 0x10; /* MULTIP */
    b[7] = 0x02;     /* CMDQUE */
    memcpy(b + 8, vendor, 8);
    memcpy(b + 16, product, 16);
    memcpy(b + 32, revision, 4);
    put_version_descriptors(b + 58, !cmd->to_wlun);
    return 96;
}

int spc_inquiry(struct scsi_cmd *cmd, uint8_t *buf)
{
    if (cmd->cdb[1] & 0x01) { /* EVPD */
        if (cmd->lun || cmd->to_wlun)
            return vpd_inquiry(cmd, buf);
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
        return -1;
    }
    if (cmd->cdb[2]) {
        cmd_fail_cdb_field(cmd, 2, -1);
        return -1;
    }
    return standard_inquiry(cmd, buf);
}

/* ---- REQUEST SENSE, SPC-4 6.39 ---- */

int spc_request_sense(struct scsi_cmd *cmd, uint8_t *buf)
{
    struct sense s = {.id = SENSE_NONE};
    enum ua_kind ua;

    if (!cmd->lun && !cmd->to_wlun)
        s.id = SENSE_LUN_NOT_SUPPORTED;
    else if (cmd_take_ua(cmd, &ua))
        s.id = SENSE_UA_FIRST + ua;
    else if (cmd->lun)
        scsi_not_ready(cmd->lun, &s);
    return (int)sense_build(buf, &s, cmd->cdb[1] & 0x01);
}

/* ---- REPORT LUNS, SPC-4 6.33 ---- */

enum { SELECT_ADDRESSABLE = 0x00, SELECT_WELL_KNOWN = 0x01, SELECT_ALL = 0x02 };

static uint32_t nr_luns_selected(const struct scsi_cmd *cmd)
{
    const struct lun *lun;
    uint32_t n = cmd->cdb[2] != SELECT_ADDRESSABLE;

    if (cmd->cdb[2] == SELECT_WELL_KNOWN)
        return n;
    list_for_each_entry (lun, &cmd->nexus->target->luns, link)
        n += nexus_may_reach(cmd->nexus, lun);
    return n;
}

static void report_luns_with_buf(struct scsi_cmd *cmd)
{
    uint32_t room = cmd->buf_alloc - (cmd->cdb[2] == SELECT_ADDRESSABLE ? 0 : 8), len = 8;
    const struct lun *lun;

    memset(cmd->buf, 0, cmd->buf_alloc);
    list_for_each_entry (lun, &cmd->nexus->target->luns, link) {
        if (len + 8 > room) /* LUNs came while the buffer was awaited, or none is asked for */
            break;
        if (!nexus_may_reach(cmd->nexus, lun))
            continue;
        scsi_lun_encode(lun->number, cmd->buf + len);
        len += 8;
    }
    if (cmd->cdb[2] != SELECT_ADDRESSABLE) {
        scsi_lun_encode_report_luns(cmd->buf + len);
        len += 8;
    }
    put_be32(cmd->buf, len - 8);
    nexus_clear_ua(cmd->nexus, UA_REPORTED_LUNS);
    cmd_reply(cmd, len);
}

void spc_report_luns(struct scsi_cmd *cmd)
{
    if (cmd->cdb[2] > SELECT_ALL)
        cmd_fail_cdb_field(cmd, 2, -1);
    else
        cmd_get_buf(cmd, 8 + 8 * nr_luns_selected(cmd), report_luns_with_buf);
}

/* ---- REPORT SUPPORTED OPERATION CODES, SPC-4 6.35 ---- */

enum { REPORT_ALL = 0, REPORT_OPCODE = 1, REPORT_OPCODE_SA = 2, REPORT_EITHER = 3 };

#define TIMEOUTS_LEN 12

/* Command timeouts descriptor: nothing is promised. */
static size_t put_timeouts(uint8_t *b)
{
    put_be16(b, TIMEOUTS_LEN - 2);
    return TIMEOUTS_LEN;
}

/* SANITIZE is there to say why it is refused. */
static bool reported(const struct scsi_opcode *op, const struct lun *lun)
{
    return scsi_opcode_on_lun(op, lun) &&
           !(op->start == sbc_sanitize && lun && lun_has_layer_below(lun));
}

static size_t put_command(uint8_t *b, const struct scsi_opcode *op, uint8_t opcode, bool has_sa,
                          uint16_t sa, bool rctd)
{
    b[0] = opcode;
    put_be16(b + 2, sa);
    b[5] = (uint8_t)((rctd ? 0x02 : 0) | (has_sa ? 0x01 : 0));
    put_be16(b + 6, op->cdb_len);
    return 8 + (rctd ? put_timeouts(b + 8) : 0);
}

static size_t put_group(uint8_t *b, const struct scsi_cmd *cmd, const struct scsi_opcode *group,
                        uint8_t opcode, bool rctd)
{
    size_t n = 0;

    for (uint16_t sa = 0; sa < SCSI_NR_SA; sa++) {
        const struct scsi_opcode *op = &group->by_sa[sa];

        if (op->name && reported(op, cmd->lun))
            n += put_command(b + n, op, opcode, true, sa, rctd);
    }
    return n;
}

static int report_all(const struct scsi_cmd *cmd, uint8_t *buf, bool rctd)
{
    size_t n = 4;

    for (unsigned opcode = 0; opcode < 256; opcode++) {
        const struct scsi_opcode *op = scsi_opcode_group((uint8_t)opcode);

        if (!op)
            continue;
        if (op->by_sa)
            n += put_group(buf + n, cmd, op, (uint8_t)opcode, rctd);
        else if (reported(op, cmd->lun))
            n += put_command(buf + n, op, (uint8_t)opcode, false, 0, rctd);
    }
    put_be32(buf, (uint32_t)(n - 4));
    return (int)n;
}

static void put_service_action(uint8_t *usage, uint16_t sa)
{
    unsigned at = cdb_service_action_at(usage[0]);

    if (at > 1)
        put_be16(usage + at - 1, sa);
    else
        usage[at] = (uint8_t)((usage[at] & ~(SCSI_NR_SA - 1u)) | sa);
}

static int report_one(const struct scsi_cmd *cmd, uint8_t *buf, const struct scsi_opcode *op,
                      bool has_sa, uint16_t sa, bool rctd)
{
    size_t n = 4;

    if (!op || !op->name || !reported(op, cmd->lun)) {
        buf[1] = 0x01; /* not supported */
        return (int)n;
    }
    buf[1] = (uint8_t)(0x03 | (rctd ? 0x80 : 0)); /* as the standard has it; CTDP */
    put_be16(buf + 2, op->cdb_len);
    memcpy(buf + n, op->usage, op->cdb_len);
    if (has_sa) /* not a map of bits: the value */
        put_service_action(buf + n, sa);
    n += op->cdb_len;
    if (rctd)
        n += put_timeouts(buf + n);
    return (int)n;
}

int spc_report_opcodes(struct scsi_cmd *cmd, uint8_t *buf)
{
    unsigned option = cmd->cdb[2] & 0x07;
    bool rctd = cmd->cdb[2] & 0x80;
    uint16_t sa = get_be16(cmd->cdb + 4); /* 16 bits from outside: bounded before the table */
    const struct scsi_opcode *op = scsi_opcode_group(cmd->cdb[3]);
    bool has_sa = op && op->by_sa;

    if (option == REPORT_ALL)
        return report_all(cmd, buf, rctd);
    if (option > REPORT_EITHER || (option == REPORT_OPCODE && has_sa)) {
        cmd_fail_cdb_field(cmd, 2, 2);
        return -1;
    }
    if (option == REPORT_OPCODE_SA && op && !has_sa) {
        cmd_fail_cdb_field(cmd, 2, 2);
        return -1;
    }
    if (has_sa)
        op = sa < SCSI_NR_SA ? &op->by_sa[sa] : NULL;
    else if (option == REPORT_EITHER && sa)
        op = NULL;
    return report_one(cmd, buf, op, has_sa, sa, rctd);
}

/* ---- REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4 6.36 ---- */

int spc_report_tmfs(struct scsi_cmd *cmd, uint8_t *buf)
{
    bool extended = cmd->cdb[2] & 0x80; /* REPD */

    if (cdb_get(cmd->cdb, cmd->op->len) < 4) {
        cmd_fail_cdb_field(cmd, 6, -1);
        return -1;
    }
    buf[0] = 0xda; /* abort task, abort task set, clear task set, LUN reset, target reset */
    buf[3] = extended ? 0x0c : 0;
    return extended ? 16 : 4;
}

/* ---- REPORT TARGET PORT GROUPS, SPC-4 6.37: one group of all ports, each as good as any ---- */

int spc_report_target_ports(struct scsi_cmd *cmd, uint8_t *buf)
{
    bool extended = cmd->cdb[1] >> 5 == 1; /* PARAMETER DATA FORMAT */
    size_t hdr = extended ? 8 : 4, len;
    uint8_t *d = buf + hdr;
    uint16_t ports[PORTS_MAX];
    unsigned nr = target_ports(cmd->nexus->target, cmd->nexus, ports);

    if (cmd->cdb[1] >> 5 > 1) {
        cmd_fail_cdb_field(cmd, 1, 7);
        return -1;
    }
    len = hdr + 8 + 4 * nr;
    put_be32(buf, (uint32_t)(len - 4));
    if (extended)
        buf[4] = 0x10; /* LENGTH-EXTENDED; no implicit transition takes time */
    d[0] = 0x00;       /* active/optimized; PREF: of one group none is preferred */
    d[1] = 0x01;       /* AO_SUP */
    put_be16(d + 2, ALUA_GROUP);
    d[7] = (uint8_t)nr;
    for (unsigned i = 0; i < nr; i++)
        put_be16(d + 8 + 4 * i + 2, ports[i]);
    return (int)len;
}

/* ---- SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS, SPC-4 6.42 and 6.20 ---- */

/* The default self-test is that we answer: what can fail is seen when data is moved. */
void spc_send_diagnostic(struct scsi_cmd *cmd)
{
    if (cmd->cdb[1] >> 5) /* SELF-TEST CODE: no background or extended test */
        cmd_fail_cdb_field(cmd, 1, 7);
    else if (cdb_get(cmd->cdb, cmd->op->len)) /* no page can be sent */
        cmd_fail_cdb_field(cmd, 3, -1);
    else
        cmd_good(cmd);
}

int spc_receive_diagnostic(struct scsi_cmd *cmd, uint8_t *buf)
{
    if (!(cmd->cdb[1] & 0x01) || cmd->cdb[2]) { /* PCV; page 00h is the only one */
        cmd_fail_cdb_field(cmd, cmd->cdb[1] & 0x01 ? 2 : 1, -1);
        return -1;
    }
    put_be16(buf + 2, 1); /* supported pages: this one */
    return 5;
}

/* ---- PREVENT ALLOW MEDIUM REMOVAL, SPC-4 6.15 ---- */

void spc_prevent_removal(struct scsi_cmd *cmd)
{
    if (cmd->cdb[4] & 0x02) {
        cmd_fail_cdb_field(cmd, 4, 1);
        return;
    }
    nexus_prevent_removal(cmd->nexus, cmd->lun->number, cmd->cdb[4] & 0x01);
    cmd_good(cmd);
}
