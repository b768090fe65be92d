/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding the ends of JSON values needs only strings and brackets; jansson judges what is between.
 * Every complaint is made once: the rest of the value it belongs to is skipped in silence.
 */
#include "admin/json-stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void json_stream_init(struct json_stream *js)
{
    memset(js, 0, sizeof(*js));
}

void json_stream_release(struct json_stream *js)
{
    free(js->buf);
    json_stream_init(js);
}

static void start_over(struct json_stream *js, enum json_stream_state state)
{
    js->state = state;
    js->depth = 0;
    js->len = 0;
    js->skipping = false;
    if (js->alloc > 65536) { /* one large value is no reason to keep the memory */
        free(js->buf);
        js->buf = NULL;
        js->alloc = 0;
    }
}

static bool is_space(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* RFC 8259 section 7 allows no control character in a string, section 2 only four between. */
static bool is_impossible(const struct json_stream *js, unsigned char c)
{
    bool in_string = js->state == JS_IN_STRING || js->state == JS_IN_ESCAPE;

    return (c < 0x20 && (in_string || !is_space(c))) || c >= 0xfe;
}

static bool is_structural(unsigned char c)
{
    return c && strchr("{}[]:,\"", c);
}

static enum json_stream_result complain(struct json_stream *js, struct error *err, const char *what)
{
    if (js->skipping)
        return JSON_STREAM_MORE;
    error_set(err, EINVAL, "JSON parse error, %s", what);
    return JSON_STREAM_ERROR;
}

/* Complains about the value that is being read and goes on looking for its end. */
static enum json_stream_result skip_value(struct json_stream *js, struct error *err,
                                          const char *what)
{
    enum json_stream_result res = complain(js, err, what);

    js->skipping = true;
    js->len = 0;
    return res;
}

static enum json_stream_result keep(struct json_stream *js, char c, struct error *err)
{
    if (js->skipping)
        return JSON_STREAM_MORE;
    if (js->len == JSON_STREAM_MAX_BYTES)
        return skip_value(js, err, "a value is larger than 1 MiB");
    if (js->len == js->alloc) {
        size_t alloc = js->alloc ? js->alloc * 2 : 1024;
        char *buf = realloc(js->buf, alloc);

        if (!buf)
            return skip_value(js, err, "out of memory");
        js->buf = buf;
        js->alloc = alloc;
    }
    js->buf[js->len++] = c;
    return JSON_STREAM_MORE;
}

static enum json_stream_result finish_value(struct json_stream *js, json_t **value,
                                            struct error *err)
{
    json_error_t jerr;
    bool skipped = js->skipping;
    json_t *v = NULL;

    if (!skipped)
        v = json_loadb(js->buf, js->len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &jerr);
    start_over(js, JS_BETWEEN);
    if (skipped)
        return JSON_STREAM_MORE;
    if (!v)
        return complain(js, err, jerr.text);
    *value = v;
    return JSON_STREAM_VALUE;
}

/* A byte that ends the value if no bracket is open. */
static enum json_stream_result keep_last(struct json_stream *js, char c, json_t **value,
                                         struct error *err)
{
    enum json_stream_result res = keep(js, c, err);

    if (js->depth)
        return res;
    if (res == JSON_STREAM_MORE)
        return finish_value(js, value, err);
    start_over(js, JS_BETWEEN);
    return res;
}

static enum json_stream_result open_bracket(struct json_stream *js, char c, struct error *err)
{
    if (js->depth >= JSON_STREAM_MAX_DEPTH) {
        js->depth++; /* counted without its kind until it closes again */
        return skip_value(js, err, "a value is nested more than 64 levels deep");
    }
    js->open[js->depth++] = c == '{' ? '}' : ']';
    js->state = JS_IN_VALUE;
    return keep(js, c, err);
}

static enum json_stream_result close_bracket(struct json_stream *js, char c, json_t **value,
                                             struct error *err)
{
    enum json_stream_result res;

    js->depth--;
    if (js->depth < JSON_STREAM_MAX_DEPTH && js->open[js->depth] != c) {
        res = complain(js, err, "a bracket is closed by one of the other kind");
        start_over(js, JS_BETWEEN);
        return res;
    }
    return keep_last(js, c, value, err);
}

static enum json_stream_result in_value(struct json_stream *js, char c, json_t **value,
                                        struct error *err)
{
    if (c == '{' || c == '[')
        return open_bracket(js, c, err);
    if (c == '}' || c == ']')
        return close_bracket(js, c, value, err);
    if (c == '"')
        js->state = JS_IN_STRING;
    return keep(js, c, err);
}

static enum json_stream_result in_string(struct json_stream *js, char c, json_t **value,
                                         struct error *err)
{
    if (js->state == JS_IN_ESCAPE)
        js->state = JS_IN_STRING;
    else if (c == '\\')
        js->state = JS_IN_ESCAPE;
    else if (c == '"')
        js->state = JS_IN_VALUE;
    return js->state == JS_IN_VALUE ? keep_last(js, c, value, err) : keep(js, c, err);
}

static enum json_stream_result between(struct json_stream *js, char c, struct error *err)
{
    if (is_space((unsigned char)c))
        return JSON_STREAM_MORE;
    if (c == '{' || c == '[')
        return open_bracket(js, c, err);
    if (c == '"') {
        js->state = JS_IN_STRING;
        return keep(js, c, err);
    }
    if (is_structural((unsigned char)c))
        return complain(js, err, "a value was expected");
    if ((c >= '0' && c <= '9') || c == '-' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        js->state = JS_IN_SCALAR;
        return keep(js, c, err);
    }
    js->state = JS_RECOVERING;
    return complain(js, err, "stray character");
}

enum json_stream_result json_stream_feed(struct json_stream *js, const char *bytes, size_t len,
                                         size_t *used, json_t **value, struct error *err)
{
    enum json_stream_result res = JSON_STREAM_MORE;
    size_t i = 0;

    while (i < len && res == JSON_STREAM_MORE) {
        char c = bytes[i];

        if (is_impossible(js, (unsigned char)c)) {
            res = complain(js, err, "a byte that JSON can't hold");
            start_over(js, JS_BETWEEN);
            i++;
            continue;
        }
        switch (js->state) {
        case JS_RECOVERING:
            if (!is_structural((unsigned char)c) && !is_space((unsigned char)c))
                break;
            start_over(js, JS_BETWEEN);
            res = between(js, c, err);
            break;
        case JS_BETWEEN:
            res = between(js, c, err);
            break;
        case JS_IN_SCALAR:
            if (is_space((unsigned char)c) || is_structural((unsigned char)c)) {
                *used = i; /* looked at, not taken */
                res = finish_value(js, value, err);
                if (res != JSON_STREAM_MORE)
                    return res;
                continue;
            }
            res = keep(js, c, err);
            break;
        case JS_IN_VALUE:
            res = in_value(js, c, value, err);
            break;
        case JS_IN_STRING:
        case JS_IN_ESCAPE:
            res = in_string(js, c, value, err);
            break;
        }
        i++;
    }
    *used = i;
    return res;
}

enum json_stream_result json_stream_end(struct json_stream *js, json_t **value, struct error *err)
{
    enum json_stream_result res = JSON_STREAM_MORE;

    if (js->state == JS_IN_SCALAR)
        return finish_value(js, value, err);
    if (js->state != JS_BETWEEN && js->state != JS_RECOVERING)
        res = complain(js, err, "the input ends inside a value");
    start_over(js, JS_BETWEEN);
    return res;
}
