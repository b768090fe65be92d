/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C as iSCSI digests use it (RFC 7143 13.1), by ISA-L. Pure. */
#ifndef COWTGT_DIGEST_H
#define COWTGT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/* A digest in the making: begin, update any number of times, end, put on the wire. */
#define DIGEST_BEGIN 0xffffffffu
uint32_t digest_update(uint32_t state, const void *buf, size_t bytes);

static inline uint32_t digest_end(uint32_t state)
{
    return ~state;
}

/* The digest's four bytes: the CRC's least significant byte first (RFC 3720 B.4). */
void digest_put(uint8_t wire[4], uint32_t digest);
uint32_t digest_get(const uint8_t wire[4]);

/* Of a data segment with @pad_bytes (0..3) zero bytes behind it. */
uint32_t digest_of(const void *buf, size_t bytes, unsigned pad_bytes);

#endif
