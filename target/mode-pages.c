/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MODE SENSE. Nothing can be changed (there is no MODE SELECT), so changeable values are all
 * zeros and default values are the current ones.
 */
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

enum { PC_CURRENT = 0, PC_CHANGEABLE = 1, PC_DEFAULT = 2, PC_SAVED = 3 };

#define ALL_PAGES    0x3f
#define ALL_SUBPAGES 0xff

struct mode_page {
    uint8_t code;
    uint8_t len; /* with its two header bytes */
    void (*fill)(const struct lun *lun, uint8_t *page);
};

/* SBC-3 6.4.5: the write cache is volatile until SYNCHRONIZE CACHE */
static void fill_caching(const struct lun *lun, uint8_t *page)
{
    if (lun->writable)
        page[2] = 0x04; /* WCE */
}

/* SPC-4 7.5.8: fixed sense, one task set, commands may be reordered, no limit on busy time */
static void fill_control(const struct lun *lun, uint8_t *page)
{
    page[3] = 0x10; /* unrestricted reordering */
    if (!lun->writable)
        page[4] = 0x08; /* SWP */
    put_be16(page + 8, 0xffff);
}

static const struct mode_page mode_pages[] = {
    {0x08, 20, fill_caching},
    {0x0a, 12, fill_control},
};

static size_t put_pages(const struct lun *lun, uint8_t *b, uint8_t code, bool changeable)
{
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(mode_pages); i++) {
        const struct mode_page *p = &mode_pages[i];

        if (code != ALL_PAGES && code != p->code)
            continue;
        b[n] = p->code;
        b[n + 1] = p->len - 2;
        if (!changeable)
            p->fill(lun, b + n);
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
    unsigned control = cdb[2] >> 6;
    size_t hdr = is_10 ? 8 : 4, desc = 0, n;
    uint8_t specific = (uint8_t)(0x10 | (cmd->lun->writable ? 0 : 0x80)); /* DPOFUA, WP */

    if (control == PC_SAVED) {
        cmd_fail(cmd, SENSE_SAVING_NOT_SUPPORTED);
        return -1;
    }
    if (cdb[3] && cdb[3] != ALL_SUBPAGES) {
        cmd_fail_cdb_field(cmd, 3, -1);
        return -1;
    }
    if (!(cdb[1] & 0x08)) /* DBD */
        desc = put_block_descriptor(cmd->lun, buf + hdr, long_lba);
    n = put_pages(cmd->lun, buf + hdr + desc, cdb[2] & 0x3f, control == PC_CHANGEABLE);
    if (!n) {
        cmd_fail_cdb_field(cmd, 2, 5);
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
