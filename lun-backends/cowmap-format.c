/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The header of a map of local blocks. Big-endian:
 *    0  8 bytes  "COWMAP\0\1"
 *    8  u32      version, 1
 *   12  u32      bytes a block, power of two
 *   16  u64      bytes of the disk
 *   24  u32      length of the backing's name
 *   28  u32      CRC-32 (as zlib's) of the header with this field zero
 *   32           the backing's name; zeros up to 4096
 */
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "lun-backends/cowmap-int.h"
#include "util/byteorder.h"
#include "util/size.h"

#define MAP_VERSION   1u
#define MAP_MAX_BYTES (32u << 20)
#define NAME_AT       32u
#define CRC_AT        28u

static const uint8_t magic[8] = {'C', 'O', 'W', 'M', 'A', 'P', 0, 1};

static bool is_block_size(uint32_t bytes)
{
    return bytes >= COWMAP_MIN_BLOCK && bytes <= COWMAP_MAX_BLOCK && !(bytes & (bytes - 1));
}

static uint64_t div_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

uint32_t cowmap_choose_block(uint64_t size_bytes)
{
    for (uint32_t block = COWMAP_MIN_BLOCK; block <= COWMAP_MAX_BLOCK; block *= 2) {
        if (div_up(size_bytes, block) <= MAP_MAX_BYTES * UINT64_C(8))
            return block;
    }
    return 0;
}

uint64_t cowmap_nr_blocks(const struct cowmap_header *h)
{
    return div_up(h->size_bytes, h->block_bytes);
}

uint64_t cowmap_nr_pages(const struct cowmap_header *h)
{
    return div_up(cowmap_nr_blocks(h), COWMAP_PAGE_BITS);
}

static uint32_t header_crc(const uint8_t *buf)
{
    static const uint8_t no_crc[4];
    uLong crc = crc32(0, buf, CRC_AT);

    crc = crc32(crc, no_crc, sizeof(no_crc));
    return (uint32_t)crc32(crc, buf + CRC_AT + 4, COWMAP_HEADER_BYTES - CRC_AT - 4);
}

int cowmap_encode(const struct cowmap_header *h, uint8_t buf[COWMAP_HEADER_BYTES])
{
    size_t len = strlen(h->backing);

    if (len > COWMAP_BACKING_MAX || !is_block_size(h->block_bytes))
        return -EINVAL;
    memset(buf, 0, COWMAP_HEADER_BYTES);
    memcpy(buf, magic, sizeof(magic));
    put_be32(buf + 8, MAP_VERSION);
    put_be32(buf + 12, h->block_bytes);
    put_be64(buf + 16, h->size_bytes);
    put_be32(buf + 24, (uint32_t)len);
    memcpy(buf + NAME_AT, h->backing, len);
    put_be32(buf + CRC_AT, header_crc(buf));
    return 0;
}

int cowmap_decode(const uint8_t buf[COWMAP_HEADER_BYTES], struct cowmap_header *h,
                  struct error *err)
{
    uint32_t len = get_be32(buf + 24);

    if (memcmp(buf, magic, sizeof(magic)))
        return error_set(err, EINVAL, "no map of local blocks");
    if (get_be32(buf + 8) != MAP_VERSION)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "version %u is not known",
                               get_be32(buf + 8));
    if (get_be32(buf + CRC_AT) != header_crc(buf))
        return error_set(err, EINVAL, "the header's checksum is wrong");
    h->block_bytes = get_be32(buf + 12);
    h->size_bytes = get_be64(buf + 16);
    if (!is_block_size(h->block_bytes) || h->size_bytes > INT64_MAX || h->size_bytes % 512 ||
        cowmap_nr_blocks(h) > MAP_MAX_BYTES * UINT64_C(8))
        return error_set(err, EINVAL, "blocks of %u bytes can't be those of a disk of %llu bytes",
                         h->block_bytes, (unsigned long long)h->size_bytes);
    if (len > COWMAP_BACKING_MAX || memchr(buf + NAME_AT, 0, len))
        return error_set(err, EINVAL, "the name of the backing is not valid");
    memcpy(h->backing, buf + NAME_AT, len);
    h->backing[len] = '\0';
    return 0;
}
