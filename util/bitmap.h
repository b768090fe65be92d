/* SPDX-License-Identifier: BSD-3-Clause */
/* Plain arrays of bits in 64-bit words; the caller owns the memory and the bounds. */
#ifndef COWTGT_UTIL_BITMAP_H
#define COWTGT_UTIL_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_WORDS(nbits) (((nbits) + 63) / 64)

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
    return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
    map[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
    map[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

/* First set (clear) bit at or after @from, or @nbits. */
uint64_t bitmap_next_set(const uint64_t *map, uint64_t nbits, uint64_t from);
uint64_t bitmap_next_clear(const uint64_t *map, uint64_t nbits, uint64_t from);
uint64_t bitmap_count(const uint64_t *map, uint64_t nbits);

#endif
