/* SPDX-License-Identifier: BSD-3-Clause */
/* Helpers around jansson; see json-util.h. */
#include "admin/json-util.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text)
{
    json_t *j = json_string(text);
    char *copy;

    if (j || !text)
        return j;
    copy = strdup(text);
    if (!copy)
        return NULL;
    for (char *p = copy; *p; p++) {
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    }
    j = json_string(copy);
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
