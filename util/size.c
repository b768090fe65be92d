/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes in and out of text; see size.h. */
#include "util/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int suffix_shift(char c)
{
    static const char suffixes[] = "bkmgtpe";
    const char *p = strchr(suffixes, tolower((unsigned char)c));

    return c && p ? (int)(p - suffixes) * 10 : -1;
}

int size_parse(const char *text, uint64_t *bytes)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end;
    uint64_t whole;
    double fraction = 0;
    int shift = 0;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    whole = strtoull(text, &end, hex ? 16 : 10);
    if (errno)
        return -ERANGE;
    if (hex && (*end || end == text + 2))
        return -EINVAL;
    if (*end == '.') {
        double scale = 0.1;

        if (!isdigit((unsigned char)end[1]))
            return -EINVAL;
        for (end++; isdigit((unsigned char)*end); end++, scale /= 10)
            fraction += (*end - '0') * scale;
    }
    if (*end) {
        shift = suffix_shift(*end);
        if (shift < 0 || end[1])
            return -EINVAL;
    }
    if (whole > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    whole = (whole << shift) + (uint64_t)(fraction * (double)(UINT64_C(1) << shift));
    if (whole > INT64_MAX)
        return -ERANGE;
    *bytes = whole;
    return 0;
}

const char *size_human(uint64_t bytes, char *buf, unsigned long len)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned u = 0;
    double v = (double)bytes;

    while (v >= 1024 && u < ARRAY_LEN(units) - 1) {
        v /= 1024;
        u++;
    }
    snprintf(buf, len, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return buf;
}
