/* SPDX-License-Identifier: BSD-3-Clause */
/* UTF-8 (RFC 3629): the shortest form, up to U+10FFFF, no surrogates. */
#ifndef COWTGT_UTIL_UTF8_H
#define COWTGT_UTIL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the sequence at @p, 1 to 4; 0 if none begins there or @len is too short, or for NUL. */
size_t utf8_sequence(const uint8_t *p, size_t len);
bool utf8_is_valid(const char *text);

#endif
