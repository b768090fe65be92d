/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Getting to know a LUN. A page that a target does not list is not asked for; one that it lists
 * and then refuses counts as absent.
 */
#include "lun-backends/iscsi-lun.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/size.h"
#include "util/uuid.h"

#define INQUIRY_BYTES  96
#define VPD_BYTES      1024
#define CAPACITY_BYTES 32

static void copy_field(char *to, const uint8_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = from[i] > ' ' && from[i] < 0x7f ? (char)from[i] : ' ';
    to[len] = '\0';
    while (len && to[len - 1] == ' ')
        to[--len] = '\0';
}

static int command_failed(struct error *err, int lun, const char *what, int ret, uint8_t key,
                          uint16_t ascq)
{
    if (ret == -EREMOTEIO)
        return error_set(err, EREMOTEIO, "LUN %d: %s: sense %xh/%02xh/%02xh", lun, what, key,
                         ascq >> 8, ascq & 0xff);
    return error_set(err, -ret, "LUN %d: %s: %s", lun, what,
                     ret == -EHOSTDOWN ? "the session is lost" : strerror(-ret));
}

/* SPC-4 6.6 */
static int co_inquiry(struct iscsi_conn *conn, int lun, int page, uint8_t *buf, uint16_t alloc,
                      uint32_t *got, struct error *err)
{
    uint8_t cdb[6] = {
        0x12, page >= 0, page >= 0 ? (uint8_t)page : 0, (uint8_t)(alloc >> 8), (uint8_t)alloc, 0};
    uint8_t key;
    uint16_t ascq;
    int ret = co_iscsi_command(conn, lun, cdb, sizeof(cdb), buf, alloc, got, &key, &ascq);

    return ret ? command_failed(err, lun, "INQUIRY", ret, key, ascq) : 0;
}

/* 0 with *@got = 0 when the LUN refuses the page. */
static int co_vpd(struct iscsi_conn *conn, int lun, int page, uint8_t *buf, uint32_t *got,
                  struct error *err)
{
    int ret = co_inquiry(conn, lun, page, buf, VPD_BYTES, got, err);

    if (ret == -EREMOTEIO) {
        *got = 0;
        return 0;
    }
    if (!ret && (*got < 4 || buf[1] != page))
        *got = 0;
    if (!ret && *got)
        *got = MIN_OF(*got, (uint32_t)get_be16(buf + 2) + 4);
    return ret;
}

static int co_standard_inquiry(struct iscsi_conn *conn, int lun, struct lun_info *info,
                               struct error *err)
{
    uint8_t buf[INQUIRY_BYTES];
    uint32_t got;
    int ret = co_inquiry(conn, lun, -1, buf, sizeof(buf), &got, err);

    if (ret)
        return ret;
    if (got < 36)
        return error_set(err, EPROTO, "LUN %d: INQUIRY data of %u bytes is too short", lun, got);
    info->connected = buf[0] >> 5 == 0;
    info->device_type = buf[0] & 0x1f;
    copy_field(info->vendor, buf + 8, 8);
    copy_field(info->product, buf + 16, 16);
    return 0;
}

/* SBC-3 5.16 */
static int co_capacity(struct iscsi_conn *conn, int lun, struct lun_info *info, struct error *err)
{
    uint8_t cdb[16] = {0x9e, 0x10, [13] = CAPACITY_BYTES};
    uint8_t buf[CAPACITY_BYTES], key;
    uint16_t ascq;
    uint32_t got;
    int ret = co_iscsi_command(conn, lun, cdb, sizeof(cdb), buf, sizeof(buf), &got, &key, &ascq);

    if (ret)
        return command_failed(err, lun, "READ CAPACITY(16)", ret, key, ascq);
    if (got < 12)
        return error_set(err, EPROTO, "LUN %d: READ CAPACITY(16) data of %u bytes is too short",
                         lun, got);

    uint64_t last_lba = get_be64(buf);
    uint32_t block = get_be32(buf + 8);

    if (block < 512 || block > 4096 || block & (block - 1))
        return error_set(err, ENOTSUP, "LUN %d: blocks of %u bytes (512 to 4096 are supported)",
                         lun, block);
    if (last_lba >= (uint64_t)INT64_MAX / block)
        return error_set(err, EPROTO, "LUN %d: a capacity that can't be true", lun);
    info->block_bytes = block;
    info->blocks = last_lba + 1;
    info->lbpme = got >= 16 && buf[14] & 0x80;
    info->lbprz = got >= 16 && buf[14] & 0x40;
    return 0;
}

static int designator_rank(unsigned type)
{
    switch (type) {
    case 3: /* NAA */
        return 3;
    case 2: /* EUI-64 */
        return 2;
    case 1: /* T10 vendor ID */
    case 8: /* SCSI name string */
        return 1;
    default: /* 0 is vendor specific: unique only by luck */
        return 0;
    }
}

static void fold(const uint8_t *id, size_t len, uint8_t out[LUN_DESIGNATOR_BYTES])
{
    memset(out, 0, LUN_DESIGNATOR_BYTES);
    if (len <= LUN_DESIGNATOR_BYTES) {
        memcpy(out, id, len);
        return;
    }

    static const struct uuid nil;
    char hex[2 * 255 + 1];
    struct uuid folded;

    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", id[i]);
    uuid_derive(&folded, &nil, hex);
    memcpy(out, folded.b, sizeof(folded.b));
}

/* SPC-4 7.8.6 */
bool lun_designator(const uint8_t *page, size_t len, uint8_t out[LUN_DESIGNATOR_BYTES])
{
    int best = 0;

    for (size_t pos = 4; pos + 4 <= len; pos += 4 + (size_t)page[pos + 3]) {
        const uint8_t *d = page + pos;
        size_t id_len = d[3];
        int rank = designator_rank(d[1] & 0x0f);

        if (pos + 4 + id_len > len)
            break;
        /* Association 00b: the logical unit, not its port or target. */
        if ((d[1] >> 4 & 3) != 0 || !id_len || rank <= best)
            continue;
        best = rank;
        fold(d + 4, id_len, out);
    }
    return best > 0;
}

static void take_page(int page, const uint8_t *buf, uint32_t got, struct lun_info *info)
{
    switch (page) {
    case 0x83:
        lun_designator(buf, got, info->designator);
        break;
    case 0xb0: /* SBC-3 6.5.3 */
        info->has_limits = got >= 12;
        if (info->has_limits)
            info->max_transfer_blocks = get_be32(buf + 8);
        break;
    case COWL_VPD_PAGE:
        info->has_cowl = !cowl_page_decode(buf, got, &info->cowl);
        break;
    }
}

static int co_pages(struct iscsi_conn *conn, int lun, struct lun_info *info, struct error *err)
{
    static const uint8_t wanted[] = {0x83, 0xb0, COWL_VPD_PAGE};
    uint8_t list[VPD_BYTES], buf[VPD_BYTES];
    uint32_t listed, got;
    int ret = co_vpd(conn, lun, 0x00, list, &listed, err);

    for (size_t i = 0; !ret && listed > 4 && i < sizeof(wanted); i++) {
        if (!memchr(list + 4, wanted[i], listed - 4))
            continue;
        ret = co_vpd(conn, lun, wanted[i], buf, &got, err);
        if (!ret && got)
            take_page(wanted[i], buf, got, info);
    }
    return ret;
}

int co_lun_info(struct iscsi_conn *conn, int lun, struct lun_info *info, struct error *err)
{
    memset(info, 0, sizeof(*info));

    int ret = co_standard_inquiry(conn, lun, info, err);

    if (ret || !info->connected || info->device_type != 0)
        return ret;
    ret = co_capacity(conn, lun, info, err);
    return ret ? ret : co_pages(conn, lun, info, err);
}
