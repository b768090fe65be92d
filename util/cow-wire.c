/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The COW layer extension's bytes. Decoders check every length against the bytes that are
 * really there before reading them, and refuse what contradicts itself.
 */
#include "util/cow-wire.h"

#include <errno.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/size.h"
#include "util/utf8.h"

#define PAGE_FIXED_BYTES 82
#define COWL_VERSION     1

static const uint8_t signature[4] = {'C', 'O', 'W', 'L'};

size_t cowl_page_encode(const struct cowl_page *pg, uint8_t device_type, uint8_t *buf)
{
    size_t name_len = strnlen(pg->name, COWL_NAME_MAX);

    memset(buf, 0, PAGE_FIXED_BYTES);
    buf[0] = device_type;
    buf[1] = COWL_VPD_PAGE;
    put_be16(buf + 2, (uint16_t)(PAGE_FIXED_BYTES + name_len - 4));
    memcpy(buf + 4, signature, sizeof(signature));
    buf[8] = COWL_VERSION;
    buf[9] = pg->flags;
    put_be16(buf + 10, pg->layer_index);
    put_be16(buf + 12, pg->nr_layers);
    buf[14] = pg->view;
    memcpy(buf + 16, pg->chain_uuid.b, 16);
    memcpy(buf + 32, pg->layer_uuid.b, 16);
    memcpy(buf + 48, pg->parent_uuid.b, 16);
    memcpy(buf + 64, pg->parent_lun, 8);
    put_be32(buf + 72, pg->granularity_blocks);
    put_be32(buf + 76, pg->generation);
    put_be16(buf + 80, (uint16_t)name_len);
    memcpy(buf + PAGE_FIXED_BYTES, pg->name, name_len);
    return PAGE_FIXED_BYTES + name_len;
}

/* What isn't UTF-8, and NUL, becomes '?': the name can be shown and put in JSON as it is. */
static void copy_name(char *to, const uint8_t *from, size_t len)
{
    size_t pos = 0;

    while (pos < len) {
        size_t n = utf8_sequence(from + pos, len - pos);

        if (n) {
            memcpy(to + pos, from + pos, n);
        } else {
            to[pos] = '?';
            n = 1;
        }
        pos += n;
    }
    to[len] = '\0';
}

int cowl_page_decode(const uint8_t *buf, size_t len, struct cowl_page *pg)
{
    if (len < PAGE_FIXED_BYTES || buf[1] != COWL_VPD_PAGE)
        return -EINVAL;

    size_t page_len = (size_t)get_be16(buf + 2) + 4;
    size_t name_len = get_be16(buf + 80);

    if (page_len > len || memcmp(buf + 4, signature, sizeof(signature)) || buf[8] != COWL_VERSION)
        return -EINVAL;
    if (name_len > COWL_NAME_MAX || page_len < PAGE_FIXED_BYTES + name_len)
        return -EINVAL;
    if (buf[14] > COWL_VIEW_IMAGE)
        return -EINVAL;

    memset(pg, 0, sizeof(*pg));
    pg->flags = buf[9];
    pg->layer_index = get_be16(buf + 10);
    pg->nr_layers = get_be16(buf + 12);
    pg->view = buf[14];
    memcpy(pg->chain_uuid.b, buf + 16, 16);
    memcpy(pg->layer_uuid.b, buf + 32, 16);
    memcpy(pg->parent_uuid.b, buf + 48, 16);
    memcpy(pg->parent_lun, buf + 64, 8);
    pg->granularity_blocks = get_be32(buf + 72);
    pg->generation = get_be32(buf + 76);
    copy_name(pg->name, buf + PAGE_FIXED_BYTES, name_len);
    return 0;
}

void cowl_status_cdb(uint8_t cdb[16], uint64_t lba, uint32_t alloc_len, uint8_t deepest)
{
    memset(cdb, 0, 16);
    cdb[0] = COWL_OPCODE;
    cdb[1] = COWL_SA_LAYER_STATUS;
    put_be64(cdb + 2, lba);
    put_be32(cdb + 10, alloc_len);
    cdb[14] = deepest;
}

size_t cowl_status_encode(uint8_t *buf, uint32_t generation, uint64_t next_lba,
                          const struct cowl_extent *ext, unsigned n)
{
    size_t len = COWL_STATUS_HDR_BYTES + (size_t)n * COWL_STATUS_DESC_BYTES;
    uint8_t *d = buf + COWL_STATUS_HDR_BYTES;

    put_be32(buf, (uint32_t)(len - 4));
    put_be32(buf + 4, generation);
    put_be64(buf + 8, next_lba);
    for (unsigned i = 0; i < n; i++, d += COWL_STATUS_DESC_BYTES) {
        put_be64(d, ext[i].lba);
        put_be32(d + 8, ext[i].blocks);
        d[12] = ext[i].state;
        d[13] = 0;
        put_be16(d + 14, ext[i].depth);
    }
    return len;
}

static bool extent_holds(const struct cowl_extent *e, uint64_t lba, uint64_t capacity_blocks)
{
    if (e->lba != lba || e->blocks == 0 || e->blocks > capacity_blocks - lba)
        return false;
    return e->state <= COWL_COMPRESSED &&
           (e->state == COWL_UNDECIDED) == (e->depth == COWL_NO_DEPTH);
}

int cowl_status_decode(const uint8_t *buf, size_t len, uint64_t lba, uint64_t capacity_blocks,
                       uint32_t *generation, uint64_t *next_lba, struct cowl_extent *ext,
                       unsigned max)
{
    if (len < COWL_STATUS_HDR_BYTES || lba >= capacity_blocks)
        return -EINVAL;

    uint64_t total = (uint64_t)get_be32(buf) + 4;
    uint64_t announced_next = get_be64(buf + 8);

    if (total < COWL_STATUS_HDR_BYTES)
        return -EINVAL;
    /* Truncated by the allocation length, perhaps inside a descriptor: what is whole counts. */
    size_t nr = (MIN_OF(len, total) - COWL_STATUS_HDR_BYTES) / COWL_STATUS_DESC_BYTES;
    unsigned stored = 0;
    const uint8_t *d = buf + COWL_STATUS_HDR_BYTES;

    for (; stored < nr && stored < max; stored++, d += COWL_STATUS_DESC_BYTES) {
        struct cowl_extent e = {
            .lba = get_be64(d),
            .blocks = get_be32(d + 8),
            .state = d[12],
            .depth = get_be16(d + 14),
        };

        if (lba >= capacity_blocks || !extent_holds(&e, lba, capacity_blocks))
            return -EINVAL;
        ext[stored] = e;
        lba += e.blocks;
    }
    if (stored && (announced_next < lba || announced_next > capacity_blocks))
        return -EINVAL;
    *generation = get_be32(buf + 4);
    *next_lba = lba;
    return (int)stored;
}
