/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent dirty bitmaps, which this engine does not keep up to date. Before the first change of
 * the disk each is marked "in use" in the bitmap directory: "not saved correctly and may be
 * inconsistent", so nobody relies on it, while its clusters stay accounted for and it can be
 * removed by name. A directory that makes no sense is left alone; then the auto-clear bit stays
 * cleared, which says that no bitmap is to be looked at.
 */
#include "lun-backends/qcow2-int.h"

#include <errno.h>
#include <stdlib.h>
#include "util/byteorder.h"
#include "util/size.h"

#define MAX_DIR_BYTES (64u << 20)
#define IN_USE        1u

/* Bitmap directory entry. */
enum entry_pos {
    POS_FLAGS = 12,
    POS_NAME_BYTES = 18,
    POS_EXTRA_BYTES = 20,
    ENTRY_FIXED_BYTES = 24,
};

/* Marks all; counts those that were not; -EINVAL: not a bitmap directory. */
static int mark_entries(uint8_t *dir, uint64_t bytes, uint32_t nr, uint32_t *marked)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < nr; i++) {
        uint64_t entry;

        if (bytes - at < ENTRY_FIXED_BYTES)
            return -EINVAL;
        entry = round_up_pow2((uint64_t)ENTRY_FIXED_BYTES + get_be16(dir + at + POS_NAME_BYTES) +
                                  get_be32(dir + at + POS_EXTRA_BYTES),
                              8);
        if (entry > bytes - at)
            return -EINVAL;
        *marked += !(get_be32(dir + at + POS_FLAGS) & IN_USE);
        put_be32(dir + at + POS_FLAGS, get_be32(dir + at + POS_FLAGS) | IN_USE);
        at += entry;
    }
    return at == bytes ? 0 : -EINVAL;
}

static bool directory_is_placed_well(const struct qcow2 *q)
{
    uint64_t file_bytes = qcow2_file(q)->size_bytes, at = q->bitmaps.dir_offset;

    return q->bitmaps.nr && q->bitmaps.dir_bytes <= MAX_DIR_BYTES && at < file_bytes &&
           q->bitmaps.dir_bytes <= file_bytes - at && !(at & (qcow2_cluster_bytes(&q->g) - 1)) &&
           !qcow2_hits_metadata(q, at, q->bitmaps.dir_bytes);
}

int co_qcow2_invalidate_bitmaps(struct qcow2 *q, bool only_look, bool *any)
{
    uint64_t bytes = q->bitmaps.dir_bytes;
    uint32_t marked = 0;
    uint8_t *dir;
    int ret;

    *any = true;
    if (!directory_is_placed_well(q))
        return -EINVAL;
    dir = malloc(bytes);
    if (!dir)
        return -ENOMEM;
    ret = co_blk_read(qcow2_file(q), q->bitmaps.dir_offset, dir, bytes, 0);
    if (!ret)
        ret = mark_entries(dir, bytes, q->bitmaps.nr, &marked);
    if (!ret && marked && !only_look)
        ret = co_blk_write(qcow2_file(q), q->bitmaps.dir_offset, dir, bytes, 0);
    if (!ret && marked && !only_look)
        ret = co_blk_flush(qcow2_file(q));
    free(dir);
    *any = marked != 0;
    return ret;
}
