/* SPDX-License-Identifier: BSD-3-Clause */
/* Small helpers for showing replies. Names come from images and other hosts: never raw. */
#include "admin/cli.h"

#include <string.h>

#include "util/size.h"

void cli_put_to(FILE *f, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
            fprintf(f, "\\x%02x", *p); /* C0, DEL, and the first byte of UTF-8's C1 */
        else
            fputc(*p, f);
    }
}

void cli_put(const char *text)
{
    cli_put_to(stdout, text);
}

void cli_put_size(long long bytes)
{
    char buf[32];

    fputs(size_human((uint64_t)(bytes > 0 ? bytes : 0), buf, sizeof(buf)), stdout);
}

void cli_put_setting(const json_t *value)
{
    if (json_is_boolean(value))
        fputs(json_is_true(value) ? "on" : "off", stdout);
    else if (json_is_string(value))
        cli_put(json_string_value(value));
    else
        printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
}

const char *cli_str(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));

    return s ? s : "";
}

long long cli_int(const json_t *obj, const char *key)
{
    return json_integer_value(json_object_get(obj, key));
}

double cli_real(const json_t *obj, const char *key)
{
    return json_number_value(json_object_get(obj, key));
}

bool cli_bool(const json_t *obj, const char *key)
{
    return json_is_true(json_object_get(obj, key));
}

json_t *cli_find(const json_t *list, const char *key, const char *value)
{
    json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (!strcmp(cli_str(item, key), value))
            return item;
    }
    return NULL;
}
