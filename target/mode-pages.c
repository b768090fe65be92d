/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MODE SENSE and MODE SELECT. Each page names the bits that can be changed; MODE SELECT checks the
 * whole list against the current values under that mask before it changes anything. A reset brings
 * the saved values back (mode-saved.c). With WCE 0 every write is forced to the medium.
 */
#include "target/mode-pages.h"

#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

enum { PC_CURRENT = 0, PC_CHANGEABLE = 1, PC_DEFAULT = 2, PC_SAVED = 3 };

#define ALL_PAGES     0x3f
#define ALL_SUBPAGES  0xff
#define PAGE_MAX      64
#define SELECT_MAX    512
#define PAGE_SAVEABLE 0x80 /* PS, in byte 0 */
#define SELECT_SP     0x01 /* in byte 1 of the CDB */
#define CONTROL_SENSE 0x04 /* D_SENSE, in byte 2 */
#define CONTROL_SWP   0x08 /* in byte 4 */
#define CACHING_WCE   0x04 /* in byte 2 */

struct mode_page {
    uint8_t code, subpage;
    uint8_t len; /* with its header of 2, or of a subpage 4 bytes */
    void (*fill)(const struct lun *lun, const struct mode_values *v, uint8_t *page);
    void (*mask)(const struct lun *lun, uint8_t *page); /* NULL: nothing can be changed */
    void (*take)(struct mode_values *v, const uint8_t *page);
};

struct mode_values mode_defaults(const struct lun *lun)
{
    return (struct mode_values){.write_cache = lun->writable};
}

static void use_values(struct lun *lun, const struct mode_values *v)
{
    lun->mode = *v;
    lun->mode.write_cache &= lun->writable; /* it may have been saved while it was */
    lun->mode.software_protect &= lun->writable;
    lun->threshold_told = false;
    lun->threshold_asked_ns = 0;
}

void mode_reset(struct lun *lun)
{
    use_values(lun, &lun->saved_mode);
}

/* ---- SBC-3 6.4.5: the write cache is volatile until SYNCHRONIZE CACHE ---- */

static void fill_caching(const struct lun *lun, const struct mode_values *v, uint8_t *page)
{
    if (lun->writable && v->write_cache)
        page[2] = CACHING_WCE;
}

static void mask_caching(const struct lun *lun, uint8_t *page)
{
    if (lun->writable)
        page[2] = CACHING_WCE;
}

static void take_caching(struct mode_values *v, const uint8_t *page)
{
    v->write_cache = page[2] & CACHING_WCE;
}

/* ---- SPC-4 7.5.8: one task set, commands may be reordered, no limit on busy time ---- */

static void fill_control(const struct lun *lun, const struct mode_values *v, uint8_t *page)
{
    if (v->sense_descriptor)
        page[2] = CONTROL_SENSE;
    page[3] = 0x10; /* unrestricted reordering */
    if (!lun->writable || v->software_protect)
        page[4] = CONTROL_SWP;
    put_be16(page + 8, 0xffff);
}

static void mask_control(const struct lun *lun, uint8_t *page)
{
    page[2] = CONTROL_SENSE;
    if (lun->writable)
        page[4] = CONTROL_SWP;
}

static void take_control(struct mode_values *v, const uint8_t *page)
{
    v->sense_descriptor = page[2] & CONTROL_SENSE;
    v->software_protect = page[4] & CONTROL_SWP;
}

/* ---- SPC-4 7.5.12: no failure is predicted, so none is reported ---- */

static void fill_exceptions(const struct lun *lun, const struct mode_values *v, uint8_t *page)
{
    (void)lun;
    (void)v;
    page[2] = 0x08; /* DEXCPT */
}

/* ---- SBC-3 6.4.7, logical block provisioning: one soft threshold, of what is available ---- */

#define THRESHOLD_ARMED 0x80
#define AT_THRESHOLD    16 /* its descriptor in the page */

static void fill_provisioning(const struct lun *lun, const struct mode_values *v, uint8_t *page)
{
    (void)lun;
    page[AT_THRESHOLD] = v->threshold_armed ? THRESHOLD_ARMED : 0;
    page[AT_THRESHOLD + 1] = 0x01; /* THRESHOLD RESOURCE: as it decreases */
    put_be32(page + AT_THRESHOLD + 4, v->threshold_sets);
}

static void mask_provisioning(const struct lun *lun, uint8_t *page)
{
    (void)lun;
    page[AT_THRESHOLD] = THRESHOLD_ARMED;
    put_be32(page + AT_THRESHOLD + 4, UINT32_MAX);
}

static void take_provisioning(struct mode_values *v, const uint8_t *page)
{
    v->threshold_armed = page[AT_THRESHOLD] & THRESHOLD_ARMED;
    v->threshold_sets = get_be32(page + AT_THRESHOLD + 4);
}

/* ---- SBC-3 6.4.8, errors are told as they are ---- */

static void fill_recovery(const struct lun *lun, const struct mode_values *v, uint8_t *page)
{
    (void)lun;
    (void)v;
    page[7] = 0x80; /* LBPERE: thresholds that are armed are told */
}

/* Ascending, as MODE SENSE tells them. */
static const struct mode_page mode_pages[] = {
    {0x01, 0x00, 12, fill_recovery, NULL, NULL},
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
    const struct mode_values defaults = mode_defaults(lun);

    if (control == PC_CURRENT)
        p->fill(lun, &lun->mode, b);
    else if (control == PC_SAVED)
        p->fill(lun, &lun->saved_mode, b);
    else if (control == PC_DEFAULT)
        p->fill(lun, &defaults, b);
    else if (p->mask)
        p->mask(lun, b);
    put_page_header(p, b);
    if (p->take && mode_can_save())
        b[0] |= PAGE_SAVEABLE;
}

/* ---- MODE SENSE, SPC-4 6.11 and 6.12 ---- */

/* SUBPAGE CODE 00h: pages without one; FFh: all; else that one, of one page only. */
static bool selected(const struct mode_page *p, uint8_t code, uint8_t subpage)
{
    if (code == ALL_PAGES && subpage && subpage != ALL_SUBPAGES)
        return false;
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

    if (cdb[2] >> 6 == PC_SAVED && !mode_can_save()) {
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

static uint32_t page_header_bytes(const uint8_t *b)
{
    return b[0] & 0x40 ? 4 : 2; /* SPF */
}

static const struct mode_page *page_at(const uint8_t *b, uint32_t room)
{
    bool spf = b[0] & 0x40;
    uint32_t len;

    if (room < page_header_bytes(b))
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

/* Checks all pages of the list and takes them into @v. False: the command has ended. */
static bool take_pages(struct scsi_cmd *cmd, uint32_t at, struct mode_values *v)
{
    uint32_t len = cmd->buf_len;

    while (at < len) {
        const struct mode_page *p = page_at(cmd->buf + at, len - at);
        uint32_t bad;

        if (len - at < page_header_bytes(cmd->buf + at)) {
            cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
            return false;
        }
        if (!p) {
            cmd_fail_param_field(cmd, (uint16_t)at);
            return false;
        }
        if (p->len > len - at) {
            cmd_fail(cmd, SENSE_PARAM_LIST_LENGTH);
            return false;
        }
        if (!page_acceptable(cmd->lun, p, cmd->buf + at, &bad)) {
            cmd_fail_param_field(cmd, (uint16_t)(at + bad));
            return false;
        }
        if (p->take)
            p->take(v, cmd->buf + at);
        at += p->len;
    }
    return true;
}

static bool equal(const struct mode_values *a, const struct mode_values *b)
{
    return a->write_cache == b->write_cache && a->sense_descriptor == b->sense_descriptor &&
           a->software_protect == b->software_protect && a->threshold_armed == b->threshold_armed &&
           a->threshold_sets == b->threshold_sets;
}

/* SPC-4 5.16: all nexuses share the parameters, and hear when one of them is another. */
static void put_in_force(struct scsi_cmd *cmd, const struct mode_values *v)
{
    struct lun *lun = cmd->lun;

    if (!equal(&lun->mode, v))
        ua_raise_others(lun->target, lun->number, UA_MODE_PARAMETERS, cmd->nexus);
    use_values(lun, v);
    if (!lun->mode.write_cache && lun->writable)
        cmd_flush(cmd); /* what was cached until now */
    else
        cmd_good(cmd);
}

/* Pages that the list leaves out keep their values, the current and the saved ones. */
static void co_select(void *arg)
{
    struct scsi_cmd *cmd = arg;
    struct lun *lun = cmd->lun;
    struct mode_values next, saved;
    bool save = cmd->cdb[1] & SELECT_SP;

    lun_pin(lun);
    co_mutex_lock(&lun->kept_lock);
    next = lun->mode;
    saved = lun->saved_mode;
    if (lun->gone || cmd->abort_requested)
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
    else if (!take_pages(cmd, (uint32_t)cmd->lba, &next) ||
             !take_pages(cmd, (uint32_t)cmd->lba, &saved))
        ;
    else if (save && co_mode_save(lun, &saved))
        cmd_fail(cmd, SENSE_INTERNAL_FAILURE);
    else
        put_in_force(cmd, &next);
    co_mutex_unlock(&lun->kept_lock);
    lun_unpin(lun);
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
    cmd->lba = hdr + desc; /* where the pages begin; the CDB has no such field */
    cmd->phase = PH_WALK;
    co_spawn(co_select, cmd);
}

static void select_fetch(struct scsi_cmd *cmd)
{
    cmd_data_out(cmd, 0, (uint32_t)cmd->transfer_bytes, select_with_list);
}

void mode_select(struct scsi_cmd *cmd)
{
    uint64_t len = cdb_get(cmd->cdb, cmd->op->len);

    cmd->transfer_bytes = len;
    if (cmd->cdb[1] & SELECT_SP && !mode_can_save())
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
