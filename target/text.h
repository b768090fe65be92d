/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * key=value text of Login and Text PDUs (RFC 7143 6.1): reading and building. Pure. Names and
 * values are bounded here; a text that is not well-formed is refused as a whole.
 */
#ifndef COWTGT_TEXT_H
#define COWTGT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEXT_MAX_BYTES 16384 /* of one negotiation step, over all PDUs joined by the C bit */
#define TEXT_KEY_MAX   63
#define TEXT_VALUE_MAX 255  /* of one value of a list, too */
#define TEXT_CHAP_MAX  2050 /* 1024 bytes in hexadecimal, RFC 7143 6.1 large-binary-value */

/* Walks over a text in place: '=' becomes NUL. */
struct text_iter {
    char *pos, *end;
};

/* 1: *@key and *@value are a pair, 0: the end, -EINVAL: not well-formed. */
int text_next(struct text_iter *it, const char **key, const char **value);

/* Decimal or 0x-hexadecimal constant (6.1); false if it isn't one or does not fit. */
bool text_number(const char *value, uint32_t *number);
/* "Yes" or "No". */
bool text_bool(const char *value, bool *b);
/* True if the comma-separated list @value has the element @word. */
bool text_list_has(const char *value, const char *word);

/* A growing text, never longer than @max_bytes. */
struct text_buf {
    char *data;
    size_t len, alloc;
    size_t max_bytes;
    bool failed; /* out of memory or over the bound: something is missing */
};
void text_init(struct text_buf *b, size_t max_bytes);
void text_release(struct text_buf *b);
void text_append(struct text_buf *b, const void *bytes, size_t len);
/* Appends "key=value" and a NUL. */
void text_add(struct text_buf *b, const char *key, const char *value);
void text_add_number(struct text_buf *b, const char *key, uint32_t number);

#endif
