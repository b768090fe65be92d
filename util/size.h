/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes as people write them: 4096, 64K, 10G, 1.5T (powers of 1024, as qemu-img). */
#ifndef COWTGT_UTIL_SIZE_H
#define COWTGT_UTIL_SIZE_H

#include <stdint.h>

/* 0, or -EINVAL (not a size), -ERANGE (does not fit in int64_t). Suffix b k K M G T P E; none
 * behind a hexadecimal number (0x...). */
int size_parse(const char *text, uint64_t *bytes);
/* "1.5 GiB", in @buf of @len bytes; returns @buf. */
const char *size_human(uint64_t bytes, char *buf, unsigned long len);

static inline uint64_t round_down_pow2(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}

static inline uint64_t round_up_pow2(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
