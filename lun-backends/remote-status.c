/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the remote disk has data: GET LAYER STATUS, else GET LBA STATUS, else "all is data". What
 * the target refuses, or answers with nonsense, is not asked again until the next contact.
 * An answer is consistent in itself: only states are used, which no change of the chain's
 * topology alters for a sealed layer.
 */
#define LOG_AREA "remote"
#include "lun-backends/remote-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_ANSWER_BYTES 65536u
#define MAX_EXTENTS      ((MAX_ANSWER_BYTES - COWL_STATUS_HDR_BYTES) / COWL_STATUS_DESC_BYTES)
#define LBA_HDR_BYTES    8
#define LBA_DESC_BYTES   16

/* One question: where, and where the answer goes. */
struct question {
    struct remote *remote;
    uint64_t lba;
    uint8_t deepest; /* layers to look into; 0: all */
    struct blk_extent *ext;
    unsigned max;
    uint8_t *buf; /* MAX_ANSWER_BYTES */
};

int remote_lba_status_decode(const uint8_t *buf, size_t len, uint64_t lba, uint64_t capacity_blocks,
                             uint32_t block_bytes, struct blk_extent *ext, unsigned max)
{
    if (len < LBA_HDR_BYTES || lba >= capacity_blocks)
        return -EINVAL;

    uint64_t total = (uint64_t)get_be32(buf) + 4;
    size_t usable = MIN_OF(len, total);
    const uint8_t *d = buf + LBA_HDR_BYTES;
    unsigned n = 0;

    for (; n < max && usable >= LBA_HDR_BYTES + (size_t)(n + 1) * LBA_DESC_BYTES;
         n++, d += LBA_DESC_BYTES) {
        uint32_t blocks = get_be32(d + 8);

        if (lba == capacity_blocks && n)
            break;
        if (get_be64(d) != lba || !blocks || blocks > capacity_blocks - lba)
            return -EINVAL;
        /* 0 mapped, 1 deallocated, 2 anchored; the LUN has LBPRZ=1, or we would not ask. */
        unsigned status = d[12] & 0x0f;

        ext[n] = (struct blk_extent){
            .offset_bytes = lba * block_bytes,
            .length_bytes = (uint64_t)blocks * block_bytes,
            .state = status == 1 || status == 2 ? BLK_ST_ZERO : BLK_ST_DATA,
        };
        lba += blocks;
    }
    return (int)n;
}

unsigned remote_clip_extents(struct blk_extent *ext, unsigned n, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    unsigned kept = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t from = MAX_OF(ext[i].offset_bytes, offset);
        uint64_t to = MIN_OF(ext[i].offset_bytes + ext[i].length_bytes, end);
        struct blk_extent *last = kept ? &ext[kept - 1] : NULL;

        if (from >= to)
            continue;
        if (last && last->state == ext[i].state && last->depth == ext[i].depth) {
            last->length_bytes += to - from;
            continue;
        }
        ext[kept] = ext[i];
        ext[kept].offset_bytes = from;
        ext[kept].length_bytes = to - from;
        kept++;
    }
    return kept;
}

void remote_forget_deeper(struct blk_extent *ext, unsigned n, unsigned deepest)
{
    for (unsigned i = 0; deepest && i < n; i++) {
        if (ext[i].state == BLK_ST_UNALLOCATED || ext[i].depth < deepest)
            continue;
        ext[i].state = BLK_ST_UNALLOCATED;
        ext[i].depth = COWL_NO_DEPTH;
    }
}

/* Over the bulk session; if that is lost meanwhile, once more over the other. */
static int co_ask(struct question *q, const uint8_t cdb[16], uint32_t alloc, uint32_t *got)
{
    struct remote *r = q->remote;
    uint32_t flags = BLK_BULK;

    for (;;) {
        struct remote_session *s = remote_pick_session(r, flags);
        uint8_t key;
        uint16_t ascq;

        if (!s)
            return -EHOSTDOWN;
        int ret = co_iscsi_command(s->conn, r->lun, cdb, 16, q->buf, alloc, got, &key, &ascq);
        if (ret != -EHOSTDOWN || !(flags & BLK_BULK))
            return ret;
        flags = 0;
    }
}

static enum blk_state layer_state(uint8_t state)
{
    static const enum blk_state states[] = {
        [COWL_DATA] = BLK_ST_DATA,
        [COWL_ZERO] = BLK_ST_ZERO,
        [COWL_UNDECIDED] = BLK_ST_UNALLOCATED,
        [COWL_COMPRESSED] = BLK_ST_COMPRESSED,
    };

    return states[state];
}

static int co_ask_layers(struct question *q)
{
    struct remote *r = q->remote;
    uint32_t alloc = COWL_STATUS_HDR_BYTES + q->max * COWL_STATUS_DESC_BYTES, got, generation;
    uint64_t next_lba;
    uint8_t cdb[16];

    cowl_status_cdb(cdb, q->lba, alloc, q->deepest);
    int ret = co_ask(q, cdb, alloc, &got);

    if (ret)
        return ret;

    struct cowl_extent *found = calloc(q->max, sizeof(*found));

    if (!found)
        return -ENOMEM;
    ret = cowl_status_decode(q->buf, got, q->lba, r->blocks, &generation, &next_lba, found, q->max);
    if (ret > 0)
        r->generation = generation;
    for (int i = 0; i < ret; i++) {
        q->ext[i] = (struct blk_extent){
            .offset_bytes = found[i].lba * r->block_bytes,
            .length_bytes = (uint64_t)found[i].blocks * r->block_bytes,
            .state = layer_state(found[i].state),
            .depth = found[i].depth,
        };
    }
    free(found);
    return ret;
}

/* SBC-3 5.2 */
static int co_ask_lbas(struct question *q)
{
    uint32_t alloc = LBA_HDR_BYTES + q->max * LBA_DESC_BYTES, got;
    uint8_t cdb[16] = {0x9e, 0x12};

    put_be64(cdb + 2, q->lba);
    put_be32(cdb + 10, alloc);
    int ret = co_ask(q, cdb, alloc, &got);

    if (ret)
        return ret;
    return remote_lba_status_decode(q->buf, got, q->lba, q->remote->blocks, q->remote->block_bytes,
                                    q->ext, q->max);
}

/* The number of extents; 0: this way gives no answer; -EHOSTDOWN, -EAGAIN: no answer now. */
static int co_try(struct question *q, int (*co_way)(struct question *q), bool *ask,
                  const char *command)
{
    if (!*ask)
        return 0;

    int ret = co_way(q);

    if (ret > 0 || ret == -EHOSTDOWN || ret == -EAGAIN)
        return ret;
    if (ret == -EREMOTEIO || ret == -EINVAL || ret == 0) {
        *ask = false;
        log_notice("%s: %s is %s; going on without", q->remote->node.filename, command,
                   ret == -EREMOTEIO ? "refused" : "answered wrongly");
    }
    return 0;
}

int co_remote_status(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                     struct blk_extent *ext, unsigned max)
{
    struct remote *r = to_remote(node);

    if (!bytes || !max || offset >= node->size_bytes || bytes > node->size_bytes - offset)
        return -EINVAL;
    if (!r->demand.up)
        return -EHOSTDOWN;

    struct question q = {
        .remote = r,
        .lba = offset / r->block_bytes,
        .deepest = deepest > UINT8_MAX ? 0 : (uint8_t)deepest, /* the CDB has one byte */
        .ext = ext,
        .max = MIN_OF(max, MAX_EXTENTS),
        .buf = malloc(MAX_ANSWER_BYTES),
    };
    int ret = q.buf ? co_try(&q, co_ask_layers, &r->ask_layer_status, "GET LAYER STATUS") : -ENOMEM;

    if (!ret)
        ret = co_try(&q, co_ask_lbas, &r->ask_lba_status, "GET LBA STATUS");
    free(q.buf);
    if (ret < 0)
        return ret;
    if (ret > 0) {
        remote_forget_deeper(ext, (unsigned)ret, deepest);
        return (int)remote_clip_extents(ext, (unsigned)ret, offset, bytes);
    }
    ext[0] = (struct blk_extent){offset, bytes, BLK_ST_DATA, 0, false};
    return 1;
}

int co_remote_lun_info(struct blk_node *node, int lun, struct lun_info *info, struct error *err)
{
    struct remote_session *s = remote_pick_session(to_remote(node), 0);

    if (!s)
        return error_set(err, EHOSTDOWN, "%s is away", node->filename);
    return co_lun_info(s->conn, lun, info, err);
}
