/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first cluster, changed while it says what the image is; see qcow2-first.h. The old header,
 * extensions and name are read until the sector that leads away from them is written, so nothing
 * is put where they lie.
 */
#include "lun-backends/qcow2-first.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/size.h"

static uint64_t name_offset(const uint8_t *cluster)
{
    return get_be64(cluster + QCOW2_POS_BACKING_OFFSET);
}

/* Makes [from, to), whole sectors, as in @fresh, durably, by one write of what differs. */
static int co_take_over(struct qcow2_first *f, const uint8_t *fresh, size_t from, size_t to)
{
    int ret;

    while (from < to && !memcmp(f->now + from, fresh + from, QCOW2_SECTOR))
        from += QCOW2_SECTOR;
    while (from < to &&
           !memcmp(f->now + to - QCOW2_SECTOR, fresh + to - QCOW2_SECTOR, QCOW2_SECTOR))
        to -= QCOW2_SECTOR;
    if (from == to)
        return 0;
    if (!from && f->q)
        return co_qcow2_write_header_sector(f->q, fresh);
    ret = co_blk_write(f->file, from, fresh + from, to - from, BLK_META);
    return ret ? ret : co_blk_flush(f->file);
}

/* As above, and remembers it. */
static int co_put(struct qcow2_first *f, const uint8_t *fresh, size_t from, size_t to)
{
    int ret = co_take_over(f, fresh, from, to);

    if (!ret)
        memcpy(f->now + from, fresh + from, to - from);
    return ret;
}

/* Behind the last extension: where the end mark is, or would be. */
static size_t list_end(const struct qcow2_first *f)
{
    size_t end = name_offset(f->now) ? name_offset(f->now) : f->bytes, pos = 0;
    struct qcow2_ext_item item;

    while (qcow2_ext_next(f->now + f->header_bytes, end - f->header_bytes, &pos, &item) == 1)
        ;
    return f->header_bytes + pos;
}

int co_qcow2_first_move_name(struct qcow2_first *f, uint64_t at)
{
    uint64_t from = name_offset(f->now);
    uint32_t bytes = get_be32(f->now + QCOW2_POS_BACKING_BYTES);
    size_t end = list_end(f);
    uint8_t *fresh;
    int ret;

    if (at + bytes > f->bytes)
        return -ENOSPC;
    fresh = malloc(f->bytes);
    if (!fresh)
        return -ENOMEM;
    memcpy(fresh, f->now, f->bytes);
    memcpy(fresh + at, f->now + from, bytes);
    put_be64(fresh + QCOW2_POS_BACKING_OFFSET, at);
    if (from - end < 8 && end + 8 <= QCOW2_SECTOR) /* only the name ended the list */
        put_be64(fresh + end, QCOW2_EXT_END);
    ret = from - end < 8 && end + 8 > QCOW2_SECTOR ? -ENOSPC : 0;
    if (!ret)
        ret = co_put(f, fresh, QCOW2_SECTOR, f->bytes);
    if (!ret)
        ret = co_put(f, fresh, 0, QCOW2_SECTOR);
    free(fresh);
    return ret;
}

/* The list ends at @pos, for the time that what follows is written. */
static int co_cut_list(struct qcow2_first *f, size_t pos)
{
    size_t sector = round_down_pow2(pos, QCOW2_SECTOR);
    uint8_t *cut = malloc(f->bytes);
    int ret;

    if (!cut)
        return -ENOMEM;
    memcpy(cut, f->now, f->bytes);
    put_be64(cut + pos, QCOW2_EXT_END);
    ret = co_put(f, cut, sector, sector + QCOW2_SECTOR);
    free(cut);
    return ret;
}

int co_qcow2_first_set_list(struct qcow2_first *f, const uint8_t *fresh, size_t from)
{
    size_t sector = round_down_pow2(from, QCOW2_SECTOR), next = sector + QCOW2_SECTOR;
    int ret = 0;

    if (name_offset(fresh) != name_offset(f->now))
        ret = co_qcow2_first_move_name(f, name_offset(fresh));
    if (!ret && memcmp(f->now + next, fresh + next, f->bytes - next)) {
        if (from != list_end(f))
            ret = co_cut_list(f, from);
        if (!ret)
            ret = co_put(f, fresh, next, f->bytes);
    }
    return ret ? ret : co_put(f, fresh, sector, next);
}
