/* SPDX-License-Identifier: BSD-3-Clause */
/* UUIDs by libuuid. */
#include "util/uuid.h"

#include <string.h>
#include <uuid/uuid.h>

void uuid_make(struct uuid *u)
{
    uuid_generate_random(u->b);
}

void uuid_derive(struct uuid *u, const struct uuid *ns, const char *name)
{
    uuid_generate_sha1(u->b, ns->b, name, strlen(name));
}

bool uuid_from_text(struct uuid *u, const char *text)
{
    return uuid_parse(text, u->b) == 0;
}

void uuid_to_text(const struct uuid *u, char text[UUID_STRLEN])
{
    uuid_unparse_lower(u->b, text);
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return !memcmp(a->b, b->b, sizeof(a->b));
}

bool uuid_is_zero(const struct uuid *u)
{
    return uuid_is_null(u->b);
}
