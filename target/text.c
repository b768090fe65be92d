/* SPDX-License-Identifier: BSD-3-Clause */
/* key=value text, RFC 7143 6.1. Every pair ends in a NUL inside the bounds, or it is refused. */
#include "target/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool key_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr(".-+@_#", c));
}

/* The bound is that of one value: a list may be as long as there is room (RFC 7143 6.1). */
static bool value_fits(const char *key, const char *value)
{
    size_t max = strncmp(key, "CHAP_", 5) ? TEXT_VALUE_MAX : TEXT_CHAP_MAX;

    for (;;) {
        size_t len = strcspn(value, ",");

        if (len > max)
            return false;
        if (!value[len])
            return true;
        value += len + 1;
    }
}

int text_next(struct text_iter *it, const char **key, const char **value)
{
    char *nul, *eq;

    while (it->pos < it->end && !*it->pos) /* padding that was counted as data */
        it->pos++;
    if (it->pos >= it->end)
        return 0;
    nul = memchr(it->pos, 0, (size_t)(it->end - it->pos));
    if (!nul)
        return -EINVAL;
    eq = memchr(it->pos, '=', (size_t)(nul - it->pos));
    if (!eq || eq == it->pos || eq - it->pos > TEXT_KEY_MAX || !value_fits(it->pos, eq + 1))
        return -EINVAL;
    for (char *p = it->pos; p < eq; p++) {
        if (!key_char((unsigned char)*p))
            return -EINVAL;
    }
    *eq = 0;
    *key = it->pos;
    *value = eq + 1;
    it->pos = nul + 1;
    return 1;
}

bool text_number(const char *value, uint32_t *number)
{
    bool hex = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
    const char *digits = hex ? value + 2 : value;
    size_t n = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
    unsigned long v;

    if (!n || digits[n])
        return false;
    errno = 0;
    v = strtoul(digits, NULL, hex ? 16 : 10);
    if (errno || v > UINT32_MAX)
        return false;
    *number = (uint32_t)v;
    return true;
}

bool text_bool(const char *value, bool *b)
{
    *b = !strcmp(value, "Yes");
    return *b || !strcmp(value, "No");
}

bool text_list_has(const char *value, const char *word)
{
    size_t n = strlen(word);

    for (;;) {
        size_t len = strcspn(value, ",");

        if (len == n && !memcmp(value, word, n))
            return true;
        if (!value[len])
            return false;
        value += len + 1;
    }
}

void text_init(struct text_buf *b, size_t max_bytes)
{
    memset(b, 0, sizeof(*b));
    b->max_bytes = max_bytes;
}

void text_release(struct text_buf *b)
{
    free(b->data);
    text_init(b, b->max_bytes);
}

void text_append(struct text_buf *b, const void *bytes, size_t len)
{
    if (b->failed || !len)
        return;
    if (len > b->max_bytes - b->len) {
        b->failed = true;
        return;
    }
    if (b->len + len > b->alloc) {
        size_t want = 2 * (b->len + len);
        char *p = realloc(b->data, want);

        if (!p) {
            b->failed = true;
            return;
        }
        b->data = p;
        b->alloc = want;
    }
    memcpy(b->data + b->len, bytes, len);
    b->len += len;
}

void text_add(struct text_buf *b, const char *key, const char *value)
{
    text_append(b, key, strlen(key));
    text_append(b, "=", 1);
    text_append(b, value, strlen(value) + 1);
}

void text_add_number(struct text_buf *b, const char *key, uint32_t number)
{
    char digits[16];

    snprintf(digits, sizeof(digits), "%u", number);
    text_add(b, key, digits);
}
