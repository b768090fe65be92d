/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * GET LBA STATUS of both lengths (SBC-4 5.8, 5.9) and GET LAYER STATUS
 * (docs/cow-layer-extension.md, 4): one walk of the layers below a LUN, told in two ways. Extents
 * are merged until the initiator's buffer is full or the work bound is reached; an answer never
 * asks a remote, and scans no more of the device than that, except for a report type of which there
 * is nothing at all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "target/scsi-cmd.h"
#include "util/byteorder.h"
#include "util/cow-wire.h"
#include "util/size.h"

#define MAX_ANSWER_BYTES (64u << 10)
#define WALK_EXTENTS     64 /* asked of the graph at once */
#define MAX_WALKS        8  /* each bounded by the graph */

#define LBA_HDR_BYTES  8
#define LBA_DESC_BYTES 16

enum provisioning { PROV_MAPPED = 0, PROV_DEALLOCATED = 1, PROV_ANCHORED = 2 };

#define STATE(prov) (1u << (prov))
#define NO_STATES   STATE(7) /* so that it differs from a type that there isn't */

/* By REPORT TYPE: which states are told. */
static const uint8_t report_types[] = {
    [0x00] = STATE(PROV_MAPPED) | STATE(PROV_DEALLOCATED) | STATE(PROV_ANCHORED),
    [0x01] = STATE(PROV_DEALLOCATED) | STATE(PROV_ANCHORED),
    [0x02] = STATE(PROV_MAPPED),
    [0x03] = STATE(PROV_DEALLOCATED),
    [0x04] = STATE(PROV_ANCHORED),
    [0x10] = NO_STATES, /* blocks that may be unreadable: none is known before it is read */
};

#define LBA_RTP 0x01 /* the report type was heeded */

/* COMPLETION CONDITION: what ended the answer */
enum { LBA_ENDED_FULL = 1 << 1, LBA_ENDED_SCAN = 2 << 1, LBA_ENDED_CAPACITY = 3 << 1 };

struct walk {
    struct scsi_cmd *cmd;
    uint64_t pos, end;    /* blocks */
    unsigned deepest;     /* layers, 0: all */
    bool as_provisioning; /* states are enum provisioning, depths don't matter */
    uint8_t wanted;       /* STATE()s, if so */
    unsigned nr, max;
    struct blk_extent found[WALK_EXTENTS];
    struct cowl_extent out[];
};

static uint8_t layer_state(enum blk_state st)
{
    static const uint8_t map[] = {
        [BLK_ST_DATA] = COWL_DATA,
        [BLK_ST_ZERO] = COWL_ZERO,
        [BLK_ST_UNALLOCATED] = COWL_UNDECIDED,
        [BLK_ST_COMPRESSED] = COWL_COMPRESSED,
    };

    return map[st];
}

/* The table of docs/cow-layer-extension.md, 2. */
static uint8_t provisioning(enum blk_state st, bool anchored, const struct lun *lun)
{
    if (st == BLK_ST_DATA || st == BLK_ST_COMPRESSED)
        return PROV_MAPPED;
    return st == BLK_ST_ZERO && (lun->anchored_zeros || anchored) ? PROV_ANCHORED
                                                                  : PROV_DEALLOCATED;
}

/* Appends @blocks at w->pos, split where a count has no more bits; false: no room for the rest. */
static bool append(struct walk *w, uint64_t blocks, uint8_t state, uint16_t depth)
{
    struct cowl_extent *last = w->nr ? &w->out[w->nr - 1] : NULL;

    if (w->as_provisioning && !(w->wanted & STATE(state))) {
        w->pos += blocks;
        return true;
    }
    if (last && last->state == state && last->depth == depth &&
        last->lba + last->blocks == w->pos) {
        uint32_t more = (uint32_t)MIN_OF(blocks, (uint64_t)(UINT32_MAX - last->blocks));

        last->blocks += more;
        w->pos += more;
        blocks -= more;
    }
    while (blocks) {
        uint32_t n = (uint32_t)MIN_OF(blocks, (uint64_t)UINT32_MAX);

        if (w->nr == w->max)
            return false;
        w->out[w->nr++] =
            (struct cowl_extent){.lba = w->pos, .blocks = n, .state = state, .depth = depth};
        w->pos += n;
        blocks -= n;
    }
    return true;
}

/*
 * Bytes to blocks. Where an extent ends inside a block (a layer of odd size), the block is told as
 * data: whoever reads it gets the right mixture. False: the answer is full.
 */
static bool take_extent(struct walk *w, const struct blk_extent *e)
{
    const struct lun *lun = w->cmd->lun;
    uint64_t pos_bytes = lun_blocks_to_bytes(lun, w->pos);
    uint64_t end_bytes = e->offset_bytes + e->length_bytes, blocks;
    enum blk_state state = e->state;
    uint16_t depth = state == BLK_ST_UNALLOCATED ? COWL_NO_DEPTH : e->depth;
    bool anchored =
        e->anchored && !e->depth && lun_can_anchor(lun); /* a layer below keeps no room */

    if (end_bytes <= pos_bytes)
        return true;
    blocks = (end_bytes - pos_bytes) >> lun->block_shift;
    if (!blocks) {
        blocks = 1;
        depth = state == BLK_ST_UNALLOCATED ? 0 : depth;
        state = BLK_ST_DATA;
    }
    blocks = MIN_OF(blocks, w->end - w->pos);
    if (w->as_provisioning)
        return append(w, blocks, provisioning(state, anchored, lun), 0);
    return append(w, blocks, layer_state(state), depth);
}

/* Fills w->out; 0 or -errno if there is not even one extent. */
static int co_walk(struct walk *w)
{
    struct lun *lun = w->cmd->lun;
    unsigned ask = MIN_OF(MAX_OF(w->max, 8u), (unsigned)WALK_EXTENTS);

    /* while all was left out there is nothing that an initiator could go on from */
    for (unsigned i = 0; (i < MAX_WALKS || !w->nr) && w->pos < w->end && !w->cmd->abort_requested;
         i++) {
        int n = co_blk_status_walk(blk_head_node(&lun->head), lun_blocks_to_bytes(lun, w->pos),
                                   lun_blocks_to_bytes(lun, w->end - w->pos), w->deepest, w->found,
                                   ask);

        if (n < 0)
            return w->nr ? 0 : n;
        for (int k = 0; k < n; k++) {
            if (!take_extent(w, &w->found[k]))
                return 0;
        }
        co_pause();
    }
    return 0;
}

static uint8_t ended_by(const struct walk *w)
{
    if (w->pos < w->end)
        return w->nr == w->max ? LBA_ENDED_FULL : 0; /* 0: the bound on the work */
    return w->end < w->cmd->lun->capacity_blocks ? LBA_ENDED_SCAN : LBA_ENDED_CAPACITY;
}

static uint32_t encode_lba_status(const struct walk *w, uint8_t *buf)
{
    memset(buf, 0, LBA_HDR_BYTES + w->nr * LBA_DESC_BYTES);
    put_be32(buf, LBA_HDR_BYTES - 4 + w->nr * LBA_DESC_BYTES);
    buf[7] = LBA_RTP | ended_by(w);
    for (unsigned i = 0; i < w->nr; i++) {
        uint8_t *d = buf + LBA_HDR_BYTES + i * LBA_DESC_BYTES;

        put_be64(d, w->out[i].lba);
        put_be32(d + 8, w->out[i].blocks);
        d[12] = w->out[i].state;
    }
    return LBA_HDR_BYTES + w->nr * LBA_DESC_BYTES;
}

static void co_answer(void *arg)
{
    struct walk *w = arg;
    struct scsi_cmd *cmd = w->cmd;
    struct lun *lun = cmd->lun;
    int ret;

    co_lun_walk_begin(lun);
    ret = lun->gone ? -ENODEV : co_walk(w);
    lun_walk_end(lun);
    if (cmd->abort_requested) {
        cmd_end(cmd);
    } else if (ret) {
        cmd_fail_errno(cmd, ret);
    } else if (w->as_provisioning) {
        cmd_reply(cmd, encode_lba_status(w, cmd->buf));
    } else {
        cmd_reply(cmd, (uint32_t)cowl_status_encode(cmd->buf, lun->cowl.generation, w->pos, w->out,
                                                    w->nr));
    }
}

static void start_walk(struct scsi_cmd *cmd)
{
    cmd->phase = PH_WALK;
    co_spawn(co_answer, cmd->priv);
}

/*
 * @hdr_bytes and 16 bytes a descriptor. An allocation length too short for one descriptor gets one
 * all the same, and cmd_reply() cuts it. @wanted: provisioning of those states; 0: layers. @scan:
 * blocks that are looked at; 0: all.
 */
static void start(struct scsi_cmd *cmd, uint32_t hdr_bytes, uint8_t wanted, unsigned deepest,
                  uint32_t scan)
{
    uint64_t room = MIN_OF(cdb_get(cmd->cdb, cmd->op->len), (uint64_t)MAX_ANSWER_BYTES);
    unsigned max = room >= hdr_bytes + 32 ? (unsigned)(room - hdr_bytes) / 16 : 1;
    struct walk *w;
    uint64_t left;

    cmd->lba = cdb_get(cmd->cdb, cmd->op->lba);
    if (cmd->lba >= cmd->lun->capacity_blocks) {
        cmd_fail_info(cmd, SENSE_LBA_OUT_OF_RANGE, cmd->lba);
        return;
    }
    left = cmd->lun->capacity_blocks - cmd->lba;
    w = malloc(sizeof(*w) + max * sizeof(w->out[0]));
    if (!w) {
        cmd_fail_errno(cmd, -ENOMEM);
        return;
    }
    *w = (struct walk){
        .cmd = cmd,
        .pos = cmd->lba,
        .end = cmd->lba + MIN_OF(scan ? scan : left, left),
        .deepest = deepest,
        .as_provisioning = wanted,
        .wanted = wanted,
        .max = max,
    };
    if (wanted == NO_STATES)
        w->pos = w->end;
    cmd->priv = w;
    cmd_get_buf(cmd, hdr_bytes + 16 * max, start_walk);
}

static void start_lba_status(struct scsi_cmd *cmd, uint16_t type_at, uint32_t scan)
{
    uint8_t type = cmd->cdb[type_at];

    if (type >= ARRAY_LEN(report_types) || !report_types[type])
        cmd_fail_cdb_field(cmd, type_at, -1);
    else
        start(cmd, LBA_HDR_BYTES, report_types[type], 0, scan);
}

void sbc_get_lba_status(struct scsi_cmd *cmd)
{
    start_lba_status(cmd, 14, 0);
}

void sbc_get_lba_status32(struct scsi_cmd *cmd)
{
    if (get_be32(cmd->cdb + 24)) /* ELEMENT IDENTIFIER: the disk has no elements */
        cmd_fail_cdb_field(cmd, 24, -1);
    else
        start_lba_status(cmd, 10, get_be32(cmd->cdb + 20));
}

void cowl_get_layer_status(struct scsi_cmd *cmd)
{
    start(cmd, COWL_STATUS_HDR_BYTES, 0, cmd->cdb[14], 0);
}
