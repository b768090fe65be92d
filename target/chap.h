/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CHAP (RFC 1994) as iSCSI uses it (RFC 7143 12.1.3): algorithms, encodings, responses. Pure but
 * for the challenge, which comes whole from the kernel's random numbers or not at all.
 */
#ifndef COWTGT_CHAP_H
#define COWTGT_CHAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "target/target.h"

#define CHAP_BINARY_MAX 1024 /* RFC 7143 6.1: large-binary-value */
#define CHAP_DIGEST_MAX 32

struct chap_algorithm;

/* The first of the list CHAP_A that we have; NULL. */
const struct chap_algorithm *chap_pick(const char *list);
unsigned chap_number(const struct chap_algorithm *alg);
/* Of a response, and of the challenges we make. */
size_t chap_digest_bytes(const struct chap_algorithm *alg);

/* 0x or 0b and at least one byte, at most @max: how many bytes; else -EINVAL. */
int chap_decode(const char *text, uint8_t *out, size_t max);
/* As hexadecimal, into @out of 2 * @len + 3. */
void chap_encode(const uint8_t *bytes, size_t len, char *out);

/* Fills @out from getrandom(), or fails. */
int chap_random(void *out, size_t len);

/* The response to a challenge; -EIO where the library refuses the algorithm. */
int chap_response(const struct chap_algorithm *alg, uint8_t id, const struct chap_account *account,
                  const uint8_t *challenge, size_t challenge_bytes, uint8_t out[CHAP_DIGEST_MAX]);
/* Takes the same time wherever the two differ. */
bool chap_same(const uint8_t *a, const uint8_t *b, size_t len);

#endif
