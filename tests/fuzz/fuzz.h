/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the fuzz targets share: taking an input apart byte by byte, and coroutines run to their
 * end. Each run of a target starts from nothing and leaves nothing, so that an input alone
 * reproduces what it found.
 */
#ifndef COWTGT_FUZZ_H
#define COWTGT_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What is left of the input; integers are big-endian, and 0 where nothing is left. */
struct fuzz_bytes {
    const uint8_t *pos, *end;
};

static inline size_t fuzz_left(const struct fuzz_bytes *b)
{
    return (size_t)(b->end - b->pos);
}

uint8_t fuzz_u8(struct fuzz_bytes *b);
uint16_t fuzz_u16(struct fuzz_bytes *b);
uint32_t fuzz_u32(struct fuzz_bytes *b);
/* The next @want bytes, or as many as there are (*@got). */
const uint8_t *fuzz_take(struct fuzz_bytes *b, size_t want, size_t *got);

/* A malloc()ed copy of exactly @len bytes: ASan sees a read of one more. */
void *fuzz_exact(const void *data, size_t len);

/* Loop, helper threads and block layer, once; with the log level of $FUZZ_LOG, else errors. */
void fuzz_world(void);
/* Runs fn in a coroutine until it has returned and every node is closed. */
void fuzz_run(void (*fn)(void *arg), void *arg);

#define FUZZ_REQUIRE(cond)    \
    do {                      \
        if (!(cond))          \
            __builtin_trap(); \
    } while (0)

#endif
