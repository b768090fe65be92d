/* SPDX-License-Identifier: BSD-3-Clause */
/* Small things around jansson that more than one file of admin/ needs. */
#ifndef COWTGT_JSON_UTIL_H
#define COWTGT_JSON_UTIL_H

#include <jansson.h>
#include "util/uuid.h"

/*
 * A string whatever its bytes are: a byte that is no UTF-8 (file names may be anything) becomes
 * U+FFFD, as QEMU has it. NULL: out of memory, or @text is NULL.
 */
json_t *json_text(const char *text);
json_t *json_uuid(const struct uuid *u);
/* Adds a member; takes the reference. */
void json_put(json_t *object, const char *name, json_t *value);

#endif
