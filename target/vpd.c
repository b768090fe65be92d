/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vital product data. Identifiers come from the LUN's UUID and nothing else, so they are the same
 * after every restart and wherever the same content is served as the same thing.
 */
#include <stdio.h>
#include <string.h>
#include "target/ports.h"
#include "target/scsi-cmd.h"
#include "target/target-int.h"
#include "target/xcopy.h"
#include "util/byteorder.h"
#include "util/cow-wire.h"
#include "util/size.h"

/* A page: fills what follows the 4-byte header of a zeroed buffer; returns those bytes. */
struct vpd_page {
    uint8_t code;
    bool cowl_only;
    bool on_wlun; /* the well known logical unit has it, too: lun is NULL */
    size_t (*fill)(const struct lun *lun, uint8_t *b);
    /* instead, where what it says hangs on who asks */
    size_t (*fill_for)(const struct nexus *n, const struct lun *lun, uint8_t *b);
};

static void put_serial(char text[33], const struct lun *lun)
{
    for (int i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", lun->id.b[i]);
}

static size_t fill_serial(const struct lun *lun, uint8_t *b)
{
    char text[33];

    put_serial(text, lun);
    memcpy(b, text, 32);
    return 32;
}

/* ---- 83h, device identification, SPC-4 7.8.6 ---- */

enum { CODE_BINARY = 1, CODE_ASCII = 2, CODE_UTF8 = 3 };
enum { ASSOC_LUN = 0, ASSOC_PORT = 1, ASSOC_DEVICE = 2 };
enum {
    ID_T10_VENDOR = 1,
    ID_NAA = 3,
    ID_REL_PORT = 4,
    ID_PORT_GROUP = 5,
    ID_NAME = 8,
    ID_UUID = 10
};
#define PROTO_ISCSI 5

static size_t put_header(uint8_t *b, uint8_t code_set, uint8_t assoc, uint8_t type, uint8_t len)
{
    b[0] = code_set;
    b[1] = (uint8_t)(assoc << 4 | type);
    if (assoc != ASSOC_LUN) { /* PIV and the protocol the name is of */
        b[0] |= PROTO_ISCSI << 4;
        b[1] |= 0x80;
    }
    b[3] = len;
    return 4;
}

/* NAA 3h, locally assigned: 60 bits of the UUID, its halves folded. */
static size_t put_naa(uint8_t *b, const struct lun *lun)
{
    size_t n = put_header(b, CODE_BINARY, ASSOC_LUN, ID_NAA, 8);

    for (size_t i = 0; i < 8; i++)
        b[n + i] = lun->id.b[i] ^ lun->id.b[i + 8];
    b[n] = (uint8_t)(0x30 | (b[n] & 0x0f));
    return n + 8;
}

static size_t put_vendor_id(uint8_t *b, const struct lun *lun)
{
    char text[33];
    size_t n = put_header(b, CODE_ASCII, ASSOC_LUN, ID_T10_VENDOR, 40);

    put_serial(text, lun);
    memcpy(b + n, "COWTGT  ", 8);
    memcpy(b + n + 8, text, 32);
    return n + 40;
}

/* SPC-5 7.7.6.11: all 128 bits */
static size_t put_uuid(uint8_t *b, const struct lun *lun)
{
    size_t n = put_header(b, CODE_BINARY, ASSOC_LUN, ID_UUID, 18);

    b[n] = 0x10;
    memcpy(b + n + 2, lun->id.b, 16);
    return n + 18;
}

/* Of the port that it is asked by. */
static size_t put_port_number(uint8_t *b, uint16_t rel_port)
{
    size_t n = put_header(b, CODE_BINARY, ASSOC_PORT, ID_REL_PORT, 4);

    put_be16(b + n + 2, rel_port);
    return n + 4;
}

/* All ports are as good as any: one group for ALUA, whatever portal groups there are. */
static size_t put_port_group(uint8_t *b)
{
    size_t n = put_header(b, CODE_BINARY, ASSOC_PORT, ID_PORT_GROUP, 4);

    put_be16(b + n + 2, ALUA_GROUP);
    return n + 4;
}

/* SPC-4 7.8.6.11: NUL-terminated, padded to a multiple of four. */
static size_t put_name(uint8_t *b, uint8_t assoc, const char *name, const char *suffix)
{
    int len = snprintf((char *)b + 4, 252, "%s%s", name, suffix);

    put_header(b, CODE_UTF8, assoc, ID_NAME, (uint8_t)round_up_pow2((uint64_t)len + 1, 4));
    return 4u + b[3];
}

/* RFC 7143 4.4.2: the name of the portal group. */
static size_t put_port_name(uint8_t *b, const char *name, uint16_t rel_port)
{
    char suffix[16];

    snprintf(suffix, sizeof(suffix), ",t,0x%04x", rel_port);
    return put_name(b, ASSOC_PORT, name, suffix);
}

static size_t fill_identification(const struct nexus *nexus, const struct lun *lun, uint8_t *b)
{
    const char *name = target_name(nexus->target);
    size_t n = 0;

    if (lun) {
        n += put_naa(b + n, lun);
        n += put_vendor_id(b + n, lun);
        n += put_uuid(b + n, lun);
    }
    n += put_port_number(b + n, nexus->rel_port);
    if (lun)
        n += put_port_group(b + n);
    n += put_port_name(b + n, name, nexus->rel_port);
    n += put_name(b + n, ASSOC_DEVICE, name, "");
    return n;
}

bool vpd_designates(const struct lun *lun, const uint8_t *designator)
{
    uint8_t own[24] = {0};
    size_t n = put_naa(own, lun);

    if (!memcmp(own, designator, n))
        return true;
    n = put_uuid(own, lun);
    return !memcmp(own, designator, n);
}

/* ---- 86h, extended INQUIRY data, SPC-4 7.8.7 ---- */

static size_t fill_extended(const struct lun *lun, uint8_t *b)
{
    uint8_t *page = b - 4;

    page[5] = 0x07; /* HEADSUP, ORDSUP, SIMPSUP */
    if (lun->writable)
        page[6] = 0x01; /* V_SUP: a volatile cache */
    page[13] = SENSE_MAX_BUILT;
    return 60;
}

/* ---- 88h, SCSI ports, SPC-4 7.8.15 ---- */

#define NAME_MAX_BYTES (ISCSI_NAME_MAX + sizeof(",t,0x0001") + 3) /* padded */
_Static_assert(4 + PORTS_MAX * (12 + 4 + NAME_MAX_BYTES) <= SCSI_REPLY_BYTES, "they all fit");

static size_t fill_ports(const struct nexus *nexus, const struct lun *lun, uint8_t *b)
{
    const char *name = target_name(lun->target);
    uint16_t ports[PORTS_MAX];
    unsigned nr = target_ports(lun->target, nexus, ports);
    size_t n = 0;

    for (unsigned i = 0; i < nr; i++) {
        size_t len = put_port_name(b + n + 12, name, ports[i]);

        put_be16(b + n + 2, ports[i]);
        put_be16(b + n + 10, (uint16_t)len); /* and no initiator port's name before */
        n += 12 + len;
    }
    return n;
}

/* ---- 87h, mode page policy, SPC-4 7.8.9: all nexuses share all pages ---- */

static size_t fill_mode_policy(const struct lun *lun, uint8_t *b)
{
    (void)lun;
    b[0] = 0x3f; /* any page, */
    b[1] = 0xff; /* any subpage */
    return 4;
}

/* ---- 8Fh, third-party copy, SPC-4 7.8.17 ---- */

static size_t put_copy_header(uint8_t *b, uint16_t type, uint16_t len)
{
    put_be16(b, type);
    put_be16(b + 2, len);
    return 4u + len;
}

static size_t fill_copy(const struct lun *lun, uint8_t *b)
{
    /* bytes of the list, then operation code and its service actions, padded to words */
    static const uint8_t commands[12] = {8, 0x83, 1, 0x00, 0x84, 3, 0x00, 0x03, 0x04};
    static const uint8_t types[] = {2, XCOPY_SEG_BLOCKS, XCOPY_TARGET_ID, 0};
    size_t n = 0;

    memcpy(b + n + 4, commands, sizeof(commands));
    n += put_copy_header(b + n, 0x0001, sizeof(commands));
    put_be16(b + n + 8, XCOPY_MAX_TARGETS);
    put_be16(b + n + 10, XCOPY_MAX_SEGMENTS);
    put_be32(b + n + 12, XCOPY_MAX_LIST_BYTES);
    n += put_copy_header(b + n, 0x0004, 28);
    memcpy(b + n + 4, types, sizeof(types));
    n += put_copy_header(b + n, 0x0008, sizeof(types));
    put_be32(b + n + 4, XCOPY_MAX_COPIES);
    put_be32(b + n + 8, XCOPY_MAX_COPIES);
    put_be32(b + n + 12, XCOPY_MAX_SEGMENT_BYTES);
    b[n + 16] = lun->block_shift;
    n += put_copy_header(b + n, 0x8001, 32);
    return n;
}

/* ---- block pages, SBC-3 6.5 ---- */

#define OPTIMAL_TRANSFER_BYTES (1u << 20)
#define PREFERRED_BYTES        4096u

static uint32_t granularity_blocks(const struct lun *lun)
{
    const struct blk_limits *l = &blk_head_node(&lun->head)->limits;
    uint32_t bytes = l->granularity_bytes ? l->granularity_bytes : l->align_bytes;

    return MAX_OF(bytes, PREFERRED_BYTES) >> lun->block_shift;
}

static size_t fill_block_limits(const struct lun *lun, uint8_t *b)
{
    unsigned shift = lun->block_shift;
    uint8_t *page = b - 4; /* offsets as in the standard's table */

    page[4] = 0x01; /* WSNZ */
    page[5] = (uint8_t)lun_max_compare_blocks(lun);
    put_be16(page + 6, PREFERRED_BYTES >> shift);
    put_be32(page + 8, LUN_MAX_TRANSFER_BLOCKS);
    put_be32(page + 12, OPTIMAL_TRANSFER_BYTES >> shift);
    put_be32(page + 20, (uint32_t)(LUN_MAX_UNMAP_BYTES >> shift));
    put_be32(page + 16, LUN_MAX_TRANSFER_BLOCKS); /* of PRE-FETCH */
    put_be32(page + 24, LUN_MAX_UNMAP_DESCS);
    put_be32(page + 28, granularity_blocks(lun));
    put_be32(page + 32, 0x80000000u); /* UGAVALID, alignment 0 */
    put_be64(page + 36, LUN_MAX_WRITE_SAME_BYTES >> shift);
    for (unsigned at = 44; at < 56; at += 4) /* atomic: maximum length, alignment, granularity */
        put_be32(page + at, lun_atomic_bytes(lun) >> shift);
    return 60;
}

static size_t fill_characteristics(const struct lun *lun, uint8_t *b)
{
    put_be16(b, 1); /* not a rotating medium */
    if (!lun_has_layer_below(lun))
        b[3] = 0x40; /* WABEREQ: what was erased reads without being written first */
    return 60;
}

static size_t fill_provisioning(const struct lun *lun, uint8_t *b)
{
    b[0] = LUN_THRESHOLD_EXPONENT;
    b[1] = 0x80 | 0x40 | 0x20 | 0x04; /* LBPU, LBPWS, LBPWS10, LBPRZ */
    if (lun->anchored_zeros || lun_can_anchor(lun))
        b[1] |= 0x02; /* ANC_SUP */
    b[2] = 0x02;      /* thin */
    return 4;
}

static size_t fill_cow_layer(const struct lun *lun, uint8_t *b)
{
    return cowl_page_encode(&lun->cowl, 0, b - 4) - 4;
}

static size_t fill_list(const struct lun *lun, uint8_t *b);

/* Ascending: page 00h lists them in this order. */
static const struct vpd_page pages[] = {
    {.code = 0x00, .fill = fill_list, .on_wlun = true},
    {.code = 0x80, .fill = fill_serial},
    {.code = 0x83, .fill_for = fill_identification, .on_wlun = true},
    {.code = 0x86, .fill = fill_extended},
    {.code = 0x87, .fill = fill_mode_policy},
    {.code = 0x88, .fill_for = fill_ports},
    {.code = 0x8f, .fill = fill_copy},
    {.code = 0xb0, .fill = fill_block_limits},
    {.code = 0xb1, .fill = fill_characteristics},
    {.code = 0xb2, .fill = fill_provisioning},
    {.code = COWL_VPD_PAGE, .fill = fill_cow_layer, .cowl_only = true},
    {.fill = NULL},
};

static bool page_on_lun(const struct vpd_page *p, const struct lun *lun)
{
    return lun ? !p->cowl_only || lun->has_cowl : p->on_wlun;
}

static size_t fill_list(const struct lun *lun, uint8_t *b)
{
    size_t n = 0;

    for (const struct vpd_page *p = pages; p->fill || p->fill_for; p++) {
        if (page_on_lun(p, lun))
            b[n++] = p->code;
    }
    return n;
}

int vpd_inquiry(struct scsi_cmd *cmd, uint8_t *buf)
{
    size_t len;

    for (const struct vpd_page *p = pages; p->fill || p->fill_for; p++) {
        if (p->code != cmd->cdb[2] || !page_on_lun(p, cmd->lun))
            continue;
        len = p->fill ? p->fill(cmd->lun, buf + 4) : p->fill_for(cmd->nexus, cmd->lun, buf + 4);
        buf[0] = cmd->to_wlun ? TYPE_WLUN : 0; /* connected; else a direct access block device */
        buf[1] = p->code;
        put_be16(buf + 2, (uint16_t)len);
        return (int)len + 4;
    }
    cmd_fail_cdb_field(cmd, 2, -1);
    return -1;
}
