/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LOG SENSE (SPC-4 6.6): which pages there are, and how much room the disk's image uses and has
 * left (SBC-3 6.3.4); and the unit attention when that gets little. Nothing is counted that we
 * would have to invent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/space.h"
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/size.h"

#define LOG_MAX_BYTES 256
#define HDR_BYTES     4

enum { PAGE_LIST = 0x00, PAGE_PROVISIONING = 0x0c, ALL_SUBPAGES = 0xff };
enum { PARAM_AVAILABLE = 0x0001, PARAM_USED = 0x0002 };

static size_t put_header(uint8_t *b, uint8_t page, uint8_t subpage, size_t len)
{
    b[0] = page | (subpage ? 0x40 : 0); /* SPF */
    b[1] = subpage;
    put_be16(b + 2, (uint16_t)len);
    return HDR_BYTES + len;
}

static void with_list(struct scsi_cmd *cmd)
{
    bool with_subpages = cmd->cdb[3] == ALL_SUBPAGES;
    static const uint8_t pages[] = {PAGE_LIST, PAGE_PROVISIONING};
    size_t n = 0;

    memset(cmd->buf, 0, LOG_MAX_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        cmd->buf[HDR_BYTES + n++] = pages[i];
        if (with_subpages)
            cmd->buf[HDR_BYTES + n++] = 0;
        if (with_subpages && pages[i] == PAGE_LIST) {
            cmd->buf[HDR_BYTES + n++] = pages[i];
            cmd->buf[HDR_BYTES + n++] = ALL_SUBPAGES;
        }
    }
    cmd_reply(cmd, (uint32_t)put_header(cmd->buf, PAGE_LIST, cmd->cdb[3], n));
}

/* In threshold sets. Shared with whatever else is on that file system. */
static size_t put_resource(const struct lun *lun, uint8_t *b, uint16_t code, uint64_t bytes)
{
    uint64_t sets = bytes >> (lun->block_shift + LUN_THRESHOLD_EXPONENT);

    put_be16(b, code);
    b[2] = 0x03; /* a binary list parameter */
    b[3] = 8;
    put_be32(b + 4, (uint32_t)MIN_OF(sets, UINT32_MAX));
    b[8] = code == PARAM_AVAILABLE ? 0x02 : 0x01; /* SCOPE: not dedicated, dedicated */
    return 12;
}

static void co_provisioning(void *arg)
{
    struct scsi_cmd *cmd = arg;
    struct lun *lun = cmd->lun;
    uint16_t first = get_be16(cmd->cdb + 5);
    struct blk_space space;
    size_t n = 0;
    int ret;

    co_lun_walk_begin(lun);
    ret = co_blk_space(blk_head_node(&lun->head), &space);
    lun_walk_end(lun);
    memset(cmd->buf, 0, LOG_MAX_BYTES);
    if (!ret && first <= PARAM_AVAILABLE)
        n += put_resource(lun, cmd->buf + HDR_BYTES + n, PARAM_AVAILABLE, space.free_bytes);
    if (!ret)
        n += put_resource(lun, cmd->buf + HDR_BYTES + n, PARAM_USED, space.used_bytes);
    cmd_reply(cmd, (uint32_t)put_header(cmd->buf, PAGE_PROVISIONING, 0, n));
}

/* ---- the threshold: SBC-3 4.7.3.7 ---- */

static void co_look_at_room(void *arg)
{
    struct lun *lun = arg;
    struct blk_space space;
    bool low;
    int ret;

    co_lun_walk_begin(lun);
    ret = co_blk_space(blk_head_node(&lun->head), &space);
    low = !ret && space.free_bytes >> (lun->block_shift + LUN_THRESHOLD_EXPONENT) <
                      lun->mode.threshold_sets;
    lun->threshold_asking = false;
    if (low && lun->mode.threshold_armed && !lun->threshold_told && !lun->gone)
        ua_raise(lun->target, lun->number, UA_THIN_THRESHOLD);
    lun->threshold_told = low;
    lun_walk_end(lun);
}

void lun_look_at_room(struct lun *lun)
{
    if (!lun->mode.threshold_armed || lun->threshold_asking ||
        now_ns() - lun->threshold_asked_ns < LUN_THRESHOLD_ASK_NS)
        return;
    lun->threshold_asking = true;
    lun->threshold_asked_ns = now_ns();
    co_spawn(co_look_at_room, lun);
}

static void start_provisioning(struct scsi_cmd *cmd)
{
    cmd->phase = PH_WALK;
    co_spawn(co_provisioning, cmd);
}

void spc_log_sense(struct scsi_cmd *cmd)
{
    uint8_t page = cmd->cdb[2] & 0x3f, subpage = cmd->cdb[3];

    if (cmd->cdb[1] & 0x01) /* SP: nothing can be saved */
        cmd_fail_cdb_field(cmd, 1, 0);
    else if (get_be16(cmd->cdb + 5) > (page == PAGE_PROVISIONING ? PARAM_USED : 0))
        cmd_fail_cdb_field(cmd, 5, -1); /* PARAMETER POINTER: there is none from there on */
    else if (page == PAGE_LIST && (!subpage || subpage == ALL_SUBPAGES))
        cmd_get_buf(cmd, LOG_MAX_BYTES, with_list);
    else if (page == PAGE_PROVISIONING && !subpage)
        cmd_get_buf(cmd, LOG_MAX_BYTES, start_provisioning);
    else
        cmd_fail_cdb_field(cmd, subpage ? 3 : 2, -1);
}
