/* SPDX-License-Identifier: BSD-3-Clause */
/* Which bytes are UTF-8; see utf8.h. */
#include "util/utf8.h"

#include <string.h>

#include "util/size.h"

size_t utf8_sequence(const uint8_t *p, size_t len)
{
    static const struct {
        uint8_t mask, lead;
        uint32_t min;
    } forms[] = {{0x80, 0x00, 1}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

    for (size_t n = 0; n < ARRAY_LEN(forms) && n < len; n++) {
        if ((p[0] & forms[n].mask) != forms[n].lead)
            continue;
        uint32_t code = p[0] & (uint8_t)~forms[n].mask;

        for (size_t i = 1; i <= n; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (p[i] & 0x3f);
        }
        if (code < forms[n].min || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return 0;
        return n + 1;
    }
    return 0;
}

bool utf8_is_valid(const char *text)
{
    size_t left = strlen(text), n;

    for (; left; text += n, left -= n) {
        n = utf8_sequence((const uint8_t *)text, left);
        if (!n)
            return false;
    }
    return true;
}
