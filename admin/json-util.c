/* SPDX-License-Identifier: BSD-3-Clause */
/* Helpers around jansson; see json-util.h. */
#include "admin/json-util.h"

#include <stdlib.h>
#include <string.h>

#include "util/utf8.h"

json_t *json_text(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    json_t *j = json_string(text);
    size_t left = text ? strlen(text) : 0, n;
    char *copy, *to;

    if (j || !text)
        return j;
    copy = to = malloc(3 * left);
    for (; copy && left; text += n, left -= n) {
        n = utf8_sequence((const uint8_t *)text, left);
        to = mempcpy(to, n ? text : replacement, n ? n : 3);
        n += !n;
    }
    j = copy ? json_stringn(copy, (size_t)(to - copy)) : NULL;
    free(copy);
    return j;
}

json_t *json_uuid(const struct uuid *u)
{
    char text[UUID_STRLEN];

    uuid_to_text(u, text);
    return json_string(text);
}

void json_put(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}
