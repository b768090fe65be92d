/* SPDX-License-Identifier: BSD-3-Clause */
/* Random numbers that depend on nothing but their seed (splitmix64). */
#ifndef COWTGT_CRASH_RND_H
#define COWTGT_CRASH_RND_H

#include <stdbool.h>
#include <stdint.h>

struct rnd {
    uint64_t state;
};

static inline uint64_t rnd_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t rnd_next(struct rnd *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    return rnd_mix(r->state);
}

/* 0 .. @n - 1 */
static inline uint64_t rnd_below(struct rnd *r, uint64_t n)
{
    return rnd_next(r) % n;
}

static inline bool rnd_one_in(struct rnd *r, uint64_t n)
{
    return !rnd_below(r, n);
}

#endif
