/* SPDX-License-Identifier: BSD-3-Clause */
/* 16-byte UUIDs (RFC 9562), in the byte order they go on the wire. */
#ifndef COWTGT_UTIL_UUID_H
#define COWTGT_UTIL_UUID_H

#include <stdbool.h>
#include <stdint.h>

struct uuid {
    uint8_t b[16];
};

#define UUID_STRLEN 37 /* with the terminating NUL */

void uuid_make(struct uuid *u); /* random, version 4 */
/* Derived from @ns and @name, version 5 (SHA-1): the same answer every time. */
void uuid_derive(struct uuid *u, const struct uuid *ns, const char *name);
bool uuid_from_text(struct uuid *u, const char *text); /* false if it is not one */
void uuid_to_text(const struct uuid *u, char text[UUID_STRLEN]);
bool uuid_equal(const struct uuid *a, const struct uuid *b);
bool uuid_is_zero(const struct uuid *u);

#endif
