/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CRC32C by ISA-L, which picks the machine's best code at run time. crc32_iscsi() neither inverts
 * its initial value nor its result: the state passed along is the plain register.
 */
#include "target/digest.h"

#include <isa-l/crc.h>

#define STEP_BYTES (1u << 30) /* ISA-L takes an int */

uint32_t digest_update(uint32_t state, const void *buf, size_t bytes)
{
    const uint8_t *p = buf;

    while (bytes) {
        size_t n = bytes < STEP_BYTES ? bytes : STEP_BYTES;

        state = crc32_iscsi((unsigned char *)p, (int)n, state);
        p += n;
        bytes -= n;
    }
    return state;
}

void digest_put(uint8_t wire[4], uint32_t digest)
{
    for (int i = 0; i < 4; i++)
        wire[i] = (uint8_t)(digest >> (8 * i));
}

uint32_t digest_get(const uint8_t wire[4])
{
    return wire[0] | (uint32_t)wire[1] << 8 | (uint32_t)wire[2] << 16 | (uint32_t)wire[3] << 24;
}

uint32_t digest_of(const void *buf, size_t bytes, unsigned pad_bytes)
{
    static const uint8_t zeros[4];

    return digest_end(digest_update(digest_update(DIGEST_BEGIN, buf, bytes), zeros, pad_bytes));
}
