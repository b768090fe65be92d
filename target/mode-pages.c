/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MODE SENSE and MODE SELECT. Each page names the bits that can be changed; MODE SELECT checks the
 * whole list against the current values under that mask before it changes anything. Nothing is
 * saved: a reset brings the defaults back. With WCE 0 every write is forced to the medium.
 */
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

enum { PC_CURRENT = 0, PC_CHANGEABLE = 1, PC_DEFAULT = 2, PC_SAVED = 3 };

#define ALL_PAGES     0x3f
#define ALL_SUBPAGES  0xff
#define PAGE_MAX      64
#define SELECT_MAX    512
#define CONTROL_SENSE 0x04 /* D_SENSE, in byte 2 */
#define CONTROL_SWP   0x08 /* in byte 4 */
#define CACHING_WCE   0x04 /* in byte 2 */

struct mode_page {
    uint8_t code, subpage;
    uint8_t len; /* with its header of 2, or of a subpage 4 bytes */
    void (*fill)(const struct lun *lun, uint8_t *page, bool defaults);
    void (*mask)(const struct lun *lun, uint8_t *page); /* NULL: nothing can be changed */
    void (*take)(struct lun *lun, const uint8_t *page);
};

void mode_reset(struct lun *lun)
{
    lun->write_cache = lun->writable;
    lun->sense_descriptor = false;
    lun->software_protect = false;
    lun->threshold_armed = false;
    lun->threshold_sets = 0;
}

/* ---- SBC-3 6.4.5: the write cache is volatile until SYNCHRONIZE CACHE ---- */

static void fill_caching(const struct lun *lun, uint8_t *page, bool defaults)
{
    if (defaults ? lun->writable : lun->write_cache)
        page[2] = CACHING_WCE;
}

static void mask_caching(const struct lun *lun, uint8_t *page)
{
    if (lun->writable)
        page[2] = CACHING_WCE;
}

static void take_caching(struct lun *lun, const uint8_t *page)
{
    lun->write_cache = page[2] & CACHING_WCE;
}

/* ---- SPC-4 7.5.8: one task set, commands may be reordered, no limit on busy time ---- */

static void fill_control(const struct lun *lun, uint8_t *page, bool defaults)
{
    if (!defaults && lun->sense_descriptor)
        page[2] = CONTROL_SENSE;
    page[3] = 0x10; /* unrestricted reordering */
    if (!lun->writable || (!defaults && lun->software_protect))
        page[4] = CONTROL_SWP;
    put_be16(page + 8, 0xffff);
}

static void mask_control(const struct lun *lun, uint8_t *page)
{
    page[2] = CONTROL_SENSE;
    if (lun->writable)
        page[4] = CONTROL_SWP;
}

static void take_control(struct lun *lun, const uint8_t *page)
{
    lun->sense_descriptor = page[2] & CONTROL_SENSE;
    lun->software_protect = lun->writable && page[4] & CONTROL_SWP;
}

/* ---- SPC-4 7.5.12: no failure is predicted, so none is reported ---- */

static void fill_exceptions(const struct lun *lun, uint8_t *page, bool defaults)
{
    (void)lun;
    (void)defaults;
    page[2] = 0x08; /* DEXCPT */
}

/* ---- SBC-3 6.4.7, logical block provisioning: one soft threshold, of what is available ---- */

#define THRESHOLD_ARMED 0x80
#define AT_THRESHOLD    16 /* its descriptor in the page */

static void fill_provisioning(const struct lun *lun, uint8_t *page, bool defaults)
{
    page[AT_THRESHOLD + 1] = 0x01; /* THRESHOLD RESOURCE: as it decreases */
    if (defaults)
        return;
    page[AT_THRESHOLD] = lun->threshold_armed ? THRESHOLD_ARMED : 0;
    put_be32(page + AT_THRESHOLD + 4, lun->threshold_sets);
}

static void mask_provisioning(const struct lun *lun, uint8_t *page)
{
    (void)lun;
    page[AT_THRESHOLD] = THRESHOLD_ARMED;
    put_be32(page + AT_THRESHOLD + 4, UINT32_MAX);
}

static void take_provisioning(struct lun *lun, const uint8_t *page)
{
    lun->threshold_armed = page[AT_THRESHOLD] & THRESHOLD_ARMED;
    lun->threshold_sets = get_be32(page + AT_THRESHOLD + 4);
    lun->threshold_told = false;
    lun->threshold_asked_ns = 0;
}

/* Ascending, as MODE SENSE tells them. */
static const struct mode_page mode_pages[] = {
    {0x08, 0x00, 20, fill_caching, mask_caching, take_caching},
    {0x0a, 0x00, 12, fill_control, mask_control, take_control},
    {0x1c, 0x00, 12, fill_exceptions, NULL, NULL},
    {0x1c, 0x02, 24, fill_provisioning, mask_provisioning, take_provisioning},
};

static void put_page_header(const struct mode_page *p, uint8_t *b)
{
    b[0] = p->code;
    if (p->subpage) {
        b[0] |= 0x40; /* SPF */
        b[1] = p->subpage;
        put_be16(b + 2, p->len - 4);
    } else {
        b[1] = p->len - 2;
    }
}

static void put_page(const struct lun *lun, const struct mode_page *p, unsigned control, uint8_t *b)
{
    if (control != PC_CHANGEABLE)
        p->fill(lun, b, control == PC_DEFAULT);
    else if (p->mask)
        p->mask(lun, b);
    put_page_header(p, b);
}

/* ---- MODE SENSE, SPC-4 6.11 and 6.12 ---- */

/* SUBPAGE CODE 00h: pages without one; FFh: all; else that one. */
static bool selected(const struct mode_page *p, uint8_t code, uint8_t subpage)
{
    return (code == ALL_PAGES || code == p->code) &&
           (subpage == ALL_SUBPAGES || subpage == p->subpage);
}

static size_t put_pages(const struct lun *lun, uint8_t *b, const uint8_t *cdb)
{
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(mode_pages); i++) {
        const struct mode_page *p = &mode_pages[i];

        if (!selected(p, cdb[2] & 0x3f, cdb[3]))
            continue;
        put_page(lun, p, cdb[2] >> 6, b + n);
        n += p->len;
    }
    return n;
}

/* SBC-3 6.4.2: 8 or (LLBAA) 16 bytes */
static size_t put_block_descriptor(const struct lun *lun, uint8_t *b, bool is_long)
{
    if (is_long) {
        put_be64(b, lun->capacity_blocks);
        put_be32(b + 12, lun_block_bytes(lun));
        return 16;
    }
    put_be32(b, (uint32_t)MIN_OF(lun->capacity_blocks, UINT32_MAX));
    put_be24(b + 5, lun_block_bytes(lun));
    return 8;
}

int mode_sense(struct scsi_cmd *cmd, uint8_t *buf)
{
    const uint8_t *cdb = cmd->cdb;
    bool is_10 = cmd->op->cdb_len == 10;
    bool long_lba = is_10 && cdb[1] & 0x10;
    size_t hdr = is_10 ? 8 : 4, desc = 0, n;
    uint8_t specific = (uint8_t)(0x10 | (lun_writes_allowed(cmd->lun) ? 0 : 0x80)); /* DPOFUA, WP */

    if (cdb[2] >> 6 == PC_SAVED) {
        cmd_fail(cmd, SENSE_SAVING_NOT_SUPPORTED);
        return -1;
    }
    if (!(cdb[1] & 0x08)) /* DBD */
        desc = put_block_descriptor(cmd->lun, buf + hdr, long_lba);
    n = put_pages(cmd->lun, buf + hdr + desc, cdb);
    if (!n) {
        cmd_fail_cdb_field(cmd, cdb[3] && cdb[3] != ALL_SUBPAGES ? 3 : 2, -1);
        return -1;
    }
    n += hdr + desc;
    if (is_10) {
        put_be16(buf, (uint16_t)(n - 2));
        buf[3] = specific;
        buf[4] = desc == 16; /* LONGLBA */
        put_be16(buf + 6, (uint16_t)desc);
    } else {
        buf[0] = (uint8_t)(n - 1);
        buf[2] = specific;
        buf[3] = (uint8_t)desc;
    }
    return (int)n;
}

/* ---- MODE SELECT, SPC-4 6.9 and 6.10 ---- */

static const struct mode_page *page_at(const uint8_t *b, uint32_t room)
{
    bool spf = b[0] & 0x40;
    uint32_t len;

    if (room < (spf ? 4u : 2u))
        return NULL;
    len = spf ? 4u + get_be16(b + 2) : 2u + b[1];
    for (size_t i = 0; i < ARRAY_LEN(mode_pages); i++) {
        const struct mode_page *p = &mode_pages[i];

        if (p->code == (b[0] & 0x3f) && p->subpage == (spf ? b[1] : 0) && p->len == len)
            return p;
    }
    return NULL;
}

/* False with *@bad: a bit differs that can't be changed. */
static bool page_acceptable(const struct lun *lun, const struct mode_page *p, const uint8_t *given,
                            uint32_t *bad)
{
    uint8_t now[PAGE_MAX] = {0}, mask[PAGE_MAX] = {0};

    put_page(lun, p, PC_CURRENT, now);
    if (p->mask)
        p->mask(lun, mask);
    for (*bad = p->subpage ? 4 : 2; *bad < p->len; (*bad)++) {
        if ((given[*bad] ^ now[*bad]) & ~mask[*bad])
            return false;
    }
    return true;
}

/* The block descriptor may only say what is. */
static bool descriptor_acceptable(const struct lun *lun, const uint8_t *b, uint32_t len)
{
    uint64_t blocks = len == 16 ? get_be64(b) : get_be32(b);
    uint32_t bytes = len == 16 ? get_be32(b + 12) : (uint32_t)get_be24(b + 5);
    uint64_t all = len == 16 ? lun->capacity_blocks : MIN_OF(lun->capacity_blocks, UINT32_MAX);

    return (!blocks || blocks == all || (len == 8 && blocks == UINT32_MAX)) &&
           bytes == lun_block_bytes(lun);
}

/* One pass that checks, one that takes: all or nothing. False: the command has ended. */
static bool each_page(struct scsi_cmd *cmd, uint32_t at, uint32_t len, bool take)
{
    while (at < len) {
        const struct mode_page *p = page_at(cmd->buf + at, len - at);
        uint32_t bad;

        if (!p) {
            cmd_fail_param_field(cmd, (uint16_t)at);
            return false;
        }
        if (p->len > len - at) {
            cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
            return false;
        }
        if (take && p->take) {
            p->take(cmd->lun, cmd->buf + at);
        } else if (!take && !page_acceptable(cmd->lun, p, cmd->buf + at, &bad)) {
            cmd_fail_param_field(cmd, (uint16_t)(at + bad));
            return false;
        }
        at += p->len;
    }
    return true;
}

static void select_with_list(struct scsi_cmd *cmd)
{
    bool is_10 = cmd->op->cdb_len == 10;
    uint32_t hdr = is_10 ? 8 : 4, len = cmd->buf_len, desc;

    cmd->moved_bytes = len;
    if (len < hdr) {
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
        return;
    }
    desc = is_10 ? get_be16(cmd->buf + 6) : cmd->buf[3];
    if (desc && desc != (is_10 && cmd->buf[4] & 1 ? 16u : 8u)) {
        cmd_fail_param_field(cmd, is_10 ? 6 : 3);
        return;
    }
    if (desc > len - hdr) {
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
        return;
    }
    if (desc && !descriptor_acceptable(cmd->lun, cmd->buf + hdr, desc)) {
        cmd_fail_param_field(cmd, (uint16_t)hdr);
        return;
    }
    if (!each_page(cmd, hdr + desc, len, false))
        return;
    each_page(cmd, hdr + desc, len, true);
    /* SPC-4 5.16: all nexuses share the parameters */
    ua_raise_others(cmd->lun->target, cmd->lun->number, UA_MODE_PARAMETERS, cmd->nexus);
    if (!cmd->lun->write_cache && cmd->lun->writable)
        cmd_flush(cmd); /* what was cached until now */
    else
        cmd_good(cmd);
}

static void select_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, select_with_list);
}

void mode_select(struct scsi_cmd *cmd)
{
    uint64_t len = cdb_get(cmd->cdb, cmd->op->len);

    cmd->transfer_bytes = len;
    if (cmd->cdb[1] & 0x01) /* SP: nothing can be saved */
        cmd_fail_cdb_field(cmd, 1, 0);
    else if (!(cmd->cdb[1] & 0x10)) /* PF: these pages only */
        cmd_fail_cdb_field(cmd, 1, 4);
    else if (!len)
        cmd_good(cmd);
    else if (len > SELECT_MAX || len > cmd_expected_bytes(cmd))
        cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
    else
        cmd_get_buf(cmd, SELECT_MAX, select_fetch);
}
