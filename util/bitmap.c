/* SPDX-License-Identifier: BSD-3-Clause */
/* Searching bit arrays a word at a time. */
#include "util/bitmap.h"

/* @flip: all ones to look for clear bits. */
static uint64_t next_bit(const uint64_t *map, uint64_t nbits, uint64_t from, uint64_t flip)
{
    if (from >= nbits)
        return nbits;

    uint64_t i = from / 64;
    uint64_t word = (map[i] ^ flip) & (~UINT64_C(0) << (from % 64));

    while (!word) {
        if (++i >= BITMAP_WORDS(nbits))
            return nbits;
        word = map[i] ^ flip;
    }
    uint64_t bit = i * 64 + (uint64_t)__builtin_ctzll(word);

    return bit < nbits ? bit : nbits;
}

uint64_t bitmap_next_set(const uint64_t *map, uint64_t nbits, uint64_t from)
{
    return next_bit(map, nbits, from, 0);
}

uint64_t bitmap_next_clear(const uint64_t *map, uint64_t nbits, uint64_t from)
{
    return next_bit(map, nbits, from, ~UINT64_C(0));
}

uint64_t bitmap_count(const uint64_t *map, uint64_t nbits)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < nbits / 64; i++)
        n += (uint64_t)__builtin_popcountll(map[i]);
    if (nbits % 64)
        n += (uint64_t)__builtin_popcountll(map[nbits / 64] & ((UINT64_C(1) << (nbits % 64)) - 1));
    return n;
}
